//! Hello, welcome, picture: whom the agent follows, and what it says first.

use crate::rig::*;
use muster_agent_engine::Why;
use muster_agent_engine::io::{Input, Output};
use muster_model::agent_message::{FromAgent, OrderKind, ToAgent};
use muster_model::framework::Capabilities;
use muster_model::record::JournalEntry;
use muster_model::status::Exit;
use muster_model::task::TaskState;
use muster_model::{Duration, Uuid};
use std::sync::Arc;

#[test]
fn the_fence_is_on_disk_before_the_picture_is_sent() {
    let mut rig = Rig::bare(Capabilities::default());
    rig.raw(Input::JournalGrew { position: 4711 });
    let outputs = rig.connect();
    let [Output::Send { message: FromAgent::Hello(hello), .. }] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((hello.journal_position, hello.ratchet_token), (4711, None));
    let outputs = rig.raw(rig.by_owner(welcome(3)));
    let [Output::PersistIdentity { identity, .. }] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((identity.highest_fence, identity.ratchet_token), (fence(3), Some(Uuid([9; 16]))));
    let outputs = rig.fail_all(outputs);
    assert_eq!(outputs, []);
    assert_eq!(rig.engine.deadline(), Some((rig.now.mono.after(Duration::from_secs(2)), Why::IdentityRetry)));
    let outputs = rig.wait(2_000);
    let kinds: Vec<_> =
        outputs.iter().map(|output| matches!(output, Output::Send { message: FromAgent::Picture(_), .. })).collect();
    assert_eq!(kinds, [false, true], "ReportEvery, Picture: {outputs:?}");
    assert_eq!(pictures(&outputs)[0].fence, fence(3));
}

#[test]
fn a_picture_waits_for_orders_of_the_fence_before() {
    let mut rig = Rig::new();
    let order = rig.launch_order(vec![task("t")]);
    let admission = rig.raw(order);
    rig.disconnect();
    rig.connect();
    let identity = rig.raw(rig.by_owner(welcome(2)));
    assert_eq!(pictures(&rig.write_all(identity)), [], "what is being admitted would be missing");
    // An order of the new owner waits for the picture, too.
    let early = rig.launch_order(vec![task("u")]);
    let ToOrder(mut early) = to_order(early);
    early.sequence = 1;
    assert_eq!(started(&rig.feed(rig.by_owner(ToAgent::Order(early)))), []);
    let outputs = rig.write_all(admission);
    assert_eq!(pictures(&outputs)[0].tasks.len(), 1);
    assert_eq!(started(&outputs).len(), 2);
}

struct ToOrder(muster_model::agent_message::Order);

fn to_order(input: Input) -> ToOrder {
    match input {
        Input::FromNode { message: ToAgent::Order(order), .. } => ToOrder(order),
        other => panic!("{other:?}"),
    }
}

#[test]
fn owners_and_referrals_below_the_fence_are_not_followed() {
    let refer = |epoch| ToAgent::Referral { fence: fence(epoch), address: "b:1".into() };
    for (name, message, is_followed) in [
        ("newer", refer(6), true),
        ("the same", refer(5), true),
        ("older", refer(4), false),
        ("welcome of an older owner", welcome(4), false),
    ] {
        let mut rig = Rig::bare(Capabilities::default());
        rig.meet(5);
        rig.disconnect();
        rig.connect();
        rig.engine.handle(rig.by_owner(message), rig.now);
        let outputs: Vec<_> = std::iter::from_fn(|| rig.engine.poll_output()).collect();
        let dialed = |output: &Output| match output {
            Output::Dial { address, .. } => Some(address.clone()),
            _ => None,
        };
        let dialed: Vec<_> = outputs.iter().filter_map(dialed).collect();
        assert_eq!(dialed, [Arc::from(if is_followed { "b:1" } else { "a:1" })], "case: {name}");
        let is_refused = outputs.iter().any(|output| matches!(output, Output::Refused { may_retry: true, .. }));
        assert_eq!(is_refused, !is_followed, "case: {name}");
        assert_eq!(rig.engine.highest_fence(), fence(5), "case: {name}");
    }
}

#[test]
fn what_the_owner_refuses_or_asks_is_passed_on() {
    let mut rig = Rig::bare(Capabilities::default());
    assert_eq!(rig.feed(rig.by_owner(welcome(1))), [], "there is no connection");
    rig.connect();
    let outputs = rig.feed(rig.by_owner(ToAgent::Refused { why: "revoked".into(), may_retry: false }));
    assert_eq!(outputs, [Output::Refused { why: "revoked".into(), may_retry: false }]);
    let mut rig = Rig::new();
    let connection = rig.connection;
    let interval = Duration::from_secs(9);
    let outputs = rig.feed(rig.by_owner(ToAgent::ReportInterval(interval)));
    assert_eq!(outputs, [Output::ReportEvery { connection, interval }]);
    assert_eq!(pictures(&rig.feed(rig.by_owner(ToAgent::PictureWanted))).len(), 1);
    let outputs = rig.feed(Input::InfoChanged(info(cpus(8))));
    assert_eq!(outputs, [Output::Send { connection, message: FromAgent::InfoChanged(info(cpus(8))) }]);
    assert_eq!(rig.engine.summary().free, cpus(8));
}

#[test]
fn heads_are_sent_again_by_time_and_at_once_on_a_new_connection() {
    let mut rig = Rig::new();
    let outputs = rig.launch(vec![task("t")]);
    let head = statuses(&outputs).remove(0);
    assert_eq!(rig.engine.deadline(), Some((rig.now.mono.after(Duration::from_secs(10)), Why::UpdateRetry)));
    assert_eq!(statuses(&rig.wait(10_000)), std::slice::from_ref(&head));
    assert_eq!(statuses(&rig.wait(19_999)), []);
    assert_eq!(statuses(&rig.wait(1)), std::slice::from_ref(&head));
    rig.disconnect();
    assert_eq!(rig.engine.deadline(), None, "nothing is sent without a connection");
    let outputs = rig.meet(1);
    assert_eq!(statuses(&outputs), std::slice::from_ref(&head));
    let picture = pictures(&outputs).remove(0);
    assert_eq!(picture.tasks[0].pending, Some(head.clone()));
    assert_eq!(rig.engine.deadline(), Some((rig.now.mono.after(Duration::from_secs(10)), Why::UpdateRetry)));
    // An acknowledgement of a deposed owner is not one.
    let ack = |rig: &Rig, epoch| {
        rig.by_owner(ToAgent::AcknowledgeUpdate {
            fence: fence(epoch),
            framework_id: framework_id(),
            task_id: task_id("t"),
            uuid: head.uuid.unwrap(),
        })
    };
    rig.feed(ack(&rig, 0));
    assert_eq!(rig.engine.summary().pending_updates, 1);
    rig.feed(ack(&rig, 1));
    assert_eq!(rig.engine.summary().pending_updates, 0);
}

#[test]
fn pictures_show_the_newest_state_and_grow_over_restarts() {
    let mut rig = Rig::new();
    let container_id = rig.run(task("t"));
    let before = pictures(&rig.meet(1)).remove(0);
    assert_eq!(before.tasks[0].latest, TaskState::Running);
    assert_eq!(before.tasks[0].pending.as_ref().unwrap().state, TaskState::Starting);
    rig.end(&container_id, exit(Exit::Code(0)));
    let after = pictures(&rig.meet(1)).remove(0);
    assert_eq!(after.tasks[0].latest, TaskState::Finished);
    assert!(after.version > before.version);
    rig.restart(vec![]);
    assert!(pictures(&rig.meet(1))[0].version > after.version);
}

#[test]
fn a_snapshot_restores_the_same_picture_in_fewer_entries() {
    let mut rig = Rig::new();
    let first = rig.run(task("t"));
    rig.run(task("u"));
    rig.kill("u", Some(60));
    rig.kill("u", Some(40));
    let gone = rig.run(task("gone"));
    rig.end(&gone, exit(Exit::Code(0)));
    rig.states();
    rig.end(&first, exit(Exit::Code(3)));
    let order = rig.next_order(OrderKind::ShutdownFramework { framework_id: "x".parse_id() });
    let outputs = rig.raw(order);
    assert_eq!(rig.engine.snapshot(), None, "a write is under way");
    rig.write_all(outputs);
    let snapshot = rig.engine.snapshot().unwrap();
    assert!(snapshot.len() < rig.disk.len(), "{} < {}", snapshot.len(), rig.disk.len());
    let kill = |entry: &&JournalEntry| matches!(entry, JournalEntry::KillRequested { grace: Some(grace), .. } if *grace == Duration::from_secs(40));
    assert_eq!(snapshot.iter().filter(kill).count(), 1);
    let mut shown = Vec::new();
    for disk in [rig.disk.clone(), snapshot.clone(), [snapshot.clone(), snapshot].concat()] {
        rig.disk = disk;
        rig.restart(vec![]);
        let mut picture = pictures(&rig.meet(1)).remove(0);
        picture.version = 0;
        // New statuses, made by this recovery, have new ids.
        let floor = rig.engine.summary().order_floor;
        let latest: Vec<_> =
            picture.tasks.iter().map(|task| (task.task.clone(), task.latest, task.acknowledged.clone())).collect();
        shown.push((latest, floor));
    }
    assert_eq!(shown[0], shown[1]);
    assert_eq!(shown[0], shown[2], "read twice it says the same");
}

trait ParseId {
    fn parse_id(&self) -> muster_model::FrameworkId;
}

impl ParseId for str {
    fn parse_id(&self) -> muster_model::FrameworkId {
        muster_model::FrameworkId::parse(self).unwrap()
    }
}
