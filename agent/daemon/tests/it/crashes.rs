//! kill -9, SIGTERM, lost connections, damaged journals: what runs keeps running, what ended is told truly.

use muster_model::agent_message::FromAgent;
use muster_model::status::Exit;
use muster_model::task::TaskState;

use crate::agent::{Machine, eventually, is_alive, launch};
use crate::owner::Owner;

const UNTIL_STOP: &str = "while [ ! -e stop ]; do sleep 0.02; done";

#[test]
fn tasks_outlive_kill_9_and_an_end_meanwhile_is_told_truly() {
    let mut machine = Machine::joined();
    let mut owner = Owner::start(machine.dir.path());
    machine.start(owner.address);
    owner.welcome();
    let (long, meanwhile) = (format!("{UNTIL_STOP}; exit 3"), format!("{UNTIL_STOP}; exit 42"));
    owner.order(launch(&[("long", &long), ("meanwhile", &meanwhile)]));
    owner.await_state("long", TaskState::Running);
    owner.await_state("meanwhile", TaskState::Running);
    machine.kill_9();
    let pids: Vec<String> = machine.containers().iter().map(|container| machine.task_pid(container)).collect();
    assert!(pids.len() == 2 && pids.iter().all(|pid| is_alive(pid)), "{pids:?}");
    std::fs::write(machine.sandbox("meanwhile").join("stop"), "").unwrap();
    eventually("one ends while no agent runs", || pids.iter().filter(|pid| is_alive(pid)).count() == 1);

    machine.start(owner.address);
    owner.next_epoch();
    let (hello, picture) = owner.welcome();
    assert!(hello.journal_position > 0);
    let states: Vec<_> = picture.tasks.iter().map(|task| (task.task.id.as_str(), task.latest)).collect();
    assert!(states.contains(&("long", TaskState::Running)), "{states:?}");
    assert!(states.contains(&("meanwhile", TaskState::Failed)), "{states:?}");
    let end = owner.await_state("meanwhile", TaskState::Failed);
    assert_eq!(end.status.exit, Some(Exit::Code(42)));
    std::fs::write(machine.sandbox("long").join("stop"), "").unwrap();
    assert_eq!(owner.await_state("long", TaskState::Failed).status.exit, Some(Exit::Code(3)));
}

#[test]
fn an_agent_whose_launcher_was_killed_begins_anew_as_the_same_process() {
    let mut machine = Machine::joined();
    let mut owner = Owner::start(machine.dir.path());
    machine.start(owner.address);
    owner.welcome();
    owner.order(launch(&[("long", UNTIL_STOP)]));
    owner.await_state("long", TaskState::Running);
    let launcher = machine.launcher_pid();
    assert!(std::process::Command::new("kill").args(["-9", &launcher]).status().unwrap().success());
    owner.next_epoch();
    assert_eq!(owner.welcome().1.tasks.len(), 1);
    assert!(!machine.has_ended());
    owner.order(launch(&[("next", "true")]));
    owner.await_state("next", TaskState::Finished);
    std::fs::write(machine.sandbox("long").join("stop"), "").unwrap();
    owner.await_state("long", TaskState::Finished);
}

#[test]
fn sigterm_ends_the_agent_in_order_and_no_task() {
    let mut machine = Machine::joined();
    let mut owner = Owner::start(machine.dir.path());
    machine.start(owner.address);
    owner.welcome();
    owner.order(launch(&[("long", UNTIL_STOP)]));
    owner.await_state("long", TaskState::Running);
    let groups = machine.groups();
    assert_eq!(machine.stop(), Some(0));
    let container = machine.containers().pop().unwrap();
    assert!(is_alive(&machine.task_pid(&container)));
    assert_eq!(machine.groups(), groups, "a task that runs on keeps its groups");
    machine.start(owner.address);
    owner.next_epoch();
    assert_eq!(owner.welcome().1.tasks.len(), 1);
    std::fs::write(machine.sandbox("long").join("stop"), "").unwrap();
    owner.await_state("long", TaskState::Finished);
}

#[test]
fn an_agent_that_ends_in_order_without_tasks_leaves_no_group() {
    let mut machine = Machine::joined();
    let mut owner = Owner::start(machine.dir.path());
    for name in ["first", "again"] {
        machine.start(owner.address);
        if name == "again" {
            owner.next_epoch();
        }
        owner.welcome();
        owner.order(launch(&[(name, "true")]));
        owner.await_state(name, TaskState::Finished);
        eventually("what the task left is cleaned up", || machine.containers().is_empty());
        if machine.groups().is_empty() {
            return crate::skipped("an_agent_that_ends_in_order_without_tasks_leaves_no_group", "no control groups");
        }
        assert_eq!(machine.stop(), Some(0));
        assert_eq!(machine.groups(), Vec::<std::path::PathBuf>::new(), "case: {name}");
    }
}

#[test]
fn a_lost_connection_is_made_again_and_updates_repeated_until_acknowledged() {
    let mut machine = Machine::joined();
    let mut owner = Owner::start(machine.dir.path());
    machine.start(owner.address);
    owner.welcome();
    owner.acknowledges = false;
    owner.order(launch(&[("short", "exit 5")]));
    let first = owner.await_state("short", TaskState::Starting);
    let again = owner.await_state("short", TaskState::Starting);
    assert_eq!(first.status.uuid, again.status.uuid, "unacknowledged, it is repeated");
    owner.hang_up();
    owner.next_epoch();
    let (_, picture) = owner.welcome();
    assert_eq!(picture.tasks[0].pending.as_ref().unwrap().uuid, first.status.uuid);
    assert!(!machine.has_ended());
    owner.acknowledges = true;
    assert_eq!(owner.await_state("short", TaskState::Failed).status.exit, Some(Exit::Code(5)));
}

#[test]
fn a_container_that_the_journal_does_not_know_is_adopted() {
    let mut machine = Machine::joined();
    let mut owner = Owner::start(machine.dir.path());
    machine.start(owner.address);
    owner.welcome();
    owner.order(launch(&[("orphan", UNTIL_STOP)]));
    owner.await_state("orphan", TaskState::Running);
    machine.kill_9();
    let pid = machine.task_pid(&machine.containers()[0]);
    // A disk that was restored from before the task: the journal knows nothing.
    muster_daemon::journal::Journal::create(&machine.work.join("journal"), &crate::agent::agent_id()).unwrap();
    machine.start(owner.address);
    owner.next_epoch();
    let (_, picture) = owner.welcome();
    assert_eq!(picture.tasks.len(), 1, "{picture:?}");
    assert!(is_alive(&pid), "never killed on suspicion");
    std::fs::write(machine.sandbox("orphan").join("stop"), "").unwrap();
    owner.await_state("orphan", TaskState::Finished);
}

#[test]
fn a_torn_tail_is_cut_and_a_broken_middle_stops_launches_until_a_newer_fence() {
    let mut machine = Machine::joined();
    let mut owner = Owner::start(machine.dir.path());
    machine.start(owner.address);
    owner.welcome();
    owner.order(launch(&[("one", UNTIL_STOP)]));
    owner.await_state("one", TaskState::Running);
    machine.kill_9();
    let journal = machine.work.join("journal");
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes.extend_from_slice(&bytes.clone()[..30]);
    std::fs::write(&journal, &bytes).unwrap();
    machine.start(owner.address);
    owner.next_epoch();
    assert_eq!(owner.welcome().1.tasks.len(), 1);
    assert!(machine.log().contains("cut a write off the journal"), "{}", machine.log());
    machine.kill_9();

    let mut bytes = std::fs::read(&journal).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&journal, &bytes).unwrap();
    machine.start(owner.address);
    // The same owner with the same fence: what was lost could be ordered again.
    assert_eq!(owner.welcome().1.tasks.len(), 1, "adopted from its runtime directory");
    assert!(machine.work.join("journal.damaged-1").exists());
    let sequence = owner.order(launch(&[("two", "true")]));
    let why = owner.await_answer(sequence).expect("refused");
    assert!(why.contains("is damaged after byte"), "{why}");
    owner.hang_up();
    owner.next_epoch();
    owner.welcome();
    owner.order(launch(&[("three", "true")]));
    owner.await_state("three", TaskState::Finished);
    assert!(!machine.work.join("journal.doubt").exists());
    std::fs::write(machine.sandbox("one").join("stop"), "").unwrap();
    owner.await_state("one", TaskState::Finished);
}

#[test]
fn an_order_of_a_deposed_owner_is_refused() {
    let mut machine = Machine::joined();
    let mut owner = Owner::start(machine.dir.path());
    machine.start(owner.address);
    owner.fence.epoch = 5;
    owner.welcome();
    owner.fence.epoch = 4;
    let sequence = owner.order(launch(&[("late", "true")]));
    loop {
        if let FromAgent::OrdersTaken { refused, .. } = owner.next()
            && let Some((_, why)) = refused.into_iter().find(|(number, _)| *number == sequence)
        {
            assert!(why.to_string().contains("is in force"), "{why}");
            break;
        }
    }
    assert!(machine.containers().is_empty());
}
