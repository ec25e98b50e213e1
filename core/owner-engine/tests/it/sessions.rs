//! Who is let in and who is refused; what a lost session means.

use crate::world::*;
use muster_model::agent_message::*;
use muster_model::fence::Fence;
use muster_model::node_message::*;
use muster_model::offer::RescindReason;
use muster_model::record::Admission;
use muster_model::status::TaskStatus;
use muster_model::task::TaskState;
use muster_model::view::Presence;
use muster_model::*;
use muster_owner_engine::io::*;

#[test]
fn a_refused_session_says_why_and_whether_to_come_again() {
    let above = Fence { epoch: 6, ..FENCE };
    for (name, change, certificate, hello_agent, fence, text, may_retry) in [
        ("revoked", Some((true, Admission::Active)), CERTIFICATE, "a", FENCE, "is revoked", false),
        ("gone", Some((false, Admission::Gone { since: WallTime(1) })), CERTIFICATE, "a", FENCE, "marked gone", false),
        ("old certificate", None, [8; 32], "a", FENCE, "newer certificate", false),
        ("another agent", None, CERTIFICATE, "b", FENCE, "is agent a's but", false),
        ("claims a fence above", None, CERTIFICATE, "a", above, "claims fence", true),
    ] {
        let mut world = World::new();
        if let Some((is_revoked, admission)) = change {
            let agent = record(&world.agent);
            world.handle(Input::AgentAdmitted(stored(
                muster_model::record::AgentRecord { is_revoked, admission, ..agent },
                50,
            )));
        }
        let hello = Hello { agent_id: aid(hello_agent), highest_fence: fence, ..world.hello() };
        let outputs = world.handle(Input::SessionOpened {
            session: SessionId(1),
            agent_id: aid("a"),
            certificate,
            peer: "p".into(),
            hello,
        });
        let (why, retry) = refused(&outputs).expect(name);
        assert!(why.contains(text), "case: {name}: {why}");
        assert_eq!(retry, may_retry, "case: {name}");
        assert!(outputs.iter().any(|o| matches!(o, Output::CloseSession { .. })), "case: {name}");
        assert!(world.says(FromAgent::Picture(picture(Vec::new()))).is_empty(), "case: {name}");
    }
}

#[test]
fn agents_without_a_record_and_of_other_shards_are_refused_and_may_come_again() {
    let mut world = World::new();
    let hello = Hello { agent_id: aid("x"), ..world.hello() };
    let open = |hello: Hello| Input::SessionOpened {
        session: SessionId(1),
        agent_id: aid("x"),
        certificate: CERTIFICATE,
        peer: "p".into(),
        hello,
    };
    let (why, may_retry) = refused(&world.handle(open(hello.clone()))).unwrap();
    assert!(why.contains("no record") && may_retry, "{why}");
    world.handle(Input::ShardLost { shard: ShardId(0), now_at: None });
    let (why, may_retry) = refused(&world.handle(open(hello))).unwrap();
    assert!(why.contains("does not own shard 0") && may_retry, "{why}");
}

#[test]
fn nothing_is_offered_before_the_picture_came_under_our_fence() {
    let mut world = World::new();
    let hello = world.hello();
    let (_, outputs) = world.open(hello);
    assert_eq!(welcome(&outputs).unwrap().fence, FENCE);
    assert!(to_allocator(&outputs).is_empty());
    let agent = world.agent.clone();
    let outputs = world.grants(vec![grant(1, "f", &agent, some(1, 1))]);
    assert_eq!(closed(&outputs)[0].reason, Some(RescindReason::AgentDisconnected));
    let other = Picture { fence: Fence { epoch: 4, ..FENCE }, ..picture(Vec::new()) };
    let outputs = world.says(FromAgent::Picture(other));
    assert!(has_note(&outputs, "another fence") && to_allocator(&outputs).is_empty());
    let outputs = world.says(FromAgent::Picture(picture(Vec::new())));
    let [ToAllocator::Agent(book)] = &to_allocator(&outputs)[..] else { panic!("{outputs:?}") };
    assert!(book.is_active && book.used.is_empty() && book.grants.is_empty());
    assert_eq!(world.owner.view().agents[&agent].presence, Presence::Connected);
}

#[test]
fn a_session_with_the_current_token_replaces_the_first() {
    let mut world = World::new();
    let hello = world.hello();
    let (first, outputs) = world.open(hello.clone());
    let token = welcome(&outputs).unwrap().next_token;
    world.says(FromAgent::Picture(picture(Vec::new())));
    let (second, outputs) = world.open(Hello { ratchet_token: Some(token), ..hello });
    assert!(welcome(&outputs).is_some());
    assert!(outputs.iter().any(|o| matches!(o, Output::CloseSession { session, .. } if *session == first)));
    assert_ne!(first, second);
    // What the first still says is void.
    assert!(
        world.handle(Input::FromAgent { session: first, message: FromAgent::Picture(picture(Vec::new())) }).is_empty()
    );
    assert!(world.handle(Input::SessionClosed { session: first, why: "late".into() }).is_empty());
}

#[test]
fn an_agent_that_missed_its_welcome_comes_back_with_the_token_before() {
    let mut world = World::new();
    let hello = world.hello();
    world.open(hello.clone());
    let (_, outputs) = world.open(hello);
    assert!(welcome(&outputs).is_some(), "{outputs:?}");
}

#[test]
fn a_clone_is_refused_while_the_real_one_lives_and_let_in_when_it_does_not_answer() {
    let mut world = World::new();
    let (first, _) = world.connect();
    let hello = Hello { ratchet_token: Some(uuid(66)), ..world.hello() };
    let (_, outputs) = world.open(hello.clone());
    assert!(refused(&outputs).unwrap().0.contains("is a copy of it"));
    assert!(has_note(&outputs, "two machines claim to be one agent"));
    // The live one answers the challenge.
    assert!(
        outputs
            .iter()
            .any(|o| matches!(o, Output::ToAgent { session, message: ToAgent::PictureWanted } if *session == first))
    );
    world.handle(Input::FromAgent { session: first, message: FromAgent::Picture(picture(Vec::new())) });
    assert!(world.wait(6).is_empty());
    // Once more, and it is silent.
    world.open(hello.clone());
    let outputs = world.wait(6);
    assert!(
        outputs.iter().any(|o| matches!(o, Output::CloseSession { session, .. } if *session == first)),
        "{outputs:?}"
    );
    let (_, outputs) = world.open(hello);
    assert!(welcome(&outputs).is_some());
}

#[test]
fn a_journal_behind_what_was_seen_launches_nothing_until_an_operator_decides() {
    let mut world = World::connected();
    world.close();
    let hello = Hello { journal_position: 50, ..world.hello() };
    let (_, outputs) = world.open(hello);
    assert!(welcome(&outputs).is_some() && has_note(&outputs, "until an operator decides"));
    let outputs = world.says(FromAgent::Picture(picture(Vec::new())));
    let [ToAllocator::Agent(book)] = &to_allocator(&outputs)[..] else { panic!("{outputs:?}") };
    assert!(!book.is_active);
    let agent = world.agent.clone();
    let outputs = world.order(&[], vec![task("t", "f", &agent, some(1, 1))]);
    assert!(statuses(&outputs)[0].message.as_ref().unwrap().contains("until an operator decides"));
    // The words tell the operator what to do.
    assert!(
        statuses(&outputs)[0].message.as_ref().unwrap().contains(&format!("`muster agents reactivate {agent}`")),
        "{outputs:?}"
    );
    let doubt = world.owner.doubt_of(&agent).unwrap();
    assert!(doubt.is_operators && doubt.why.contains("rolled back"), "{doubt:?}");
    // The operator trusts the agent, or deactivates and reactivates it.
    let mut reactivated = world;
    let mut world = World::connected();
    world.close();
    world.open(Hello { journal_position: 50, ..world.hello() });
    world.says(FromAgent::Picture(picture(Vec::new())));
    let outputs = world.handle(Input::SettleDoubt { agent_id: agent.clone() });
    let [ToAllocator::Agent(book)] = &to_allocator(&outputs)[..] else { panic!("{outputs:?}") };
    assert!(book.is_active && has_note(&outputs, "lets an agent launch again"));
    assert_eq!(world.owner.doubt_of(&agent), None);
    assert!(world.handle(Input::SettleDoubt { agent_id: agent.clone() }).is_empty(), "twice is once");
    // It is not behind any more when it comes again, and is when it is rolled back again.
    for (position, is_doubted) in [(60, false), (55, true)] {
        world.close();
        let (_, outputs) = world.open(Hello { journal_position: position, ..world.hello() });
        assert_eq!(has_note(&outputs, "until an operator decides"), is_doubted, "case: {position}");
    }
    let world = &mut reactivated;
    let mut changed = record(&agent);
    changed.is_deactivated = true;
    world.handle(Input::AgentAdmitted(stored(changed, 60)));
    let outputs = world.handle(Input::AgentAdmitted(stored(record(&agent), 61)));
    let [ToAllocator::Agent(book)] = &to_allocator(&outputs)[..] else { panic!("{outputs:?}") };
    assert!(book.is_active);
}

#[test]
fn a_launch_in_flight_is_sent_again_only_to_the_same_machine_with_the_same_disk() {
    for (name, journal_position, has_token, order_count, dropped) in [
        ("as it was", 100, true, 1, vec![]),
        ("a shorter journal", 50, true, 0, vec!["t"]),
        ("an older token", 100, false, 0, vec!["t"]),
    ] {
        let mut world = World::connected();
        world.launch("t");
        world.close();
        let again = world.hello_again();
        let ratchet_token = again.ratchet_token.filter(|_| has_token);
        world.open(Hello { journal_position, ratchet_token, ..again });
        let outputs = world.says(FromAgent::Picture(picture(Vec::new())));
        let is_dropped = |status: &&TaskStatus| status.state == TaskState::Dropped;
        let told: Vec<String> = statuses(&outputs).iter().filter(is_dropped).map(|it| it.task_id.to_string()).collect();
        // It may run on the first machine, or may have run in the time that the disk forgot.
        assert_eq!(
            (orders(&outputs).len(), told),
            (order_count, dropped.into_iter().map(String::from).collect()),
            "case: {name}"
        );
        // The next launch goes out under the next number.
        if journal_position == 100 {
            world.launch("next");
        }
    }
}

#[test]
fn a_lost_session_voids_grants_and_changes_no_task() {
    let mut world = World::connected();
    let task = world.launch("t");
    let agent = world.agent.clone();
    world.grants(vec![grant(2, "f", &agent, some(500, 500))]);
    let outputs = world.close();
    let [ToAllocator::Agent(book)] = &to_allocator(&outputs)[..] else { panic!("{outputs:?}") };
    assert!(!book.is_active && book.grants.is_empty() && book.used.len() == 1);
    assert_eq!(book.shard, (ShardId(0), FENCE), "so that a deposed owner's word is known for one");
    assert!(statuses(&outputs).is_empty());
    let view = world.owner.view();
    let shown = &view.agents[&agent];
    assert!(shown.offered.is_empty() && shown.tasks.len() == 1);
    assert!(matches!(shown.presence, Presence::Disconnected { .. }));
    // Twice is once.
    assert!(world.close().is_empty());
    let key = (fid("f"), task.id.clone());
    assert_eq!(world.owner.view().agents[&agent].tasks[&key].state, TaskState::Staging);
}

#[test]
fn a_welcomed_agent_without_a_picture_is_let_go() {
    let mut world = World::new();
    let hello = world.hello();
    world.open(hello);
    let outputs = world.wait(75);
    assert!(outputs.iter().any(|o| matches!(o, Output::CloseSession { .. })), "{outputs:?}");
}

#[test]
fn other_totals_void_the_open_grants() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    world.grants(vec![grant(1, "f", &agent, some(500, 500))]);
    let outputs = world.says(FromAgent::InfoChanged(info(some(200, 200))));
    assert_eq!(closed(&outputs)[0].reason, Some(RescindReason::AgentChanged));
    assert!(matches!(&to_allocator(&outputs)[1], ToAllocator::Agent(book) if book.info.total == some(200, 200)));
}

#[test]
fn reports_show_and_older_ones_do_not() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    world.says(FromAgent::Report(Report { sequence: 2, mem_used_kib: 7, ..Report::default() }));
    let before = world.owner.view();
    world.says(FromAgent::Report(Report { sequence: 1, mem_used_kib: 8, ..Report::default() }));
    let view = world.owner.view();
    assert!(std::sync::Arc::ptr_eq(&before, &view), "nothing changed, so the picture is the same");
    assert_eq!(view.agents[&agent].report.as_ref().unwrap().1.mem_used_kib, 7);
    world.handle(Input::PeerMoved { session: world.session(), peer: "10.0.0.9:9".into() });
    assert_eq!(world.owner.view().agents[&agent].peer.as_deref(), Some("10.0.0.9:9"));
}
