//! Tests of resources and attributes on the wire.

use super::*;
use crate::json::{decode, encode};

fn read(json: &str) -> Result<(Resources, Option<Role>), ResourceRefusal> {
    let task: proto::TaskInfo = decode(
        format!(
            "{{\"name\":\"\",\"task_id\":{{\"value\":\"t\"}},\"agent_id\":{{\"value\":\"a\"}},\"resources\":{json}}}"
        )
        .as_bytes(),
    )
    .unwrap();
    resources_from_wire(&task.resources)
}

fn written(resources: &Resources, role: Option<&Role>, form: Form) -> String {
    let list: Vec<String> = resources_to_wire(resources, role, form)
        .iter()
        .map(|resource| String::from_utf8(encode(resource)).unwrap())
        .collect();
    list.join(",")
}

#[test]
fn scalars_are_rounded_to_three_decimals() {
    for (value, expected) in [
        (0.0, Ok(0)),
        (-0.0, Ok(0)),
        (0.1, Ok(100)),
        (0.0004, Ok(0)),
        (0.0005, Ok(1)),
        (3.9, Ok(3900)),
        (0.1 + 0.2, Ok(300)),
        (4096.0, Ok(4_096_000)),
        (1e12, Ok(1_000_000_000_000_000)),
        (-0.001, Err(())),
        (-0.0001, Err(())),
        (1.1e12, Err(())),
        (f64::NAN, Err(())),
        (f64::INFINITY, Err(())),
        (f64::NEG_INFINITY, Err(())),
    ] {
        assert_eq!(scalar_from_wire(value).map(|amount| amount.0).map_err(|_| ()), expected, "case: {value}");
    }
}

#[test]
fn every_amount_of_three_decimals_comes_back_exactly() {
    for thousandths in (0..2_000_000).step_by(37).chain([u64::from(u32::MAX), 999_999_999_999_999]) {
        assert_eq!(scalar_from_wire(scalar_to_wire(Milli(thousandths))), Ok(Milli(thousandths)));
    }
}

#[test]
fn forms_of_reservations_are_read_and_written() {
    let rows: &[(&str, &str, &str, &str, &str)] = &[
        (
            "unreserved",
            "{\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{\"value\":1}}",
            "\"role\":\"*\"",
            "",
            "\"role\":\"*\"",
        ),
        (
            "static, older form",
            "{\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{\"value\":1},\"role\":\"a\"}",
            "\"role\":\"a\"",
            "\"reservations\":[{\"type\":\"STATIC\",\"role\":\"a\"}]",
            "\"role\":\"a\",\"reservations\":[{\"type\":\"STATIC\",\"role\":\"a\"}]",
        ),
        (
            "dynamic, older form",
            "{\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{\"value\":1},\"role\":\"a\",\"reservation\":{\"principal\":\"p\"}}",
            "\"role\":\"a\",\"reservation\":{\"principal\":\"p\"}",
            "\"reservations\":[{\"type\":\"DYNAMIC\",\"role\":\"a\",\"principal\":\"p\"}]",
            "\"role\":\"a\",\"reservation\":{\"principal\":\"p\"},\"reservations\":[{\"type\":\"DYNAMIC\",\"role\":\"a\",\"principal\":\"p\"}]",
        ),
        (
            "dynamic, newer form",
            "{\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{\"value\":1},\"reservations\":[{\"type\":\"DYNAMIC\",\"role\":\"a\",\"labels\":{\"labels\":[{\"key\":\"k\"}]}}]}",
            "\"role\":\"a\",\"reservation\":{\"labels\":{\"labels\":[{\"key\":\"k\"}]}}",
            "\"reservations\":[{\"type\":\"DYNAMIC\",\"role\":\"a\",\"labels\":{\"labels\":[{\"key\":\"k\"}]}}]",
            "\"role\":\"a\",\"reservation\":{\"labels\":{\"labels\":[{\"key\":\"k\"}]}},\"reservations\":[{\"type\":\"DYNAMIC\",\"role\":\"a\",\"labels\":{\"labels\":[{\"key\":\"k\"}]}}]",
        ),
    ];
    let head = "{\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{\"value\":1.0}";
    for (name, input, old, new, endpoint) in rows {
        let (resources, role) = read(input).unwrap();
        assert_eq!(role, None);
        for (form, expected) in [(Form::PreRefinement, old), (Form::PostRefinement, new), (Form::Endpoint, endpoint)] {
            let tail = if expected.is_empty() { "}".to_owned() } else { format!(",{expected}}}") };
            assert_eq!(written(&resources, None, form), format!("{head}{tail}"), "case: {name}, {form:?}");
        }
    }
    let stack = "[{\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{\"value\":1},\"reservations\":[{\"type\":\"STATIC\",\"role\":\"a\"},{\"type\":\"DYNAMIC\",\"role\":\"a/b\"}]}]";
    let (resources, _) = read(stack).unwrap();
    assert_eq!(written(&resources, None, Form::PreRefinement), "", "the older form cannot express a stack of two");
    assert!(written(&resources, None, Form::Endpoint).contains("\"role\":\"a/b\""));
}

#[test]
fn entries_of_one_key_are_added_up_and_empty_ones_dropped() {
    let (resources, role) = read(
        "[{\"name\":\"ports\",\"type\":\"RANGES\",\"ranges\":{\"range\":[{\"begin\":5,\"end\":6},{\"begin\":1,\"end\":4}]},\"allocation_info\":{\"role\":\"r\"}},
          {\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{\"value\":0.25}},{\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{\"value\":0.5}},
          {\"name\":\"disk\",\"type\":\"SCALAR\",\"scalar\":{\"value\":0}},
          {\"name\":\"zones\",\"type\":\"SET\",\"set\":{\"item\":[\"b\",\"a\"]}},
          {\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{\"value\":1},\"revocable\":{}}]",
    )
    .unwrap();
    assert_eq!(role, Some(Role::parse("r").unwrap()));
    assert_eq!(
        written(&resources, role.as_ref(), Form::PostRefinement),
        "{\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{\"value\":0.75},\"allocation_info\":{\"role\":\"r\"}},\
         {\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{\"value\":1.0},\"allocation_info\":{\"role\":\"r\"},\"revocable\":{}},\
         {\"name\":\"ports\",\"type\":\"RANGES\",\"ranges\":{\"range\":[{\"begin\":1,\"end\":6}]},\"allocation_info\":{\"role\":\"r\"}},\
         {\"name\":\"zones\",\"type\":\"SET\",\"set\":{\"item\":[\"a\",\"b\"]},\"allocation_info\":{\"role\":\"r\"}}"
    );
}

#[test]
fn what_breaks_a_rule_is_refused_by_name() {
    let cpus = "\"name\":\"cpus\",\"type\":\"SCALAR\"";
    let one = "\"scalar\":{\"value\":1}";
    let rows = [
        (format!("{{\"name\":\"\",\"type\":\"SCALAR\",{one}}}"), "Empty resource name"),
        (format!("{{{cpus},\"scalar\":{{\"value\":-1}}}}"), "Resource 'cpus:-1' is invalid: Invalid scalar resource: value <= 0"),
        (format!("{{{cpus},\"scalar\":{{\"value\":\"Infinity\"}}}}"), "finite"),
        (format!("{{{cpus}}}"), "Invalid scalar resource"),
        (format!("{{{cpus},{one},\"set\":{{\"item\":[\"a\"]}}}}"), "Invalid scalar resource"),
        ("{\"name\":\"x\",\"type\":\"TEXT\"}".to_owned(), "Unsupported resource type"),
        ("{\"name\":\"gpus\",\"type\":\"SCALAR\",\"scalar\":{\"value\":0.5}}".to_owned(), "must be an unsigned integer"),
        ("{\"name\":\"p\",\"type\":\"RANGES\",\"ranges\":{\"range\":[{\"begin\":2,\"end\":1}]}}".to_owned(), "Resource 'p:[2-1]' is invalid: Invalid ranges resource: begin > end"),
        (
            "{\"name\":\"p\",\"type\":\"RANGES\",\"ranges\":{\"range\":[{\"begin\":1,\"end\":3},{\"begin\":3,\"end\":4}]}}".to_owned(),
            "overlapping ranges",
        ),
        ("{\"name\":\"s\",\"type\":\"SET\",\"set\":{\"item\":[\"a\",\"a\"]}}".to_owned(), "Resource 's:{a, a}' is invalid: Invalid set resource: duplicated elements"),
        (format!("{{{cpus},{one},\"shared\":{{}}}}"), "shared"),
        (format!("{{{cpus},{one},\"provider_id\":{{\"value\":\"p\"}}}}"), "providers"),
        ("{\"name\":\"disk\",\"type\":\"SCALAR\",\"scalar\":{\"value\":1},\"disk\":{}}".to_owned(), "volumes"),
        (format!("{{{cpus},{one},\"reservation\":{{}}}}"), "role \"*\" cannot be dynamically reserved"),
        (format!("{{{cpus},{one},\"role\":\"a b\"}}"), "contains backspace or whitespace"),
        (format!("{{{cpus},{one},\"role\":\"a\",\"reservation\":{{\"role\":\"a\"}}}}"), "must not hold a type or a role"),
        (format!("{{{cpus},{one},\"reservations\":[{{\"role\":\"a\"}}]}}"), "no known type"),
        (
            format!("{{{cpus},{one},\"reservations\":[{{\"type\":\"STATIC\",\"role\":\"a\",\"principal\":\"p\"}}]}}"),
            "STATIC reservation can't carry",
        ),
        (
            format!("{{{cpus},{one},\"reservations\":[{{\"type\":\"DYNAMIC\",\"role\":\"a\"}},{{\"type\":\"STATIC\",\"role\":\"a/b\"}}]}}"),
            "only the first",
        ),
        (
            format!("{{{cpus},{one},\"reservations\":[{{\"type\":\"DYNAMIC\",\"role\":\"a\"}},{{\"type\":\"DYNAMIC\",\"role\":\"ab\"}}]}}"),
            "does not refine",
        ),
        (
            format!("{{{cpus},{one},\"revocable\":{{}},\"reservations\":[{{\"type\":\"DYNAMIC\",\"role\":\"a\"}}]}}"),
            "revocable resources can't",
        ),
        (
            format!("{{{cpus},{one},\"role\":\"a\",\"reservations\":[{{\"type\":\"STATIC\",\"role\":\"a\"}}]}}"),
            "must not stand beside 'role'",
        ),
        (
            format!("[{{{cpus},{one},\"allocation_info\":{{\"role\":\"a\"}}}},{{{cpus},{one},\"allocation_info\":{{\"role\":\"b\"}}}}]"),
            "multiple allocation roles ('a' and 'b')",
        ),
        (
            "[{\"name\":\"p\",\"type\":\"RANGES\",\"ranges\":{\"range\":[{\"begin\":1,\"end\":3}]}},{\"name\":\"p\",\"type\":\"RANGES\",\"ranges\":{\"range\":[{\"begin\":3,\"end\":3}]}}]".to_owned(),
            "overlap",
        ),
    ];
    for (input, expected) in rows {
        let error = read(&input).unwrap_err().to_string();
        assert!(error.contains(expected), "{input} gave: {error}");
    }
}

#[test]
fn attributes_are_shown_with_their_type() {
    let attribute = |name: &str, value| Attribute { name: Arc::from(name), value };
    let list = attributes_to_wire(&[
        attribute("level", AttributeValue::Scalar(-1500)),
        attribute("rack", AttributeValue::Text(Arc::from("r1"))),
        attribute("slots", AttributeValue::Ranges(Ranges::new([(1, 2)]).unwrap())),
    ]);
    let texts: Vec<String> = list.iter().map(|attribute| String::from_utf8(encode(attribute)).unwrap()).collect();
    assert_eq!(
        texts,
        [
            "{\"name\":\"level\",\"type\":\"SCALAR\",\"scalar\":{\"value\":-1.5}}",
            "{\"name\":\"rack\",\"type\":\"TEXT\",\"text\":{\"value\":\"r1\"}}",
            "{\"name\":\"slots\",\"type\":\"RANGES\",\"ranges\":{\"range\":[{\"begin\":1,\"end\":2}]}}",
        ]
    );
}
