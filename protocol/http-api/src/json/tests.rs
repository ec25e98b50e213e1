//! Tests of the JSON reader and writer by Mesos's rules.

use crate::json::{ReadError, decode, decode_pb, encode};
use crate::proto::scheduler::{Call, OfferConstraints};
use crate::proto::{
    CommandInfo, ContainerId, FrameworkInfo, Offer, Resource, TaskInfo, TaskStatus, Value, master, value,
};
use prost::Message;

fn text<M: crate::json::Json>(message: &M) -> String {
    String::from_utf8(encode(message)).unwrap()
}

#[test]
fn doubles_are_shortest_with_a_decimal() {
    let rows: &[(f64, &str)] = &[
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (4096.0, "4096.0"),
        (0.1, "0.1"),
        (0.01, "0.01"),
        (0.001, "0.001"),
        (3.9, "3.9"),
        (3.875, "3.875"),
        (-5.25, "-5.25"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1_795_249_825.166_884, "1795249825.166884"),
        (99_999_999_999.0, "99999999999.0"),
        (100_000_000_000.0, "100000000000.0"),
        (123_456_789_012_345_680.0, "123456789012345680.0"),
        (1e21, "1e21"),
        (1e20, "100000000000000000000.0"),
        (1.5e300, "1.5e300"),
        (0.000_001, "0.000001"),
        (0.000_000_12, "1.2e-7"),
        (5e-324, "5e-324"),
        (f64::INFINITY, "Infinity"),
        (f64::NEG_INFINITY, "-Infinity"),
        (f64::NAN, "NaN"),
    ];
    for (value, expected) in rows {
        assert_eq!(text(&value::Scalar { value: *value }), format!("{{\"value\":{expected}}}"), "case: {value}");
    }
}

#[test]
fn finite_doubles_read_back_equal() {
    let mut state: u64 = 1;
    for _ in 0..20_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let value = f64::from_bits(state);
        if value.is_finite() {
            let written = encode(&value::Scalar { value });
            let read: value::Scalar = decode(&written).unwrap();
            assert_eq!(read.value.to_bits(), value.to_bits(), "{}", String::from_utf8_lossy(&written));
        }
    }
}

#[test]
fn strings_are_escaped_as_rapidjson_does() {
    let label = crate::proto::Label { key: "a\"\\/\u{8}\u{c}\n\r\t\u{1}\u{1f}é😀".to_owned(), value: None };
    assert_eq!(text(&label), "{\"key\":\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001Fé😀\"}");
    assert_eq!(decode::<crate::proto::Label>(&encode(&label)).unwrap(), label);
}

#[test]
fn unset_optionals_with_a_default_are_written_unless_deprecated() {
    let rows = [
        (text(&crate::proto::Filters::default()), "{\"refuse_seconds\":5.0}"),
        (text(&CommandInfo::default()), "{\"shell\":true}"),
        (
            text(&FrameworkInfo { user: "u".into(), name: "n".into(), ..Default::default() }),
            "{\"user\":\"u\",\"name\":\"n\",\"failover_timeout\":0.0,\"checkpoint\":false}",
        ),
        (
            text(&Resource { name: "r".into(), r#type: value::Type::Scalar.into(), ..Default::default() }),
            "{\"name\":\"r\",\"type\":\"SCALAR\"}",
        ),
        (
            text(&crate::proto::health_check::TcpCheckInfo { protocol: None, port: 1 }),
            "{\"protocol\":\"IPv4\",\"port\":1}",
        ),
    ];
    for (written, expected) in rows {
        assert_eq!(written, expected);
    }
}

#[test]
fn values_are_read_as_loosely_as_mesos_does() {
    let rows: &[(&str, &str, Result<&str, &str>)] = &[
        ("number in quotes", "{\"value\":\"1.5\"}", Ok("{\"value\":1.5}")),
        ("infinity in quotes", "{\"value\":\"Infinity\"}", Ok("{\"value\":Infinity}")),
        ("minus infinity in quotes", "{\"value\":\"-Infinity\"}", Ok("{\"value\":-Infinity}")),
        ("unknown fields", "{\"value\":1,\"x\":[{\"y\":[1,null,\"\\u0041\"]}]}", Ok("{\"value\":1.0}")),
        ("blanks", " { \"value\" : 1 } \n", Ok("{\"value\":1.0}")),
        ("last of two wins", "{\"value\":1,\"value\":2}", Ok("{\"value\":2.0}")),
        ("exponent", "{\"value\":1E+2}", Ok("{\"value\":100.0}")),
        ("null is unset", "{\"value\":null}", Err("Missing required fields: value")),
        (
            "not a number",
            "{\"value\":\"x\"}",
            Err("Failed to parse 'x' as a JSON number for field 'value': it is none"),
        ),
        ("bool for a number", "{\"value\":true}", Err("Not expecting a JSON boolean for field 'value'")),
        ("list for one value", "{\"value\":[1]}", Err("Not expecting a JSON array for field 'value'")),
        ("object for a number", "{\"value\":{}}", Err("Not expecting a JSON object for field 'value'")),
        ("not an object", "[1]", Err("Expecting a JSON object")),
    ];
    for (name, input, expected) in rows {
        let outcome =
            decode::<value::Scalar>(input.as_bytes()).map(|message| text(&message)).map_err(|e| e.to_string());
        assert_eq!(outcome.as_deref().map_err(String::as_str), *expected, "case: {name}");
    }
}

#[test]
fn enums_lists_booleans_bytes_and_maps() {
    let status = |input: &str| {
        decode::<TaskStatus>(input.as_bytes()).map(|message| text(&message)).map_err(|error| error.to_string())
    };
    let prefix = "{\"task_id\":{\"value\":\"t\"},\"state\":\"TASK_RUNNING\"";
    assert_eq!(status(&format!("{prefix},\"source\":\"SOURCE_X\"}}")), Ok(format!("{prefix}}}")));
    assert_eq!(status(&format!("{prefix},\"healthy\":\"true\"}}")), Ok(format!("{prefix},\"healthy\":true}}")));
    assert_eq!(
        status(&format!("{prefix},\"healthy\":\"yes\"}}")),
        Err("Failed to parse 'yes' as a JSON boolean for field 'healthy'".to_owned())
    );
    assert!(
        status(&format!("{prefix},\"uuid\":\"%%\"}}"))
            .unwrap_err()
            .starts_with("Failed to base64 decode bytes field 'uuid'")
    );
    assert_eq!(
        status("{\"task_id\":{\"value\":\"t\"},\"state\":\"TASK_X\"}"),
        Err("Failed to find enum for 'TASK_X'".to_owned())
    );
    assert_eq!(
        status("{\"task_id\":{\"value\":\"t\"},\"state\":1}"),
        Err("Not expecting a JSON number for field 'state'".to_owned())
    );

    let one: FrameworkInfo =
        decode(b"{\"user\":\"u\",\"name\":\"n\",\"roles\":\"a\",\"capabilities\":[{\"type\":\"NEW\"}]}").unwrap();
    assert_eq!(one.roles, ["a"]);
    assert_eq!(one.capabilities.len(), 1);
    assert!(text(&one).ends_with("\"roles\":[\"a\"],\"capabilities\":[{}]}"));

    let nested: FrameworkInfo = decode(b"{\"user\":\"u\",\"name\":\"n\",\"roles\":[[\"a\"],[[\"b\"],\"c\"]]}").unwrap();
    assert_eq!(nested.roles, ["a", "b", "c"]);

    let task: TaskInfo = decode(
        b"{\"name\":\"n\",\"task_id\":{\"value\":\"t\"},\"agent_id\":{\"value\":\"a\"},\"limits\":{\"mem\":{\"value\":\"Infinity\"},\"cpus\":{\"value\":1}}}",
    )
    .unwrap();
    assert!(text(&task).ends_with("\"limits\":{\"cpus\":{\"value\":1.0},\"mem\":{\"value\":Infinity}}}"));

    let constraints: OfferConstraints = decode(
        b"{\"role_constraints\":{\"r\":{\"groups\":[{\"attribute_constraints\":[{\"selector\":{\"attribute_name\":\"a\"},\"predicate\":{\"exists\":{}}}]}]}}}",
    )
    .unwrap();
    assert_eq!(decode::<OfferConstraints>(&encode(&constraints)).unwrap(), constraints);
    assert_eq!(decode_pb::<OfferConstraints>(&constraints.encode_to_vec()).unwrap(), constraints);
}

#[test]
fn whole_numbers_are_checked_against_their_range() {
    let range = |input: &str| decode::<value::Range>(input.as_bytes()).map(|range| (range.begin, range.end));
    assert_eq!(range("{\"begin\":\"7\",\"end\":18446744073709551615}"), Ok((7, u64::MAX)));
    assert_eq!(range("{\"begin\":31000.0,\"end\":3.9e1}"), Ok((31_000, 39)));
    for bad in ["{\"begin\":-1,\"end\":1}", "{\"begin\":18446744073709551616,\"end\":1}", "{\"begin\":1e300,\"end\":1}"]
    {
        assert!(matches!(range(bad), Err(ReadError::Misfit { .. })), "case: {bad}");
    }
}

#[test]
fn text_that_is_not_json_is_told_from_json_that_does_not_fit() {
    for bad in [
        "",
        " ",
        "{",
        "{\"type\"",
        "{\"type\":",
        "{\"type\":1,}",
        "{\"type\":\"A\"} x",
        "{type:1}",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":+1}",
        "{\"a\":1e999}",
        "{\"a\":nul}",
        "{\"a\":'x'}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\n\"}",
        "{\"a\":[1 2]}",
        "{\"a\":[1}",
        "{\"accept\":[1], \"x\": nope}",
        "{\"value\":Infinity}",
    ] {
        let error = decode::<Call>(bad.as_bytes()).unwrap_err();
        assert!(matches!(error, ReadError::Syntax { .. }), "case: {bad} gave {error}");
        assert!(serde_json::from_str::<serde_json::Value>(bad).is_err(), "case: {bad}");
    }
    assert!(matches!(decode::<Call>(b"{\"a\":\"\xff\"}"), Err(ReadError::Syntax { .. })));
    assert!(matches!(decode::<Call>(b"{\"accept\":[1]}"), Err(ReadError::Misfit { .. })));
}

#[test]
fn nesting_is_limited_like_serde_json_limits_it() {
    for (depth, fits) in [(10, true), (126, true), (127, false), (100_000, false)] {
        let unknown = format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(decode::<Call>(unknown.as_bytes()).is_ok(), fits, "case: {depth} unknown");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&unknown).is_ok(), fits, "case: {depth} in serde_json");
        let known = format!("{}{{\"value\":\"x\"}}{}", "{\"value\":\"x\",\"parent\":".repeat(depth), "}".repeat(depth));
        assert_eq!(decode::<ContainerId>(known.as_bytes()).is_ok(), fits, "case: {depth} known");
    }
}

#[test]
fn missing_required_fields_are_named_with_their_place() {
    let rows: &[(&str, &str)] = &[
        ("{\"accept\":{\"offer_ids\":[{\"value\":\"a\"},{}]}}", "accept.offer_ids[1].value"),
        ("{\"acknowledge\":{\"agent_id\":{}}}", "acknowledge.task_id, acknowledge.uuid, acknowledge.agent_id.value"),
    ];
    for (input, expected) in rows {
        let error = decode::<Call>(input.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, format!("Missing required fields: {expected}"));
    }
}

#[test]
fn missing_required_fields_are_found_in_protobuf_too() {
    // Call.accept (4) { offer_ids (1) { } }
    let call = [0x22, 0x02, 0x0a, 0x00];
    assert_eq!(
        decode_pb::<Call>(&call).unwrap_err().to_string(),
        "missing required field: accept.offer_ids.value; send it"
    );
    // A required enum with a number that has no name: Resource { name (1) "r", type (2) 77 }
    assert!(decode_pb::<Resource>(&[0x0a, 1, b'r', 0x10, 77]).is_err());
    assert!(decode_pb::<Resource>(&[0x0a, 1, b'r', 0x10, 1]).is_ok());
    // A message in two parts is merged: Call.set_logging_level (3), first with `level` (1), then with `duration` (2).
    let (level, duration) = ([0x1a, 0x02, 0x08, 0x01], [0x1a, 0x04, 0x12, 0x02, 0x08, 0x05]);
    assert!(decode_pb::<master::Call>(&level).is_err());
    assert!(decode_pb::<master::Call>(&duration).is_err());
    let merged = decode_pb::<master::Call>(&[&level[..], &duration].concat()).unwrap().set_logging_level.unwrap();
    assert_eq!((merged.level, merged.duration.nanoseconds), (1, 5));
    // Map values: TaskInfo.limits holds Scalars, whose value is required.
    let mut task = TaskInfo { name: "n".into(), ..Default::default() };
    task.limits.insert("mem".into(), value::Scalar { value: 1.0 });
    assert!(decode_pb::<TaskInfo>(&task.encode_to_vec()).is_ok());
    let mut bytes = TaskInfo::default().encode_to_vec();
    bytes.extend_from_slice(&[0x7a, 0x03, 0x0a, 0x01, b'm']);
    assert_eq!(
        decode_pb::<TaskInfo>(&bytes).unwrap_err().to_string(),
        "missing required field: limits.value.value; send it"
    );
    assert!(decode_pb::<Offer>(&[0xff]).is_err());
}

#[test]
fn deep_protobuf_is_refused() {
    let mut bytes = ContainerId { value: "x".into(), parent: None }.encode_to_vec();
    for _ in 0..300 {
        let mut outer = vec![0x12];
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.extend_from_slice(&bytes);
        outer.extend_from_slice(&[0x0a, 0x01, b'x']);
        bytes = outer;
    }
    assert!(decode_pb::<ContainerId>(&bytes).is_err());
    let _ = Value::default();
}
