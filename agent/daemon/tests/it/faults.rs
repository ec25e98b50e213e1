//! Bad configuration, unusable directories, a full disk: a clear error, and nothing lost.

use std::process::Command;

use muster_model::task::TaskState;

use crate::agent::{Machine, launch};
use crate::owner::Owner;

fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn bad_configuration_names_every_fault_and_exits_64() {
    let machine = Machine::fresh();
    let (code, text) = run(machine.command().args(["--port", "0", "--ip", "x", "--control-plane", "nowhere"]));
    assert_eq!(code, Some(64), "{text}");
    for key in ["port:", "ip:", "control-plane:", "3 faults"] {
        assert!(text.contains(key), "{key} in {text}");
    }
}

#[test]
fn a_machine_that_has_not_joined_says_how_to() {
    let machine = Machine::fresh();
    let (code, text) = run(&mut machine.command());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("muster tokens create"), "{text}");
}

#[test]
fn an_unusable_work_directory_is_named() {
    let mut machine = Machine::fresh();
    std::fs::remove_dir(&machine.work).unwrap();
    std::fs::write(&machine.work, "a file").unwrap();
    let (code, text) = run(&mut machine.command());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("cannot write to work directory") && text.contains("--work-dir"), "{text}");
    machine.work = "/proc/muster-agent".into();
    let (code, text) = run(&mut machine.command());
    assert!(code == Some(1) && text.contains("/proc/muster-agent"), "{text}");
}

#[test]
fn a_second_agent_on_the_same_directory_is_refused() {
    let mut machine = Machine::joined();
    let mut owner = Owner::start(machine.dir.path());
    machine.start(owner.address);
    owner.welcome();
    let (code, text) = run(machine.command().args(["--control-plane", &owner.address.to_string()]));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("in use by another agent"), "{text}");
}

#[test]
fn damaged_identity_and_key_are_named() {
    let machine = Machine::joined();
    for name in ["identity.1", "identity.2"] {
        std::fs::write(machine.work.join(name), "rubbish").unwrap();
    }
    let (code, text) = run(machine.command().args(["--control-plane", "127.0.0.1:9"]));
    assert!(code == Some(1) && text.contains("both copies of the identity"), "{text}");
    let machine = Machine::joined();
    std::fs::write(machine.work.join("agent.pem"), "rubbish").unwrap();
    let (code, text) = run(machine.command().args(["--control-plane", "127.0.0.1:9"]));
    assert!(code == Some(1) && text.contains("agent.pem"), "{text}");
}

#[test]
fn a_full_disk_refuses_launches_and_loses_nothing() {
    if !muster_linux::isolation_missing().is_empty() {
        crate::skipped("a_full_disk_refuses_launches_and_loses_nothing", "needs root to mount a small file system");
        return;
    }
    let mut machine = Machine::fresh();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k,mode=755", "tmpfs"]).arg(&machine.work).status();
    if !mounted.is_ok_and(|status| status.success()) {
        crate::skipped("a_full_disk_refuses_launches_and_loses_nothing", "cannot mount a tmpfs");
        return;
    }
    let small = Mounted(machine.work.clone());
    machine.put_identity();
    let mut owner = Owner::start(machine.dir.path());
    machine.start(owner.address);
    owner.welcome();
    owner.order(launch(&[("before", "while [ ! -e /proc/1/none ]; do sleep 0.05; done")]));
    owner.await_state("before", TaskState::Running);
    fill(&machine.work.join("filler"));
    let sequence = owner.order(launch(&[("during", &format!("true # {}", "x".repeat(20_000)))]));
    let why = owner.await_answer(sequence).expect("refused");
    assert!(why.contains("No space left on device"), "{why}");
    assert!(!machine.has_ended(), "the agent copes");
    std::fs::remove_file(machine.work.join("filler")).unwrap();
    owner.order(launch(&[("after", "true")]));
    owner.await_state("after", TaskState::Finished);
    machine.kill_9();
    machine.start(owner.address);
    owner.next_epoch();
    let (_, picture) = owner.welcome();
    assert!(picture.tasks.iter().any(|task| task.task.id.as_str() == "before"), "{picture:?}");
    machine.stop();
    drop(small);
}

/// Writes until nothing more fits.
fn fill(path: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    for size in [4096, 64, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {}
    }
}

/// Unmounts at the end of the test.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: an agent that is being ended may still hold it for a moment.
        let _seen_in_the_next_run = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
