//! What is refused, and what the owner is told about its orders.

use crate::rig::*;
use muster_agent_engine::io::Output;
use muster_agent_engine::limits::{DESCRIPTION_BYTES_MAX, TASKS_MAX};
use muster_model::agent_message::{Order, OrderKind, OrderRefusal, ToAgent};
use muster_model::framework::Capabilities;
use muster_model::resource::Resources;
use muster_model::task::Task;

fn refusals(outputs: &[Output]) -> Vec<OrderRefusal> {
    taken(outputs).into_iter().flat_map(|(_, refused)| refused).map(|(_, refusal)| refusal).collect()
}

#[test]
fn each_task_of_a_launch_is_admitted_or_refused_for_itself() {
    let mut rig = Rig::new();
    let big = Task { resources: cpus(9), ..task("big") };
    let outputs = rig.launch(vec![task("a"), big, task("a"), task("b")]);
    assert_eq!(started(&outputs).len(), 2);
    let not_enough = OrderRefusal::NotEnough {
        task_id: task_id("big"),
        needed: "cpus:9; mem:1152".into(),
        free: "cpus:3; mem:384".into(),
    };
    let duplicate = OrderRefusal::DuplicateTask { task_id: task_id("a") };
    assert_eq!(taken(&outputs), [(1, vec![(1, not_enough), (1, duplicate)])]);
    assert_eq!(rig.engine.summary().free, cpus(2));
}

#[test]
fn an_order_that_can_not_be_journalled_is_refused_and_leaves_nothing_behind() {
    let mut rig = Rig::new();
    let order = rig.launch_order(vec![task("t")]);
    let outputs = rig.raw(order);
    let outputs = rig.fail_all(outputs);
    assert_eq!(refusals(&outputs), [OrderRefusal::NotJournalled { why: "disk full".into() }]);
    assert_eq!((started(&outputs), statuses(&outputs)), (vec![], vec![]));
    assert_eq!(rig.engine.summary().free, cpus(4));
    let outputs = rig.launch(vec![task("t")]);
    assert_eq!((started(&outputs).len(), taken(&outputs)), (1, vec![(2, vec![])]), "its id can come again");
}

#[test]
fn a_kill_that_can_not_be_journalled_is_refused_and_signals_nothing() {
    let mut rig = Rig::new();
    rig.run(task("t"));
    let order = rig.kill_order("t", None);
    let outputs = rig.raw(order);
    let outputs = rig.fail_all(outputs);
    assert_eq!(refusals(&outputs), [OrderRefusal::NotJournalled { why: "disk full".into() }]);
    assert_eq!(signals(&outputs), []);
    assert_eq!(signals(&rig.kill("t", None)).len(), 1);
}

#[test]
fn orders_of_a_deposed_owner_are_refused_also_after_a_restart() {
    let mut rig = Rig::new();
    rig.meet(7);
    for restarted in [false, true] {
        if restarted {
            rig.restart(vec![]);
            rig.meet(7);
        }
        let what = OrderKind::Launch { framework: brief(Capabilities::default()), tasks: vec![task("t").into()] };
        let order = Order { fence: fence(6), sequence: 5, what };
        let outputs = rig.feed(rig.by_owner(ToAgent::Order(order)));
        let refusal = OrderRefusal::OldFence { ordered: fence(6), highest: fence(7) };
        assert_eq!(taken(&outputs), [(5, vec![(5, refusal)])], "restarted: {restarted}");
        assert_eq!(started(&outputs), [], "restarted: {restarted}");
    }
}

#[test]
fn an_order_that_comes_again_is_answered_again_and_done_once() {
    let mut rig = Rig::new();
    let first = rig.launch_order(vec![task("t")]);
    let second = rig.launch_order(vec![Task { resources: cpus(9), ..task("big") }]);
    rig.feed(first.clone());
    let refused = taken(&rig.feed(second.clone()));
    // The answers got lost with the connection; the owner sends both again.
    rig.meet(1);
    let outputs = rig.feed(rig.again(&first));
    assert_eq!((started(&outputs), taken(&outputs)), (vec![], vec![(2, vec![])]));
    assert_eq!(taken(&rig.feed(rig.again(&second))), refused);
    // After a restart it is not known any more why, but it is that nothing was started.
    rig.restart(vec![]);
    let outputs = rig.meet(1);
    assert_eq!(taken(&outputs), [(2, vec![])]);
    let outputs = rig.feed(rig.again(&second));
    assert!(matches!(refusals(&outputs)[..], [OrderRefusal::NotJournalled { .. }]), "{outputs:?}");
    let outputs = rig.feed(rig.again(&first));
    assert_eq!(
        (started(&outputs), refusals(&outputs)),
        (vec![], vec![]),
        "its end is known: it was lost at the restart"
    );
}

#[test]
fn a_forgotten_refusal_of_a_part_is_not_told_of_the_whole_order() {
    let mut rig = Rig::new();
    let order = rig.launch_order(vec![task("a"), Task { resources: cpus(9), ..task("big") }]);
    rig.feed(order.clone());
    rig.restart(vec![]);
    rig.meet(1);
    let outputs = rig.feed(order);
    assert_eq!(refusals(&outputs), [], "task a is known; the picture says that the other is not");
}

#[test]
fn the_floor_has_no_hole_while_an_earlier_write_is_not_answered() {
    let mut rig = Rig::new();
    let (first, second) = (rig.launch_order(vec![task("a")]), rig.launch_order(vec![task("b")]));
    let first = rig.raw(first);
    let second = rig.raw(second);
    assert_eq!(taken(&rig.write_all(second)), [(0, vec![])]);
    assert_eq!(taken(&rig.write_all(first)), [(2, vec![])]);
}

#[test]
fn kills_of_unknown_tasks_are_taken_and_do_nothing() {
    let mut rig = Rig::new();
    let outputs = rig.kill("nobody", None);
    assert_eq!((taken(&outputs), signals(&outputs)), (vec![(1, vec![])], vec![]));
}

#[test]
fn tasks_past_the_bounds_are_refused() {
    let mut rig = Rig::new();
    let free = |id: &str| Task { resources: Resources::new(), ..task(id) };
    let tasks: Vec<_> = (0..=TASKS_MAX).map(|number| free(&format!("t{number}"))).collect();
    let outputs = rig.launch(tasks);
    assert_eq!(started(&outputs).len(), TASKS_MAX);
    assert!(matches!(&refusals(&outputs)[..], [OrderRefusal::NotEnough { .. }]));

    let mut rig = Rig::new();
    let large = |id: &str| Task { spec: vec![0; DESCRIPTION_BYTES_MAX * 2 / 3].into(), ..free(id) };
    let outputs = rig.launch(vec![large("a"), large("b")]);
    assert_eq!(started(&outputs).len(), 1);
    assert!(matches!(&refusals(&outputs)[..], [OrderRefusal::NotEnough { .. }]));
}

#[test]
fn an_agent_with_a_damaged_journal_launches_nothing_until_a_new_fence() {
    let mut rig = Rig::new();
    let order = rig.launch_order(vec![task("t")]);
    rig.restart_with(vec![], Some("bytes 10 to 20 are damaged"));
    rig.meet(1);
    let outputs = rig.feed(order);
    assert_eq!(refusals(&outputs), [OrderRefusal::JournalInDoubt { why: "bytes 10 to 20 are damaged".into() }]);
    assert_eq!(taken(&rig.kill("t", None)), [(2, vec![])], "kills are taken");
    rig.meet(2);
    assert_eq!(started(&rig.launch(vec![task("t")])).len(), 1);
}
