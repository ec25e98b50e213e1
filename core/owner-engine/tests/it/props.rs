//! Laws under random interleavings of agents, a home, an allocator, a store, time and crashes.
//!
//! After each step: of each agent, used + offered + free = total (the book checks itself in debug builds, and the
//! allocator's figures agree with it); what is offered does not run; no task is active twice; nobody sees a mark before
//! the store has it. In the end: every update was heard once acknowledged, in order; every order was decided.

use crate::model::Cluster;
use crate::world::*;
use muster_model::agent_message::FromAgent;
use muster_model::fence::Fence;
use muster_model::node_message::ToOwner;
use muster_model::store_op::PersistError;
use muster_model::*;
use muster_owner_engine::io::*;
use proptest::prelude::*;

const AGENTS: usize = 3;

#[derive(Clone, Copy, Debug)]
struct Step {
    what: u8,
    agent: usize,
    number: u64,
}

fn step() -> impl Strategy<Value = Step> {
    (0..44_u8, 0..AGENTS, any::<u16>()).prop_map(|(what, agent, number)| Step {
        what,
        agent,
        number: u64::from(number),
    })
}

fn perform(cluster: &mut Cluster, Step { what, agent, number }: Step) {
    let framework = if number % 2 == 0 { "f0" } else { "f1" };
    match what {
        0..=5 => cluster.deliver_up(agent),
        6..=11 => cluster.deliver_down(agent),
        12..=14 => cluster.connect(agent),
        15 => cluster.disconnect(agent),
        16..=19 => cluster.grant_some(agent, framework, number),
        20..=22 => cluster.use_offer(number, number % 4),
        23..=27 => cluster.deliver_from_home(),
        28..=30 => cluster.advance_task(agent, number),
        31 => cluster.kill_some(number),
        32 | 33 => cluster.acknowledge_one(),
        34 => cluster.wait(number % 3000),
        35 => cluster.answer_write(number),
        36 if number % 4 == 0 => cluster.wait(76_000),
        36 => cluster.answer_write(3),
        37 if number % 8 == 0 => cluster.crash_owner(number % 16 == 0),
        37 => cluster.fence_framework(framework),
        38 if number % 16 == 0 => cluster.remove_framework(framework),
        38 => repeat(cluster),
        39 if number % 4 == 0 => cluster.move_shard(),
        39 => cluster.ask_books(),
        40 => cluster.drain_shard(number % 3 == 0),
        41 if number % 4 == 0 => cluster.cut_home_link(),
        41 => cluster.drain_shard(true),
        _ => disturb(cluster, number),
    }
}

/// A message of the home comes twice.
fn repeat(cluster: &mut Cluster) {
    if let Some(message) = cluster.from_home.front().cloned() {
        cluster.input(Input::FromNode(message));
        cluster.deliver_from_home();
    }
}

/// What nobody should say.
fn disturb(cluster: &mut Cluster, number: u64) {
    let (session, agent) = (SessionId(900_000 + number), aid("nobody"));
    let task = task("x", "f0", &agent, some(1, 1));
    let status = update(&task, muster_model::task::TaskState::Running, muster_model::task::TaskState::Running, uuid(9));
    let old = Fence::default();
    let input = match number % 12 {
        0 => Input::SessionClosed { session, why: "?".into() },
        1 => Input::FromAgent { session, message: FromAgent::Updates(vec![status]) },
        2 => Input::FromNode(ToOwner::Grants {
            allocator_fence: old,
            grants: vec![grant(1, "f0", &agent, some(1, 1)).into()],
        }),
        3 => Input::FromNode(ToOwner::Grants {
            allocator_fence: ALLOCATOR,
            grants: vec![grant(1, "zz", &agent, some(1, 1)).into()],
        }),
        4 => Input::FromNode(ToOwner::Revoke { allocator_fence: ALLOCATOR, offers: vec![(agent, oid(700_000))] }),
        5 => Input::FromNode(ToOwner::ReconcileAll { framework_id: fid("zz"), home_fence: old }),
        6 => Input::Persisted { seq: 900_000 + number, revision: 1 },
        7 => Input::PersistFailed { seq: 900_000 + number, error: PersistError::Full { why: "?".into() } },
        8 => Input::ShardLost { shard: ShardId(77), now_at: None },
        9 => Input::FromNode(ToOwner::Acknowledge {
            framework_id: fid("f0"),
            home_fence: old,
            agent_id: agent,
            task_id: tid("x"),
            uuid: uuid(1),
        }),
        10 => Input::PeerMoved { session, peer: "?".into() },
        _ => Input::AgentAdmitted(stored(record(&cluster.agents[0].id), 0)),
    };
    cluster.input(input);
}

/// Runs the steps, lets everything arrive, and checks what must be true in the end.
fn run(steps: &[Step]) -> Cluster {
    let mut cluster = Cluster::new(AGENTS);
    for agent in 0..AGENTS {
        cluster.connect(agent);
    }
    for step in steps {
        perform(&mut cluster, *step);
    }
    cluster.settle();
    let undecided: Vec<_> = cluster
        .home
        .undecided
        .iter()
        .filter(|key| !cluster.agents.iter().any(|agent| agent.tasks.contains_key(*key)))
        .collect();
    assert!(undecided.is_empty(), "orders without an outcome: {undecided:?}");
    let view = cluster.owner.view();
    for agent in &cluster.agents {
        let shown = &view.agents[&agent.id];
        let runs: Vec<_> = agent.tasks.keys().collect();
        let shows: Vec<_> = shown.tasks.keys().collect();
        assert_eq!(runs, shows, "the owner shows what runs on {}", agent.id);
        let used = shown.used.values().fold(resource::Resources::new(), |mut sum, amount| {
            sum.add(amount).unwrap();
            sum
        });
        assert_eq!(used, agent.in_use(), "the owner charges what runs on {}", agent.id);
        assert!(agent.all_told(), "S4: all updates of {} were acknowledged", agent.id);
        for (key, told) in agent.told() {
            let heard = cluster.home.heard.get(&key).cloned().unwrap_or_default();
            let order: Vec<_> = heard.iter().filter(|uuid| told.contains(uuid)).collect();
            assert_eq!(order, told.iter().collect::<Vec<_>>(), "S4: updates of {key:?} were heard in order");
        }
    }
    cluster
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_laws_hold_in_any_order(steps in proptest::collection::vec(step(), 1..250)) {
        run(&steps);
    }
}

#[test]
fn the_random_runs_do_launch_and_end_tasks() {
    let mut rng = muster_model::Rng::new(5);
    let mut launched = 0;
    for _ in 0..10 {
        let steps: Vec<_> = (0..400)
            .map(|_| Step {
                what: u8::try_from(rng.below(44)).unwrap(),
                agent: usize::try_from(rng.below(3)).unwrap(),
                number: rng.below(65_536),
            })
            .collect();
        let mut cluster = run(&steps);
        launched += cluster.home.heard.len();
        assert!(cluster.owner.view().agents.len() == AGENTS);
    }
    assert!(launched > 15, "only {launched} tasks were heard of: the laws were not tested");
}
