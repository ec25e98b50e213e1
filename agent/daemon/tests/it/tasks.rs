//! Tasks from their order to their acknowledged end.

use muster_model::agent_message::OrderKind;
use muster_model::status::{Exit, Reason};
use muster_model::task::{Program, TaskState};
use muster_model::{FrameworkId, TaskId};

use crate::agent::{Machine, eventually, framework, launch, task};
use crate::owner::Owner;

fn start() -> (Machine, Owner) {
    let mut machine = Machine::joined();
    let mut owner = Owner::start(machine.dir.path());
    machine.start(owner.address);
    let (hello, picture) = owner.welcome();
    assert_eq!(hello.info.hostname.as_ref(), "test");
    assert!(picture.tasks.is_empty());
    (machine, owner)
}

#[test]
fn a_task_runs_reports_its_end_and_leaves_only_its_sandbox() {
    let (machine, mut owner) = start();
    owner.order(launch(&[
        ("good", "echo $GREETING; echo oops >&2; pwd"),
        ("bad", "exit 7"),
        ("shot", "kill -SEGV $$"),
    ]));
    let good = owner.await_state("good", TaskState::Finished);
    assert_eq!(good.status.exit, Some(Exit::Code(0)));
    let sandbox = machine.sandbox("good");
    let stdout = std::fs::read_to_string(sandbox.join("stdout")).unwrap();
    assert_eq!(stdout, format!("hello\n{}\n", sandbox.display()));
    assert_eq!(std::fs::read_to_string(sandbox.join("stderr")).unwrap(), "oops\n");
    assert_eq!(good.status.output_bytes, Some((u64::try_from(stdout.len()).unwrap(), 5)));
    eventually("runtime directories and groups are gone", || machine.containers().is_empty());
}

#[test]
fn failures_carry_their_exact_cause() {
    let (machine, mut owner) = start();
    owner.order(launch(&[("bad", "exit 7"), ("shot", "kill -SEGV $$")]));
    let missing = Program::Exec { path: "/no/such/program".into(), arguments: vec![] };
    owner.order(OrderKind::Launch { framework: framework(), tasks: vec![task("missing", missing)] });
    let mut stranger = (*task("stranger", Program::Shell("true".into()))).clone();
    stranger.command.user = Some("no-such-user".into());
    owner.order(OrderKind::Launch { framework: framework(), tasks: vec![stranger.into()] });
    let mut ends = std::collections::BTreeMap::new();
    while ends.len() < 4 {
        if let muster_model::agent_message::FromAgent::Updates(updates) = owner.next() {
            for update in updates.into_iter().filter(|update| update.status.state.is_terminal()) {
                ends.insert(update.status.task_id.as_str().to_owned(), update.status);
            }
        }
    }
    assert_eq!((ends["bad"].state, ends["bad"].exit), (TaskState::Failed, Some(Exit::Code(7))));
    assert_eq!(ends["shot"].exit, Some(Exit::Signal(11)));
    let message = ends["missing"].message.as_deref().unwrap();
    assert!(
        message.contains("executing the command (/no/such/program) failed: No such file or directory"),
        "{message}"
    );
    assert_eq!(ends["missing"].reason, Some(Reason::ContainerLaunchFailed));
    if muster_linux::isolation_missing().is_empty() {
        let message = ends["stranger"].message.as_deref().unwrap();
        assert!(message.contains("user no-such-user is not in /etc/passwd"), "{message}");
    }
    eventually("nothing of them is left", || machine.containers().is_empty());
}

#[test]
fn a_killed_task_gets_its_grace_and_then_the_final_signal() {
    let (machine, mut owner) = start();
    owner.order(launch(&[
        ("polite", "trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done"),
        ("stubborn", "trap '' TERM; while :; do sleep 0.05; done"),
    ]));
    owner.await_state("polite", TaskState::Running);
    owner.await_state("stubborn", TaskState::Running);
    // Both must have set their traps.
    std::thread::sleep(std::time::Duration::from_millis(200));
    for id in ["polite", "stubborn"] {
        let (framework_id, task_id) = (FrameworkId::parse("f").unwrap(), TaskId::parse(id).unwrap());
        owner.order(OrderKind::Kill { framework_id, task_id, grace: None });
    }
    let polite = owner.await_state("polite", TaskState::Killed);
    assert_eq!(polite.status.exit, Some(Exit::Code(3)));
    let stubborn = owner.await_state("stubborn", TaskState::Killed);
    assert_eq!(stubborn.status.exit, Some(Exit::Signal(9)));
    assert_eq!(std::fs::read_to_string(machine.sandbox("polite").join("stdout")).unwrap(), "bye\n");
}

#[test]
fn reports_show_the_machine_and_its_containers() {
    let (_machine, mut owner) = start();
    owner.order(launch(&[("busy", "while :; do :; done")]));
    owner.await_state("busy", TaskState::Running);
    let report =
        owner.await_report(|report| report.containers.iter().any(|one| one.cpu_us > 10_000) || no_cgroups(report));
    assert!(report.mem_total_kib > 0);
    let (framework_id, task_id) = (FrameworkId::parse("f").unwrap(), TaskId::parse("busy").unwrap());
    owner.order(OrderKind::Kill { framework_id, task_id, grace: None });
    owner.await_state("busy", TaskState::Killed);
}

fn no_cgroups(report: &muster_model::agent_message::Report) -> bool {
    let is_root = muster_linux::isolation_missing().is_empty();
    if !is_root && report.sequence > 3 {
        crate::skipped("usage of containers", "needs root");
    }
    !is_root && report.sequence > 3
}

#[test]
fn more_than_the_agent_has_is_refused() {
    let (_machine, mut owner) = start();
    let mut large = (*task("large", Program::Shell("true".into()))).clone();
    large.resources = muster_model::resource::Resources::basic(
        muster_model::Milli::whole(99),
        muster_model::Milli::whole(32),
        muster_model::Milli::whole(1),
    );
    let sequence = owner.order(OrderKind::Launch { framework: framework(), tasks: vec![large.into()] });
    let why = owner.await_answer(sequence).expect("refused");
    assert!(why.contains("99"), "{why}");
}
