//! Two nodes: one owns the agent's shard, the other is next in line. Tasks run on through every change.

use muster_model::agent_message::{FromAgent, OrderKind, ToAgent};
use muster_model::task::TaskState;
use muster_model::{FrameworkId, TaskId};

use crate::agent::{Machine, is_alive, launch};
use crate::owner::Owner;

/// An agent in a session with the first node, standing by at the second, with a task that runs.
fn with_task() -> (Machine, Owner, Owner) {
    let mut machine = Machine::joined();
    let (mut owner, mut next) = (Owner::start(machine.dir.path()), Owner::start(machine.dir.path()));
    owner.standby = Some(next.address);
    machine.start(owner.address);
    owner.welcome();
    assert_eq!(next.await_standby(), owner.fence);
    owner.order(launch(&[("t", "while :; do sleep 0.1; done")]));
    owner.await_state("t", TaskState::Running);
    next.fence = owner.fence;
    next.next_epoch();
    (machine, owner, next)
}

fn end_task(owner: &mut Owner) {
    let (framework_id, task_id) = (FrameworkId::parse("f").unwrap(), TaskId::parse("t").unwrap());
    owner.order(OrderKind::Kill { framework_id, task_id, grace: None });
    owner.await_state("t", TaskState::Killed);
}

#[test]
fn the_standby_takes_over_without_a_handshake_while_the_owner_is_silent() {
    let (machine, owner, mut next) = with_task();
    let pid = machine.task_pid(&machine.containers()[0]);
    let picture = next.call();
    assert_eq!(picture.fence, next.fence);
    assert_eq!(picture.tasks.len(), 1);
    assert_eq!(picture.tasks[0].latest, TaskState::Running);
    assert_eq!(next.connections, 1, "the standby's connection became the session");
    // What the old owner says now is not heard: its connection is gone.
    owner.say(ToAgent::PictureWanted);
    next.await_report(|_| true);
    assert!(is_alive(&pid));
    end_task(&mut next);
    assert_eq!(next.connections, 1);
}

#[test]
fn a_lost_owner_is_followed_by_hello_on_the_standbys_connection() {
    let (_machine, mut owner, mut next) = with_task();
    // A session that was short is left with a pause, which is not what is tested: reports come every 200 ms.
    owner.await_report(|report| report.sequence >= 8);
    owner.hang_up();
    let FromAgent::Hello(hello) = next.next() else { panic!("not a hello") };
    assert_eq!((hello.highest_fence, next.connections), (owner.fence, 1));
    // It does not own the shard yet; then it does.
    let address = owner.address.to_string().into();
    next.say(ToAgent::Referral { fence: owner.fence, address });
    assert_eq!(next.await_standby(), owner.fence, "it goes on standing by");
    assert_eq!(next.call().tasks.len(), 1);
    end_task(&mut next);
    assert_eq!(next.connections, 1);
}

#[test]
fn an_agent_whose_entries_are_all_dead_finds_the_node_that_it_has_learnt_of() {
    let (mut machine, owner, mut next) = with_task();
    machine.kill_9();
    let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    drop(owner);
    machine.start(gone.local_addr().unwrap());
    // Both the last owner and its standby are known; the owner refers to the other.
    let (_, picture) = next.welcome();
    assert_eq!(picture.tasks[0].latest, TaskState::Running);
    end_task(&mut next);
}

#[test]
fn referrals_lead_to_the_owner_and_old_ones_do_not() {
    let (_machine, mut owner, mut next) = with_task();
    // The shard is handed over: the old owner says where to.
    owner.say(ToAgent::Referral { fence: next.fence, address: next.address.to_string().into() });
    let FromAgent::Hello(_) = next.next() else { panic!("not a hello") };
    next.standby = Some(owner.address);
    next.take_over();
    assert_eq!(next.connections, 1, "over the connection that stood by");
    assert_eq!(owner.await_standby(), next.fence);
    // A referral from the past is not followed: the agent asks the others it knows, and comes back.
    let nowhere = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    next.say(ToAgent::Referral { fence: owner.fence, address: nowhere.local_addr().unwrap().to_string().into() });
    let FromAgent::Hello(hello) = owner.next() else { panic!("not a hello") };
    assert_eq!(hello.highest_fence, next.fence);
    owner.say(ToAgent::Refused { why: "not the owner any more".into(), may_retry: true });
    let (hello, picture) = next.welcome();
    assert_eq!((hello.highest_fence, picture.tasks.len()), (next.fence, 1));
    nowhere.set_nonblocking(true).unwrap();
    assert!(nowhere.recv(&mut [0; 2048]).is_err(), "nothing was sent there");
}
