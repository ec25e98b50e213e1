//! One task from order to last acknowledgement, and the ways in which it ends.

use crate::rig::*;
use muster_agent_engine::Why;
use muster_agent_engine::io::{ContainerSignal, Input, Output};
use muster_model::Duration;
use muster_model::agent_message::OrderKind;
use muster_model::framework::Capabilities;
use muster_model::record::JournalEntry;
use muster_model::status::{Exit, Reason, Source};
use muster_model::task::{Task, TaskState};

const KILLING: Capabilities = Capabilities {
    task_killing_state: true,
    revocable_resources: false,
    gpu_resources: false,
    shared_resources: false,
    partition_aware: false,
    multi_role: false,
    reservation_refinement: false,
    region_aware: false,
};

#[test]
fn nothing_is_started_or_said_before_it_is_journalled() {
    let mut rig = Rig::new();
    let order = rig.launch_order(vec![task("t")]);
    let outputs = rig.raw(order);
    let [Output::Persist { entries, .. }] = &outputs[..] else { panic!("{outputs:?}") };
    assert!(matches!(
        entries[..],
        [JournalEntry::Admitted { .. }, JournalEntry::Update(_), JournalEntry::OrderFloor { sequence: 1, .. }]
    ));
    assert_eq!(rig.engine.summary().free, cpus(3), "what is being admitted is not free");
    let outputs = rig.write_all(outputs);
    assert_eq!(started(&outputs).len(), 1);
    assert_eq!(taken(&outputs), [(1, vec![])]);
    let status = statuses(&outputs).remove(0);
    assert_eq!((status.state, status.source), (TaskState::Starting, Source::Executor));
    assert_eq!(status.executor_id.unwrap().as_str(), "t");
    assert_eq!(status.container.unwrap().container_id, started(&outputs)[0]);
    let end = rig.raw(Input::ContainerStarted { container_id: started(&outputs)[0].clone(), supervisor_pid: 7 });
    assert!(matches!(end[..], [Output::Persist { .. }]), "{end:?}");
}

#[test]
fn a_task_runs_and_ends_and_is_forgotten_once_all_is_acknowledged() {
    let mut rig = Rig::new();
    let outputs = rig.launch(vec![task("t")]);
    let container_id = started(&outputs).remove(0);
    let starting = statuses(&outputs);
    assert!(rig.feed(Input::ContainerStarted { container_id: container_id.clone(), supervisor_pid: 77 }).is_empty());
    let outputs = rig.raw(Input::ContainerEnded { container_id: container_id.clone(), end: exit(Exit::Code(0)) });
    assert_eq!(rig.engine.summary().free, cpus(4), "free before the end can leave");
    assert_eq!(cleaned(&outputs), 0, "not before the end is journalled");
    let outputs = rig.write_all(outputs);
    assert_eq!(cleaned(&outputs), 1);
    assert_eq!(statuses(&outputs), [], "one in flight");
    let running = rig.acknowledge(&starting[0]);
    let running = statuses(&running).remove(0);
    assert_eq!(running.state, TaskState::Running);
    assert_eq!(running.container.as_ref().unwrap().executor_pid, Some(77));
    assert!(rig.acknowledge(&starting[0]).is_empty(), "acknowledged twice");
    let finished = rig.acknowledge(&running);
    let finished = statuses(&finished).remove(0);
    assert_eq!(
        (finished.state, finished.exit, finished.output_bytes),
        (TaskState::Finished, Some(Exit::Code(0)), Some((1, 2)))
    );
    assert_eq!(finished.message.as_deref(), Some("Command exited with status 0"));
    assert_eq!(rig.engine.summary().ended_tasks, 1);
    rig.acknowledge(&finished);
    assert_eq!(rig.engine.summary().ended_tasks, 0);
    assert_eq!(rig.engine.summary().frameworks, 0);
    assert_eq!(rig.engine.deadline(), None, "an idle agent sleeps");
}

#[test]
fn grace_is_the_calls_or_the_tasks_or_three_seconds_and_then_comes_the_final_signal() {
    for (name, call, own, expected) in
        [("call", Some(1), Some(2), 1), ("task", None, Some(2), 2), ("neither", None, None, 3)]
    {
        let mut rig = Rig::with(KILLING);
        let container_id = rig.run(Task { kill_grace: own.map(Duration::from_secs), ..task("t") });
        let order = rig.kill_order("t", call);
        let outputs = rig.raw(order);
        assert_eq!(signals(&outputs), [], "case {name}: not before it is journalled");
        let outputs = rig.write_all(outputs);
        assert_eq!(signals(&outputs), [ContainerSignal::Terminate], "case: {name}");
        assert_eq!(rig.engine.deadline(), Some((rig.now.mono.after(Duration::from_secs(expected)), Why::FinalSignal)));
        assert_eq!(signals(&rig.wait(expected * 1000 - 1)), [], "case: {name}");
        assert_eq!(signals(&rig.wait(1)), [ContainerSignal::Kill], "case: {name}");
        assert_eq!(signals(&rig.wait(4_999)), [], "case: {name}");
        assert_eq!(signals(&rig.wait(1)), [ContainerSignal::Kill], "case: {name}: it may have got lost");
        rig.end(&container_id, exit(Exit::Signal(9)));
        use TaskState::{Killed, Killing, Running, Starting};
        assert_eq!(rig.states(), [Starting, Running, Killing, Killed], "case: {name}");
    }
}

#[test]
fn a_second_kill_can_only_shorten_the_time_which_counts_from_the_first() {
    for (name, second, waited, expected) in [
        ("shorter", 5, 2_000, 3_000),
        ("longer is ignored", 60, 2_000, 8_000),
        ("over already", 1, 2_000, 0),
        ("at once", 0, 2_000, 0),
    ] {
        let mut rig = Rig::new();
        rig.run(task("t"));
        rig.kill("t", Some(10));
        rig.wait(waited);
        let outputs = rig.kill("t", Some(second));
        if expected == 0 {
            assert_eq!(signals(&outputs), [ContainerSignal::Kill], "case: {name}");
        } else {
            assert_eq!(signals(&outputs), [], "case: {name}");
            assert_eq!(signals(&rig.wait(expected - 1)), [], "case: {name}");
            assert_eq!(signals(&rig.wait(1)), [ContainerSignal::Kill], "case: {name}");
        }
    }
}

#[test]
fn a_kill_before_the_start_means_that_nothing_is_started() {
    let mut rig = Rig::new();
    let launch = rig.launch_order(vec![task("t")]);
    let admission = rig.raw(launch);
    let kill = rig.kill_order("t", None);
    let kill = rig.raw(kill);
    let outputs = rig.write_all(admission);
    assert_eq!(started(&outputs), []);
    let outputs = rig.write_all(kill);
    assert_eq!((started(&outputs), signals(&outputs)), (vec![], vec![]));
    let outputs = rig.meet(1);
    let seen = rig.acknowledge_all(&outputs);
    let last = seen.last().unwrap();
    assert_eq!(
        (last.state, last.reason, last.source),
        (TaskState::Killed, Some(Reason::TaskKilledDuringLaunch), Source::Agent)
    );
    assert_eq!(rig.engine.summary().free, cpus(4));
}

#[test]
fn a_kill_that_can_not_be_journalled_does_not_hold_the_start_for_ever() {
    let mut rig = Rig::new();
    let launch = rig.launch_order(vec![task("t")]);
    let admission = rig.raw(launch);
    let kill = rig.kill_order("t", None);
    let kill = rig.raw(kill);
    assert_eq!(started(&rig.write_all(admission)), []);
    assert_eq!(started(&rig.fail_all(kill)).len(), 1);
}

#[test]
fn a_kill_while_it_starts_waits_for_its_process() {
    let mut rig = Rig::new();
    let outputs = rig.launch(vec![task("t"), task("u")]);
    let containers = started(&outputs);
    assert_eq!(signals(&rig.kill("t", None)), []);
    assert_eq!(signals(&rig.kill("u", None)), []);
    let outputs = rig.feed(Input::ContainerStarted { container_id: containers[0].clone(), supervisor_pid: 7 });
    assert_eq!(signals(&outputs), [ContainerSignal::Terminate]);
    rig.feed(Input::ContainerFailed { container_id: containers[1].clone(), why: "no such user".into() });
    rig.end(&containers[0], exit(Exit::Signal(15)));
    use TaskState::{Killed, Running, Starting};
    let mut states = rig.states();
    states.sort();
    assert_eq!(states, [Starting, Starting, Running, Killed, Killed]);
}

#[test]
fn a_container_that_can_not_be_started_is_a_failed_task_with_the_reason() {
    let mut rig = Rig::new();
    let outputs = rig.launch(vec![task("t")]);
    let container_id = started(&outputs).remove(0);
    let failed = rig.feed(Input::ContainerFailed { container_id, why: "user web is unknown".into() });
    assert_eq!(cleaned(&failed), 0, "nothing of it is left");
    let last = rig.acknowledge_all(&outputs).pop().unwrap();
    assert_eq!((last.state, last.reason), (TaskState::Failed, Some(Reason::ContainerLaunchFailed)));
    assert_eq!(last.message.as_deref(), Some("user web is unknown"));
    assert_eq!(rig.engine.summary().free, cpus(4));
}

#[test]
fn a_task_that_runs_for_too_long_fails_without_further_time() {
    let mut rig = Rig::with(KILLING);
    let container_id = rig.run(Task { completion_time_max: Some(Duration::from_secs(60)), ..task("t") });
    rig.acknowledge_all(&[]);
    let due = rig.engine.deadline().unwrap();
    assert!(due.1 == Why::UpdateRetry, "{due:?}");
    let states = rig.states();
    assert_eq!(states, [TaskState::Starting, TaskState::Running]);
    assert_eq!(rig.engine.deadline().unwrap().1, Why::CompletionTime);
    rig.now.mono = rig.now.mono.after(Duration::from_secs(60));
    rig.engine.handle_deadline(rig.now);
    let outputs = rig.drain();
    assert_eq!(signals(&outputs), [], "not before it is journalled");
    assert_eq!(signals(&rig.write_all(outputs)), [ContainerSignal::Kill]);
    let outputs = rig.end(&container_id, exit(Exit::Signal(9)));
    let seen = rig.acknowledge_all(&outputs);
    let last = seen.last().unwrap();
    assert_eq!(seen.len(), 1, "no TASK_KILLING");
    assert_eq!((last.state, last.reason), (TaskState::Failed, Some(Reason::MaxCompletionTimeReached)));
}

#[test]
fn a_framework_that_is_shut_down_has_its_tasks_ended_and_forgotten() {
    let mut rig = Rig::with(KILLING);
    let running = rig.run(Task { kill_grace: Some(Duration::from_secs(1)), ..task("t") });
    let ended = rig.run(task("u"));
    rig.end(&ended, exit(Exit::Code(0)));
    let order = rig.next_order(OrderKind::ShutdownFramework { framework_id: framework_id() });
    let outputs = rig.raw(order);
    assert_eq!(signals(&outputs), []);
    let outputs = rig.write_all(outputs);
    assert_eq!(signals(&outputs), [ContainerSignal::Terminate]);
    assert_eq!(statuses(&outputs), []);
    let picture = pictures(&outputs).pop().expect("the owner learns that the ended one is gone");
    assert_eq!(picture.tasks.len(), 1, "what still runs is shown");
    assert_eq!(signals(&rig.wait(1_000)), [ContainerSignal::Kill]);
    let outputs = rig.end(&running, exit(Exit::Signal(9)));
    assert_eq!((cleaned(&outputs), statuses(&outputs)), (1, vec![]));
    assert_eq!(pictures(&outputs).pop().unwrap().tasks, []);
    assert_eq!(rig.engine.summary().free, cpus(4));
    assert_eq!(rig.states(), []);
}

#[test]
fn updates_that_can_not_be_journalled_wait_and_lose_nothing() {
    let mut rig = Rig::new();
    let outputs = rig.launch(vec![task("t")]);
    let container_id = started(&outputs).remove(0);
    rig.acknowledge_all(&outputs);
    let outputs = rig.raw(Input::ContainerStarted { container_id: container_id.clone(), supervisor_pid: 7 });
    assert_eq!(rig.fail_all(outputs), []);
    // More gathers behind it meanwhile.
    assert_eq!(rig.feed(Input::ContainerEnded { container_id, end: exit(Exit::Code(3)) }), []);
    assert_eq!(rig.engine.deadline(), Some((rig.now.mono.after(Duration::from_secs(2)), Why::JournalRetry)));
    assert_eq!(rig.wait(1_999), []);
    let outputs = rig.wait(1);
    let seen = rig.acknowledge_all(&outputs);
    let states: Vec<_> = seen.iter().map(|status| status.state).collect();
    assert_eq!(states, [TaskState::Running, TaskState::Failed]);
    assert_eq!(seen[1].message.as_deref(), Some("Command exited with status 3"));
}
