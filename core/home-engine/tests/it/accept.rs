//! ACCEPT: offers, tasks, operations. Source: Mesos 1.11.0.

use crate::harness::{World, accept, amount, info, offer, task};
use muster_model::OperationId;
use muster_model::scheduler::{LaunchTask, Operation};

/// Frameworks `f` (#1, roles eng and web) and `g` (#2); offers 1 and 2 on S1 for eng, 3 on S1 for web, 4 on S2 for
/// eng, 5 on S1 for `g`.
fn world() -> World {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng", "web"]));
    world.subscribe(2, Some("g"), info(&["eng"]));
    world.offer(
        "f",
        1,
        2,
        vec![
            offer(1, "f", "S1", "eng", amount(4, 512)),
            offer(2, "f", "S1", "eng", amount(2, 512)),
            offer(3, "f", "S1", "web", amount(4, 512)),
            offer(4, "f", "S2", "eng", amount(4, 512)),
        ],
    );
    world.offer("g", 1, 2, vec![offer(5, "g", "S1", "eng", amount(4, 512))]);
    world
}

fn launch(tasks: Vec<LaunchTask>) -> Operation {
    Operation::Launch(tasks)
}

#[test]
fn bad_lists_of_offers_consume_what_they_name_and_drop_every_task() {
    let give_back = |lines: &[&str]| lines.iter().map(|line| line.to_string()).collect::<Vec<_>>();
    for (name, offers, consumed, error) in [
        ("empty", &[][..], give_back(&[]), "No offers specified"),
        (
            "duplicate",
            &["1-O1", "1-O1"][..],
            give_back(&[">S1 order f 1.1.1 no.1 [1-O1] tasks [] refuse none"]),
            "Duplicate offer 1-O1 in offer list",
        ),
        (
            "never made",
            &["1-O1", "1-O77", "1-O4"][..],
            give_back(&[
                ">S1 order f 1.1.1 no.1 [1-O1] tasks [] refuse none",
                ">S2 order f 1.1.1 no.2 [1-O4] tasks [] refuse none",
            ]),
            "Offer 1-O77 is no longer valid",
        ),
        ("foreign", &["no such thing"][..], give_back(&[]), "Offer no such thing is no longer valid"),
        (
            "of another framework",
            &["1-O1", "1-O5"][..],
            give_back(&[
                ">S1 order f 1.1.1 no.1 [1-O1] tasks [] refuse none",
                ">S1 order g 1.1.1 no.1 [1-O5] tasks [] refuse none",
            ]),
            "Offer 1-O5 has invalid framework g while framework f is expected",
        ),
        (
            "two roles",
            &["1-O1", "1-O3"][..],
            give_back(&[">S1 order f 1.1.1 no.1 [1-O1 1-O3] tasks [] refuse none"]),
            "Aggregated offers must be allocated to the same role. Offer 1-O3 uses role 'web' but another is using \
             role 'eng",
        ),
        (
            "two agents",
            &["1-O1", "1-O4"][..],
            give_back(&[
                ">S1 order f 1.1.1 no.1 [1-O1] tasks [] refuse none",
                ">S2 order f 1.1.1 no.2 [1-O4] tasks [] refuse none",
            ]),
            "Aggregated offers must belong to one single agent. Offer 1-O4 uses agent S2 and agent S1",
        ),
    ] {
        let mut world = world();
        let operations = vec![
            launch(vec![
                task("t", "S1", "eng", amount(1, 32)),
                LaunchTask::Invalid { task_id: "a/b".into(), message: "bad".into() },
            ]),
            Operation::LaunchGroup { task_ids: vec!["u".into()], message: "later".into() },
            Operation::Refused {
                id: Some(OperationId::parse("op").unwrap()),
                kind: "RESERVE".into(),
                message: "later".into(),
            },
            Operation::Refused { id: None, kind: "CREATE".into(), message: "later".into() },
        ];
        let mut expected = vec!["=100 202".to_string()];
        expected.extend(consumed);
        let text = format!("Task launched with invalid offers: {error}");
        expected.push(format!("#1 UPDATE t TASK_DROPPED ControlPlane S1 InvalidOffers '{text}'"));
        expected.push(format!("#1 REFUSED 'a/b' TASK_DROPPED - InvalidOffers '{text}'"));
        expected.push(format!("#1 UPDATE u TASK_DROPPED ControlPlane - InvalidOffers '{text}'"));
        expected.push(format!("#1 OPERATION_ERROR op 'Operation attempted with invalid offers: {error}'"));
        assert_eq!(world.call(1, "f", accept(offers, operations)), expected, "case: {name}");
        // What it named is consumed.
        for offer in offers {
            let lines = world.call(1, "f", accept(&[offer], vec![]));
            assert_eq!(lines.len(), 1, "case: {name}, offer {offer}: {lines:?}");
        }
    }
}

#[test]
fn a_framework_that_is_not_partition_aware_gets_task_lost() {
    let mut world = World::new();
    let mut old = info(&["eng"]);
    old.capabilities.partition_aware = false;
    world.subscribe(1, Some("f"), old);
    assert_eq!(
        world.call(1, "f", accept(&["1-O1"], vec![launch(vec![task("t", "S1", "eng", amount(1, 32))])])),
        [
            "=100 202",
            "#1 UPDATE t TASK_LOST ControlPlane S1 InvalidOffers 'Task launched with invalid offers: Offer 1-O1 is no \
             longer valid'",
        ]
    );
}

#[test]
fn tasks_are_checked_in_order_against_what_remains() {
    for (name, tasks, launched, refused) in [
        (
            "two fit in two offers",
            vec![task("a", "S1", "eng", amount(5, 512)), task("b", "S1", "eng", amount(1, 512))],
            "a/eng b/eng",
            vec![],
        ),
        ("no role was given", vec![task("a", "S1", "*", amount(1, 32))], "a/eng", vec![]),
        (
            "too large, the next one fits",
            vec![task("a", "S1", "eng", amount(8, 32)), task("b", "S1", "eng", amount(6, 32))],
            "b/eng",
            vec![
                "UPDATE a TASK_ERROR ControlPlane S1 TaskInvalid 'Total resources cpus:8; mem:32 required by task and \
                 its executor is more than available cpus:6; mem:1024'",
            ],
        ),
        (
            "the second takes what the first left",
            vec![task("a", "S1", "eng", amount(4, 1000)), task("b", "S1", "eng", amount(1, 32))],
            "a/eng",
            vec![
                "UPDATE b TASK_ERROR ControlPlane S1 TaskInvalid 'Total resources cpus:1; mem:32 required by task and \
                 its executor is more than available cpus:2; mem:24'",
            ],
        ),
        (
            "the same id twice",
            vec![task("a", "S1", "eng", amount(1, 32)), task("a", "S1", "eng", amount(1, 32))],
            "a/eng",
            vec!["UPDATE a TASK_ERROR ControlPlane S1 TaskInvalid 'Task has duplicate ID: a'"],
        ),
        (
            "other agent",
            vec![task("a", "S2", "eng", amount(1, 32))],
            "",
            vec![
                "UPDATE a TASK_ERROR ControlPlane S1 TaskInvalid 'Task uses invalid agent S2 while agent S1 is \
                 expected'",
            ],
        ),
        (
            "other role",
            vec![task("a", "S1", "web", amount(1, 32))],
            "",
            vec![
                "UPDATE a TASK_ERROR ControlPlane S1 TaskInvalid 'Task uses resources allocated to role 'web' while \
                 role 'eng' is expected'",
            ],
        ),
        (
            "nothing asked for",
            vec![task("a", "S1", "eng", amount(0, 0))],
            "",
            vec!["UPDATE a TASK_ERROR ControlPlane S1 TaskInvalid 'Task uses no resources'"],
        ),
        (
            "refused while decoding",
            vec![
                LaunchTask::Invalid { task_id: "a".into(), message: "docker is not supported yet".into() },
                LaunchTask::Invalid { task_id: "".into(), message: "task id must not be empty".into() },
            ],
            "",
            vec![
                "UPDATE a TASK_ERROR ControlPlane S1 TaskInvalid 'docker is not supported yet'",
                "REFUSED '' TASK_ERROR S1 TaskInvalid 'task id must not be empty'",
            ],
        ),
    ] {
        let mut world = world();
        let mut expected = vec!["=100 202".to_string()];
        expected.extend(refused.iter().map(|line| format!("#1 {line}")));
        expected.push(format!(">S1 order f 1.1.1 no.1 [1-O1 1-O2] tasks [{launched}] refuse 5s"));
        assert_eq!(world.call(1, "f", accept(&["1-O1", "1-O2"], vec![launch(tasks)])), expected, "case: {name}");
    }
}

#[test]
fn a_live_task_id_is_refused_until_its_owner_lets_go_of_it() {
    let mut world = world();
    world.call(1, "f", accept(&["1-O1"], vec![launch(vec![task("a", "S1", "eng", amount(1, 32))])]));
    let again = || vec![launch(vec![task("a", "S1", "eng", amount(1, 32))])];
    let lines = world.call(1, "f", accept(&["1-O2"], again()));
    assert_eq!(lines[1], "#1 UPDATE a TASK_ERROR ControlPlane S1 TaskInvalid 'Task has duplicate ID: a'");
    let (framework_id, task_id) =
        (muster_model::FrameworkId::parse("f").unwrap(), muster_model::TaskId::parse("a").unwrap());
    world.node_says(muster_model::node_message::ToHome::TaskRemoved { framework_id, task_id });
    world.offer("f", 1, 2, vec![offer(9, "f", "S1", "eng", amount(2, 64))]);
    assert_eq!(
        world.call(1, "f", accept(&["1-O9"], again())),
        ["=102 202", ">S1 order f 1.1.1 no.3 [1-O9] tasks [a/eng] refuse 5s"]
    );
}

#[test]
fn operations_that_wait_for_a_later_version_are_refused_clearly() {
    let mut world = world();
    let operations = vec![
        Operation::Refused {
            id: Some(OperationId::parse("op").unwrap()),
            kind: "RESERVE".into(),
            message: "RESERVE is not supported yet".into(),
        },
        Operation::Refused { id: None, kind: "CREATE".into(), message: "CREATE is not supported yet".into() },
        Operation::LaunchGroup { task_ids: vec!["u".into(), "v/".into()], message: "no groups yet".into() },
        launch(vec![task("a", "S1", "eng", amount(1, 32))]),
    ];
    assert_eq!(
        world.call(1, "f", accept(&["1-O1"], operations)),
        [
            "=100 202",
            "#1 OPERATION_ERROR op 'RESERVE is not supported yet'",
            "#1 UPDATE u TASK_ERROR ControlPlane S1 TaskGroupInvalid 'no groups yet'",
            "#1 REFUSED 'v/' TASK_ERROR S1 TaskGroupInvalid 'no groups yet'",
            ">S1 order f 1.1.1 no.1 [1-O1] tasks [a/eng] refuse 5s",
        ]
    );
}

#[test]
fn an_accept_without_tasks_declines() {
    let mut world = world();
    assert_eq!(
        world.call(1, "f", accept(&["1-O1"], vec![])),
        ["=100 202", ">S1 order f 1.1.1 no.1 [1-O1] tasks [] refuse 5s"]
    );
    assert_eq!(
        world.call(1, "f", accept(&["1-O2"], vec![launch(vec![])])),
        ["=101 202", ">S1 order f 1.1.1 no.2 [1-O2] tasks [] refuse 5s"]
    );
}

#[test]
fn tasks_beyond_the_bound_of_one_call_are_refused() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.offer("f", 1, 2, vec![offer(1, "f", "S1", "eng", amount(100_000, 100_000))]);
    let max = muster_home_engine::limits::TASKS_PER_ACCEPT_MAX;
    let tasks = (0..=max).map(|number| task(&format!("t{number}"), "S1", "eng", amount(1, 1))).collect();
    let lines = world.call(1, "f", accept(&["1-O1"], vec![launch(tasks)]));
    assert_eq!(lines.len(), 3);
    assert_eq!(
        lines[1],
        "#1 UPDATE t10000 TASK_ERROR ControlPlane S1 TaskInvalid 'ACCEPT launches more than 10000 tasks; launch the \
         rest with another call'"
    );
}
