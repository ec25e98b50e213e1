//! What a restarted agent makes of its journal and the containers that it finds.

use crate::rig::*;
use muster_agent_engine::io::{ContainerSignal, FoundContainer, FoundState, Input};
use muster_model::framework::Capabilities;
use muster_model::status::{Exit, Reason};
use muster_model::task::{Task, TaskState};
use muster_model::{ContainerId, Duration};
use std::sync::Arc;

fn found(container_id: &ContainerId, task: &Task, state: FoundState) -> FoundContainer {
    FoundContainer {
        container_id: container_id.clone(),
        task: Arc::new(task.clone()),
        framework: brief(Capabilities::default()),
        state,
    }
}

const ALIVE: FoundState = FoundState::Alive { supervisor_pid: 88 };

#[test]
fn running_tasks_get_the_end_that_is_true() {
    use TaskState::{Failed, Finished, Killed};
    let vanished = || FoundState::Vanished("no status was left".into());
    let ended = |code| FoundState::Ended(exit(code));
    let gone = "container vanished: no status was left";
    for (name, is_killed, boot, state, expected, reason, message) in [
        ("ended well", false, 1, Some(ended(Exit::Code(0))), Finished, None, "Command exited with status 0"),
        ("ended badly", false, 1, Some(ended(Exit::Code(3))), Failed, None, "Command exited with status 3"),
        ("killed meanwhile", true, 1, Some(ended(Exit::Code(0))), Killed, None, "Command exited with status 0"),
        ("vanished", false, 1, Some(vanished()), Failed, Some(Reason::ExecutorTerminated), gone),
        ("vanished, killed", true, 1, Some(vanished()), Killed, Some(Reason::ExecutorTerminated), gone),
        (
            "nothing there",
            false,
            1,
            None,
            Failed,
            Some(Reason::ExecutorTerminated),
            "container vanished: its runtime directory is not there",
        ),
        (
            "reboot",
            false,
            2,
            None,
            Failed,
            Some(Reason::ExecutorTerminated),
            "container vanished: the machine was started anew",
        ),
    ] {
        let mut rig = Rig::new();
        let container_id = rig.run(task("t"));
        if is_killed {
            rig.kill("t", None);
        }
        rig.boot = boot;
        let has_directory = state.is_some();
        let containers = state.map(|state| found(&container_id, &task("t"), state)).into_iter().collect();
        let outputs = rig.restart(containers);
        assert_eq!(cleaned(&outputs), usize::from(has_directory), "case: {name}");
        assert_eq!(rig.engine.summary().free, cpus(4), "case: {name}");
        let outputs = rig.meet(1);
        let last = rig.acknowledge_all(&outputs).pop().unwrap();
        assert_eq!(
            (last.state, last.reason, last.message.as_deref()),
            (expected, reason, Some(message)),
            "case: {name}"
        );
        // Once acknowledged, a further restart knows nothing of it.
        rig.restart(vec![]);
        assert_eq!(rig.states(), [], "case: {name}");
    }
}

#[test]
fn tasks_that_were_never_started_are_not_started_now() {
    use TaskState::{Dropped, Failed, Killed, Lost};
    let aware = Capabilities { partition_aware: true, ..Capabilities::default() };
    let restarted = Some(Reason::AgentRestarted);
    for (name, capabilities, is_killed, boot, state, reason) in [
        ("aware", aware, false, 1, Dropped, restarted),
        ("not aware", Capabilities::default(), false, 1, Lost, restarted),
        ("killed", aware, true, 1, Killed, Some(Reason::TaskKilledDuringLaunch)),
        ("it may have run before the reboot", aware, false, 2, Failed, Some(Reason::ExecutorTerminated)),
    ] {
        let mut rig = Rig::with(capabilities);
        rig.launch(vec![task("t")]);
        if is_killed {
            rig.kill("t", None);
        }
        rig.boot = boot;
        let mut outputs = rig.restart(vec![]);
        outputs.extend(rig.meet(1));
        assert_eq!(started(&outputs), [], "case: {name}");
        let last = rig.acknowledge_all(&outputs).pop().unwrap();
        assert_eq!((last.state, last.reason), (state, reason), "case: {name}");
        assert_eq!(rig.engine.summary().free, cpus(4), "case: {name}");
    }
}

#[test]
fn living_containers_are_adopted_and_end_as_if_nothing_had_been() {
    let mut rig = Rig::new();
    let container_id = rig.run(task("t"));
    let outputs = rig.restart(vec![found(&container_id, &task("t"), ALIVE)]);
    assert_eq!(outputs, []);
    assert_eq!(rig.engine.summary().free, cpus(3));
    assert_eq!(rig.states(), [TaskState::Starting, TaskState::Running]);
    rig.end(&container_id, exit(Exit::Code(0)));
    assert_eq!(rig.states(), [TaskState::Finished]);
    // Started, but the agent died before it heard so.
    let outputs = rig.launch(vec![task("u")]);
    let container_id = started(&outputs).remove(0);
    rig.restart(vec![found(&container_id, &task("u"), ALIVE)]);
    assert_eq!(rig.states(), [TaskState::Starting, TaskState::Running]);
}

#[test]
fn kills_go_on_with_the_time_that_is_left() {
    for (name, away, left) in [("some time is left", 4_000, 6_000), ("none is left", 11_000, 0)] {
        let mut rig = Rig::new();
        let container_id = rig.run(task("t"));
        rig.kill("t", Some(10));
        rig.now.wall = rig.now.wall.after(Duration::from_millis(away));
        let outputs = rig.restart(vec![found(&container_id, &task("t"), ALIVE)]);
        if left > 0 {
            assert_eq!(signals(&outputs), [ContainerSignal::Terminate], "case: {name}");
            assert_eq!(signals(&rig.wait(left - 1)), [], "case: {name}");
            assert_eq!(signals(&rig.wait(1)), [ContainerSignal::Kill], "case: {name}");
        } else {
            assert_eq!(signals(&outputs), [ContainerSignal::Kill], "case: {name}");
        }
        rig.end(&container_id, exit(Exit::Signal(9)));
        assert_eq!(rig.states(), [TaskState::Starting, TaskState::Running, TaskState::Killed], "case: {name}");
    }
}

#[test]
fn completion_time_counts_from_the_launch_over_restarts() {
    let slow = Task { completion_time_max: Some(Duration::from_secs(60)), ..task("t") };
    let mut rig = Rig::new();
    let container_id = rig.run(slow.clone());
    rig.now.wall = rig.now.wall.after(Duration::from_secs(50));
    rig.restart(vec![found(&container_id, &slow, ALIVE)]);
    assert_eq!(signals(&rig.wait(9_999)), []);
    assert_eq!(signals(&rig.wait(1)), [ContainerSignal::Kill]);
    // The agent dies before it hears of the end; the reason is not lost.
    rig.restart(vec![found(&container_id, &slow, FoundState::Ended(exit(Exit::Signal(9))))]);
    let outputs = rig.meet(1);
    let last = rig.acknowledge_all(&outputs).pop().unwrap();
    assert_eq!((last.state, last.reason), (TaskState::Failed, Some(Reason::MaxCompletionTimeReached)));
}

#[test]
fn containers_that_the_journal_does_not_know_are_adopted_or_cleaned_up_but_never_killed() {
    let id = ContainerId::parse("c-1").unwrap();
    let ended = || FoundState::Ended(exit(Exit::Code(0)));
    let vanished = || FoundState::Vanished("why".into());
    use TaskState::{Failed, Finished, Running};
    for (name, state, doubt, states, clean_ups) in [
        ("alive", ALIVE, None, vec![Running], 0),
        ("alive, damaged journal", ALIVE, Some("damaged"), vec![Running], 0),
        ("ended and acknowledged before", ended(), None, vec![], 1),
        ("ended, damaged journal", ended(), Some("damaged"), vec![Finished], 1),
        ("vanished, damaged journal", vanished(), Some("damaged"), vec![Failed], 1),
    ] {
        let mut rig = Rig::new();
        let outputs = rig.restart_with(vec![found(&id, &task("t"), state.clone())], doubt);
        assert_eq!((signals(&outputs), cleaned(&outputs)), (vec![], clean_ups), "case: {name}");
        let used = if state == ALIVE { 1 } else { 0 };
        assert_eq!(rig.engine.summary().free, cpus(4 - used), "case: {name}");
        assert_eq!(rig.states(), states, "case: {name}");
        if state == ALIVE {
            // It was journalled, so the next restart knows it.
            rig.restart(vec![found(&id, &task("t"), ALIVE)]);
            rig.end(&id, exit(Exit::Code(1)));
            assert_eq!(rig.states(), [Failed], "case: {name}");
        }
    }
}

#[test]
fn a_container_that_runs_after_its_end_was_reported_is_ended_and_holds_its_resources_until_then() {
    let mut rig = Rig::new();
    let container_id = rig.run(task("t"));
    rig.restart(vec![found(&container_id, &task("t"), FoundState::Vanished("hidden".into()))]);
    let outputs = rig.restart(vec![found(&container_id, &task("t"), ALIVE)]);
    assert_eq!(signals(&outputs), [ContainerSignal::Kill]);
    assert_eq!(rig.engine.summary().free, cpus(3));
    assert_eq!(signals(&rig.wait(5_000)), [ContainerSignal::Kill]);
    let outputs = rig.end(&container_id, exit(Exit::Signal(9)));
    assert_eq!((cleaned(&outputs), rig.engine.summary().free), (1, cpus(4)));
    assert_eq!(rig.states().last(), Some(&TaskState::Failed), "what was reported stands");
}

#[test]
fn a_second_container_of_a_task_is_left_alone_and_counted() {
    let mut rig = Rig::new();
    let container_id = rig.run(task("t"));
    let other = ContainerId::parse("c-2").unwrap();
    let outputs = rig.restart(vec![found(&container_id, &task("t"), ALIVE), found(&other, &task("t"), ALIVE)]);
    assert_eq!(signals(&outputs), []);
    assert_eq!(rig.engine.summary().free, cpus(2));
    assert_eq!(rig.engine.deadline(), None);
    let outputs = rig.end(&other, exit(Exit::Code(0)));
    assert_eq!((cleaned(&outputs), rig.engine.summary().free), (1, cpus(3)));
}

#[test]
fn a_shutdown_goes_on_after_a_restart() {
    let mut rig = Rig::new();
    let container_id = rig.run(task("t"));
    let order =
        rig.next_order(muster_model::agent_message::OrderKind::ShutdownFramework { framework_id: framework_id() });
    rig.feed(order);
    let outputs = rig.restart(vec![found(&container_id, &task("t"), ALIVE)]);
    assert_eq!(signals(&outputs), [ContainerSignal::Terminate]);
    let outputs = rig.end(&container_id, exit(Exit::Signal(15)));
    assert_eq!(cleaned(&outputs), 1);
    assert_eq!(rig.states(), []);
    assert_eq!(rig.engine.summary().free, cpus(4));
}

#[test]
fn inputs_before_recovery_and_strange_ones_are_harmless() {
    let mut rig = Rig::new();
    let stranger = ContainerId::parse("nobody").unwrap();
    for input in [
        Input::ContainerStarted { container_id: stranger.clone(), supervisor_pid: 1 },
        Input::ContainerFailed { container_id: stranger.clone(), why: "x".into() },
        Input::ContainerEnded { container_id: stranger, end: exit(Exit::Code(0)) },
        Input::Persisted { seq: 999 },
        Input::PersistFailed { seq: 999, why: "x".into() },
        Input::Recovered { entries: vec![], journal_position: 0, journal_doubt: None, containers: vec![] },
    ] {
        assert_eq!(rig.feed(input.clone()), [], "{input:?}");
    }
    assert_eq!(rig.engine.summary().free, cpus(4));
}
