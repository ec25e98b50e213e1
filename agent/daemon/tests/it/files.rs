//! Sandbox files through the agent's own connection.

use std::time::Duration;

use muster_model::agent_message::{FileReply, FileRequest};
use muster_model::task::TaskState;
use muster_model::{FrameworkId, TaskId};

use crate::agent::{Machine, launch};
use crate::owner::Owner;

fn request(path: &str, offset: u64, length: Option<u64>, follow: bool) -> FileRequest {
    let (framework_id, task_id) = (FrameworkId::parse("f").unwrap(), TaskId::parse("talker").unwrap());
    FileRequest { framework_id, task_id, path: path.into(), offset, length, follow }
}

fn read(owner: &Owner, request: FileRequest) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for piece in owner.read_file(request).iter() {
        match piece {
            FileReply::Open { .. } => {}
            FileReply::Data(more) => bytes.extend(more),
            FileReply::Refused { why } => return Err(why.to_string()),
        }
    }
    Ok(bytes)
}

#[test]
fn a_log_is_followed_to_its_last_byte_and_read_after_the_end() {
    let mut machine = Machine::joined();
    let mut owner = Owner::start(machine.dir.path());
    machine.start(owner.address);
    owner.welcome();
    let script = "echo begin; while [ ! -e stop ]; do sleep 0.02; done; i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done";
    owner.order(launch(&[("talker", script)]));
    owner.await_state("talker", TaskState::Running);
    let followed = owner.read_file(request("stdout", 0, None, true));
    assert!(matches!(followed.recv_timeout(Duration::from_secs(10)), Ok(FileReply::Open { .. })));
    let Ok(FileReply::Data(begin)) = followed.recv_timeout(Duration::from_secs(10)) else { panic!("no data") };
    assert_eq!(begin, b"begin\n");
    std::fs::write(machine.sandbox("talker").join("stop"), "").unwrap();
    owner.await_state("talker", TaskState::Finished);
    let mut text = begin;
    for piece in followed.iter() {
        if let FileReply::Data(more) = piece {
            text.extend(more);
        }
    }
    assert!(text.ends_with(b"line 19999\n"), "{}", text.len());
    let whole = std::fs::read(machine.sandbox("talker").join("stdout")).unwrap();
    assert_eq!(text, whole);
    assert_eq!(read(&owner, request("stdout", 0, None, true)).unwrap(), whole, "after the end it does not wait");
    assert_eq!(read(&owner, request("stdout", 6, Some(4), false)).unwrap(), b"line");
    assert_eq!(read(&owner, request("stdout", 1 << 40, None, false)).unwrap(), b"");
}

#[test]
fn nothing_outside_a_sandbox_is_given_out() {
    let mut machine = Machine::joined();
    let mut owner = Owner::start(machine.dir.path());
    machine.start(owner.address);
    owner.welcome();
    owner.order(launch(&[("talker", "ln -s /etc/passwd link; mkfifo pipe; ln -s ../../../../agent.pem key")]));
    owner.await_state("talker", TaskState::Finished);
    for (path, reason) in [
        ("link", "leads out of the sandbox"),
        ("key", "leads out of the sandbox"),
        ("../../../../agent.pem", "leads out of the sandbox"),
        ("pipe", "is not a regular file"),
        ("none", "there is no file"),
    ] {
        let why = read(&owner, request(path, 0, None, false)).unwrap_err();
        assert!(why.contains(reason), "case: {path}: {why}");
    }
    let unknown = FileRequest { task_id: TaskId::parse("unknown").unwrap(), ..request("stdout", 0, None, false) };
    assert!(read(&owner, unknown).unwrap_err().contains("has no sandbox of task unknown"));
}
