//! Laws: what is written is read back as it was, in batches of any make and pictures of any size.

use crate::samples;
use muster_model::Rng;
use muster_model::node_message::{NodeMessage, ToHome, ToOwner};
use muster_model::resource::{Ranges, Resource, ResourceKey, ResourceName, Resources, Value};
use muster_model::task::Task;
use muster_model::{AgentId, FrameworkId, Milli, TaskId};
use muster_node_wire::message::{decode_messages, decode_request, encode_messages, encode_request};
use muster_node_wire::{HttpRequest, Request};
use proptest::prelude::*;
use std::sync::Arc;

fn text() -> impl Strategy<Value = Arc<str>> {
    "[^/\\\\\\x00-\\x1f\\x7f]{0,40}".prop_map(Arc::from)
}

fn id() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_é-]{1,60}"
}

fn resources() -> impl Strategy<Value = Resources> {
    let entry = (0usize..8, any::<bool>(), 1u64..1 << 40, 0u64..1000);
    proptest::collection::vec(entry, 0..6).prop_map(|entries| {
        let mut sum = Resources::new();
        for (number, is_revocable, amount, more) in entries {
            let name = ResourceName::new(["cpus", "mem", "disk", "gpus", "a", "b", "ports", "vlans"][number]);
            let value = match number {
                0..6 => Value::Scalar(Milli(amount)),
                _ => Value::Ranges(Ranges::new([(amount, amount + more)]).unwrap()),
            };
            // The same ports twice are refused; then the sum stays as it was.
            let _ =
                sum.add_entry(Resource { key: ResourceKey { is_revocable, ..ResourceKey::unreserved(name) }, value });
        }
        sum
    })
}

fn task() -> impl Strategy<Value = Arc<Task>> {
    (id(), text(), resources(), proptest::collection::vec(any::<u8>(), 0..300)).prop_map(
        |(id, name, resources, spec)| {
            let sample = (*crate::nouns::shell()).clone();
            Arc::new(Task { id: TaskId::parse(&id).unwrap(), name, resources, spec: Arc::from(spec), ..sample })
        },
    )
}

fn message() -> impl Strategy<Value = NodeMessage> {
    let order = (proptest::collection::vec(task(), 0..4), any::<u64>()).prop_map(|(tasks, sequence)| {
        let sample = samples::batches().remove(0).1.remove(0);
        let NodeMessage::ToOwner(ToOwner::Order(mut order)) = sample else { panic!("the first sample") };
        order.tasks = tasks;
        order.sequence = sequence;
        NodeMessage::ToOwner(ToOwner::Order(order))
    });
    let tasks = proptest::collection::vec((id(), id()), 0..20).prop_map(|pairs| {
        let pair = |(task, agent): (String, String)| (TaskId::parse(&task).unwrap(), AgentId::parse(&agent).unwrap());
        let message = ToHome::FrameworkTasks {
            framework_id: crate::nouns::framework_id(),
            home_fence: crate::nouns::fence(),
            owner: samples::node("n1"),
            tasks: pairs.into_iter().map(pair).collect(),
        };
        NodeMessage::ToHome(message)
    });
    let removed = (id(), id()).prop_map(|(framework, task)| {
        let framework_id = FrameworkId::parse(&framework).unwrap();
        NodeMessage::ToHome(ToHome::TaskRemoved { framework_id, task_id: TaskId::parse(&task).unwrap() })
    });
    prop_oneof![order, tasks, removed]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn batches_are_read_as_they_were_written(batch in proptest::collection::vec(message(), 0..12), shuffle in any::<u64>()) {
        let mut batch = batch;
        // Samples of every message stand between them, in any order.
        let mut rng = Rng::new(shuffle);
        for (_, sample) in samples::batches() {
            if rng.below(3) == 0 {
                let at = usize::try_from(rng.below(batch.len() as u64 + 1)).unwrap();
                batch.splice(at..at, sample);
            }
        }
        let frame = encode_messages(&batch).unwrap();
        prop_assert_eq!(decode_messages(&frame).unwrap(), batch);
    }

    #[test]
    fn passed_on_calls_are_read_as_they_were_written(
        method in "[A-Z]{1,8}",
        target in text(),
        headers in proptest::collection::vec((text(), proptest::collection::vec(any::<u8>(), 0..80)), 0..20),
        body in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        let request = Request::Http(HttpRequest { method: Arc::from(method), target, headers, body });
        prop_assert_eq!(decode_request(&encode_request(&request).unwrap()).unwrap(), request);
    }
}
