//! Recorded answers: decoding and encoding them again gives the same bytes.

use muster_http_api::json::{Json, Message, decode, decode_pb, encode};
use muster_http_api::mesos_v1::operator::{encode_event, encode_response};
use muster_http_api::proto::{master, scheduler};

use crate::recorded::{Case, cases, compact};

fn same_json<M: Json>(case: &Case, text: impl Fn(&M) -> Vec<u8>) {
    let message: M = decode(&case.answer).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let written = text(&message);
    if case.name == "write_quota_seen" {
        // The recorded server keeps maps in no order.
        let values = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
        assert_eq!(values(&written), values(&case.answer), "case: {}", case.name);
    } else {
        assert_eq!(closest_doubles(&written), closest_doubles(&compact(&case.answer)), "case: {}", case.name);
    }
}

/// The text with each decimal number as Rust prints it. The recorded server's algorithm sometimes takes another of the
/// shortest texts that name the same double, or one digit more than it needs.
fn closest_doubles(text: &[u8]) -> String {
    let text = std::str::from_utf8(text).unwrap();
    let mut out = String::new();
    for (index, part) in text.split('"').enumerate() {
        if index > 0 {
            out.push('"');
        }
        // No recorded string holds an escaped quote, so every other part stands outside of quotes.
        if index % 2 == 1 {
            out.push_str(part);
            continue;
        }
        for token in part.split_inclusive([',', ':', '{', '}', '[', ']']) {
            let number = token.trim_end_matches([',', ':', '{', '}', '[', ']']);
            match number.parse::<f64>() {
                Ok(value) if number.contains('.') => out.push_str(&format!("{value:?}{}", &token[number.len()..])),
                _ => out.push_str(token),
            }
        }
    }
    out
}

fn same_protobuf<M: Message>(case: &Case) {
    let message: M = decode_pb(&case.answer).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    assert_eq!(message.encode_to_vec(), case.answer, "case: {}", case.name);
}

#[test]
fn recorded_answers_survive_decode_and_encode() {
    let (mut json, mut protobuf) = (0, 0);
    for case in cases() {
        if case.status != 200 || case.answer.is_empty() {
            continue;
        }
        let is_json = case.answer.first() == Some(&b'{');
        let is_event = case.name.contains("stream") || case.name == "sched_resubscribe_subscribed";
        match (case.path.as_str(), is_event, is_json) {
            ("/api/v1/scheduler", true, true) => same_json::<scheduler::Event>(&case, encode),
            ("/api/v1/scheduler", true, false) if case.name != "pb_sched_stream" => {
                same_protobuf::<scheduler::Event>(&case);
            }
            ("/api/v1", true, true) => same_json::<master::Event>(&case, encode_event),
            ("/api/v1", false, true) => same_json::<master::Response>(&case, encode_response),
            ("/api/v1", false, false) => same_protobuf::<master::Response>(&case),
            _ => continue,
        }
        if is_json {
            json += 1;
        } else {
            protobuf += 1;
        }
    }
    assert!(json > 60 && protobuf > 25, "{json} JSON and {protobuf} protobuf answers: were cases lost?");
}

#[test]
fn recorded_calls_decode_and_mean_the_same_in_both_encodings() {
    fn check<M: Json + Message + PartialEq + std::fmt::Debug>(case: &Case) {
        let call: M = match case.request_type.as_str() {
            "application/json" => decode(&case.request).unwrap_or_else(|error| panic!("{}: {error}", case.name)),
            _ => decode_pb(&case.request).unwrap_or_else(|error| panic!("{}: {error}", case.name)),
        };
        // What is unset and has a default is written in JSON, so the comparison is after one round trip.
        let again: M = decode(&encode(&call)).unwrap();
        assert_eq!(encode(&again), encode(&call), "case: {}", case.name);
        assert_eq!(decode_pb::<M>(&call.encode_to_vec()).unwrap(), call, "case: {}", case.name);
    }
    let mut count = 0;
    for case in cases() {
        match case.path.as_str() {
            "/api/v1/scheduler" => check::<scheduler::Call>(&case),
            "/api/v1"
                if !case.request.is_empty() && case.request_type == "application/json" && case.request[0] == b'{' =>
            {
                check::<master::Call>(&case);
            }
            _ => continue,
        }
        count += 1;
    }
    assert!(count > 100, "{count} calls: were cases lost?");
}
