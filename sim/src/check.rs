//! What must hold after each step, and what must hold once faults have stopped.

use crate::agent::{Container, Machine, Process};
use crate::framework::Framework;
use crate::world::{Damage, SHARD_COUNT, World};
use muster_model::fence::Fence;
use muster_model::record::{IdentityRecord, JournalEntry};
use muster_model::resource::Resources;
use muster_model::status::TaskStatus;
use muster_model::task::{Task, TaskState};
use muster_model::{AgentId, Duration, OfferId, ShardId, TaskId, Uuid};
use std::collections::{BTreeMap, BTreeSet};

/// How long a node that runs may not know that a shard is its own.
const IDLE_MAX: Duration = Duration::from_secs(20);

/// Checks every invariant; panics with how to replay.
pub fn after_step(world: &mut World) {
    let replay = format!("at step {} — replay with seed {:#x}", world.steps, world.seed);
    for machine in &world.machines {
        s1_what_runs_fits_the_machine(machine, &replay);
    }
    if world.steps.is_multiple_of(8) {
        s5_a_task_is_started_once(world, &replay);
        s4_updates_come_in_order(world, &replay);
    }
    for framework in &world.frameworks {
        for (task_id, known) in &framework.tasks {
            states_in_order(world, task_id, &known.states, &replay);
        }
    }
    // The picture is rebuilt on demand: looking at each step would only test the view.
    if world.steps.is_multiple_of(16) {
        s1_what_is_offered_and_used_fits_the_agent(world, &replay);
    }
    if world.steps.is_multiple_of(64) {
        s3_the_named_owner_acts(world, &replay);
    }
}

/// S1 on the machine itself: what runs never needs more than there is.
fn s1_what_runs_fits_the_machine(machine: &Machine, replay: &str) {
    let mut free = machine.info.total.clone();
    let holds = |container: &&Container| !matches!(container.process, Process::Ended(_));
    for container in machine.containers.values().filter(holds) {
        let taken = free.subtract(&container.task.resources);
        assert!(taken.is_ok(), "sim: {} runs more than it has ({taken:?}) {replay}", machine.id);
    }
}

/// S2: an order counts only under the highest fence that the disk ever had, over all runs of the agent.
pub fn s2_only_the_highest_fence_is_obeyed(machine: &Machine, entries: &[JournalEntry], replay: &str) {
    for entry in entries {
        if let JournalEntry::OrderFloor { fence, sequence } = entry {
            let highest = machine.highest_fence;
            assert!(
                *fence >= highest,
                "sim: {} took order {sequence} of {fence}, below {highest} {replay}",
                machine.id
            );
        }
    }
}

/// S2: an agent obeys no fence that the store did not give to an owner of its shard.
pub fn s2_a_fence_is_the_stores(machine: &Machine, identity: &IdentityRecord, is_given: bool, replay: &str) {
    let fence = identity.highest_fence;
    assert!(
        is_given || fence == Fence::default(),
        "sim: {} obeys {fence}, which the store never gave {replay}",
        machine.id
    );
    assert!(fence >= machine.highest_fence, "sim: {} goes back to {fence} {replay}", machine.id);
}

/// S4, promise 3: an update that a framework hears, and acknowledges, is on its agent's disk.
pub fn s4_what_is_told_was_journalled(world: &World, status: &TaskStatus) {
    let (Some(uuid), Some(agent_id)) = (status.uuid, &status.agent_id) else { return };
    // An agent and its copies speak with one name.
    let has = |machine: &Machine| machine.updates.get(&status.task_id).is_some_and(|synced| synced.contains(&uuid));
    let is_there = world.machines.iter().any(|machine| machine.id == *agent_id && has(machine));
    assert!(
        is_there,
        "sim: {agent_id} told {:?} of {}, which its disk does not have at step {} — replay with seed {:#x}",
        status.state, status.task_id, world.steps, world.seed
    );
}

/// S4: each update comes until it is acknowledged, and the next one after that.
fn s4_updates_come_in_order(world: &World, replay: &str) {
    for (task_id, known) in world.frameworks.iter().flat_map(|framework| &framework.tasks) {
        if known.heard.is_empty() {
            continue;
        }
        let machine = world.machines.iter().find(|machine| machine.updates.contains_key(task_id));
        let synced = machine.and_then(|machine| machine.updates.get(task_id));
        let is_prefix = synced.is_some_and(|synced| match machine {
            Some(machine) if machine.is_cloned => true,
            // What it forgot was perhaps never told, and is told again under another number.
            Some(machine) if machine.was_rolled_back => is_part_in_order(&known.heard, synced),
            Some(_) | None => synced.starts_with(&known.heard),
        });
        assert!(is_prefix, "sim: {task_id}: heard {:?} of {synced:?} {replay}", known.heard);
    }
}

fn is_part_in_order(part: &[Uuid], whole: &[Uuid]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|uuid| rest.any(|other| other == uuid))
}

/// S5, promise 1: a task is started at most once, wherever. A copy of a machine may start what the first one did: nobody
/// can tell the two apart while they take turns.
fn s5_a_task_is_started_once(world: &World, replay: &str) {
    let mut started = BTreeMap::new();
    for machine in &world.machines {
        for (key, count) in &machine.starts {
            let copies = machine.is_cloned.then_some(&machine.id);
            let (sum, first) = started.entry(key).or_insert((0_u32, copies));
            let is_copy_of_it = copies.is_some() && *first == copies;
            *sum = if is_copy_of_it { *count } else { *sum + count };
            assert!(*sum <= 1, "sim: {} of {} was started twice, last on {} {replay}", key.1, key.0, machine.id);
        }
    }
}

/// Promise 2: nothing ends a task that its framework did not ask to end.
pub fn p2_nothing_is_killed_unasked(asked: &BTreeSet<TaskId>, container: &Container, replay: &str) {
    let task_id = &container.task.id;
    assert!(asked.contains(task_id), "sim: {task_id} is killed though nobody asked for it {replay}");
}

/// S1 in the book: used + offered never passes the total. Where a disk was set back or a machine copied, the owner may
/// know of more than fits for a moment: then nothing is offered.
fn s1_what_is_offered_and_used_fits_the_agent(world: &mut World, replay: &str) {
    for agent in world.owner_views().iter().flat_map(|view| view.agents.values()) {
        let is_damaged = |machine: &Machine| machine.id == agent.id && machine.is_damaged();
        if agent.offered.is_empty() && world.machines.iter().any(is_damaged) {
            continue;
        }
        let mut free: Resources = agent.info.total.clone();
        for amount in agent.used.values().chain(agent.offered.values().map(|(_, _, amount)| amount)) {
            let taken = free.subtract(amount);
            assert!(taken.is_ok(), "sim: offered + used > total on {} ({taken:?}) {replay}", agent.id);
        }
    }
}

/// S3: whom the store names acts. Its process reads the swap's answer, or the news of it, or reads the record back, within
/// [`IDLE_MAX`] of a time in which it runs and the store answers.
fn s3_the_named_owner_acts(world: &mut World, replay: &str) {
    let now = world.now().mono;
    let before = std::mem::take(&mut world.idle);
    for (shard, fence, view) in world.named_owners() {
        let of_shard = |machine: &&Machine| ShardId::of(&machine.id, SHARD_COUNT) == shard;
        let acts_for = |id: &AgentId| view.agents.get(id).is_some_and(|agent| agent.shard.1 == fence);
        let Some(idle) = world.machines.iter().filter(of_shard).find(|machine| !acts_for(&machine.id)) else {
            continue;
        };
        let known = before.get(&shard).filter(|(known, _)| *known == fence);
        let since = known.map_or(now.0, |(_, since)| *since);
        assert!(
            now.0.saturating_sub(since) < IDLE_MAX.0,
            "sim: the owner of shard {shard} under {fence} does nothing for {} {replay}",
            idle.id
        );
        world.idle.insert(shard, (fence, since));
    }
}

/// A framework never hears that a task lives after it heard by update that it ended for good; but a disk that was
/// set back tells again what it remembers, and a copy what it knows.
fn states_in_order(world: &World, task_id: &TaskId, states: &[TaskState], replay: &str) {
    let certain = |state: &TaskState| {
        matches!(
            state,
            TaskState::Finished | TaskState::Failed | TaskState::Killed | TaskState::Error | TaskState::Dropped
        )
    };
    let vague = |state: &TaskState| matches!(state, TaskState::Lost | TaskState::Gone | TaskState::Unknown);
    let Some(end) = states.iter().position(certain) else { return };
    let later = states.get(end + 1..).unwrap_or_default();
    // A reconciliation may tell the same end again, once a restarted agent has shown it anew.
    if later.iter().all(|state| vague(state) || Some(state) == states.get(end)) {
        return;
    }
    let mut machines = world.machines.iter().filter(|machine| machine.updates.contains_key(task_id));
    let is_told_again = machines.next().is_some_and(Machine::is_damaged);
    assert!(is_told_again, "sim: {task_id} went on after its end: {states:?} {replay}");
}

/// An agent that came back with an older journal than its owner has seen launches nothing under that owner until an
/// operator has looked: what it forgot may run, or have run.
pub fn nothing_is_launched_in_doubt(machine: &Machine, damage: &Damage, task: &Task, replay: &str) {
    let key = (machine.id.clone(), machine.identity.highest_fence);
    // What a copy was ordered before the doubt is on its way.
    let is_in_doubt = !machine.is_cloned && damage.doubted.contains(&key);
    assert!(!is_in_doubt, "sim: {} starts {} though its disk is older than it was {replay}", machine.id, task.id);
}

/// S5 on one machine, whatever was done to its disk: no task lives there twice.
pub fn s5_one_container_of_a_task_lives(machine: &Machine, task: &Task, replay: &str) {
    let is_double = machine.containers.values().any(|other| {
        let is_same = other.task.id == task.id && other.task.framework_id == task.framework_id;
        is_same && !matches!(other.process, Process::Ended(_))
    });
    assert!(!is_double, "sim: {} of {} lives twice on {} {replay}", task.id, task.framework_id, machine.id);
}

/// Once faults have stopped and time has passed: every task that was asked for has ended, and nothing is left over.
/// Errors: what is left.
pub fn at_rest(world: &mut World) -> Result<(), String> {
    for framework in &world.frameworks {
        let open: Vec<_> =
            framework.live_tasks().map(|id| (id, framework.tasks.get(id).map(|known| known.states.clone()))).collect();
        if !open.is_empty() {
            let session = (framework.id.clone(), framework.connection, framework.stream_id.is_some(), framework.node);
            return Err(format!("{} {session:?} never heard the end of {open:?}", framework.name));
        }
    }
    for framework in &world.frameworks {
        let recorded = world.recorded_frameworks();
        let strangers =
            recorded.iter().filter(|(name, id)| **name == *framework.name && Some(id) != framework.id.as_ref());
        let strangers: Vec<_> = strangers.map(|(_, id)| id).collect();
        if strangers.len() > framework.given_up {
            return Err(format!(
                "{} was told that it is not registered, and {strangers:?} are in the store; it left {} times before the \
                 answer",
                framework.name, framework.given_up
            ));
        }
    }
    for machine in &world.machines {
        if !machine.containers.is_empty() {
            return Err(format!("{} keeps {:?}", machine.id, machine.containers.keys()));
        }
    }
    let whole = world.machines.iter().filter(|machine| !machine.is_damaged());
    for (task_id, synced) in whole.flat_map(|machine| &machine.updates) {
        let heard =
            world.frameworks.iter().find_map(|framework| framework.tasks.get(task_id)).map(|known| &known.heard);
        if heard != Some(synced) {
            return Err(format!("updates {synced:?} of {task_id} were journalled, {heard:?} were heard"));
        }
    }
    let views = world.owner_views();
    let seen: usize = views.iter().map(|view| view.agents.len()).sum();
    let count = world.machines.iter().filter(|machine| !machine.is_removed).count();
    if seen != count {
        return Err(format!("{count} machines, but owners have {seen}: each has one owner"));
    }
    for agent in views.iter().flat_map(|view| view.agents.values()) {
        if !agent.used.values().all(Resources::is_empty) {
            return Err(format!("the book of {} still has {:?}", agent.id, agent.used));
        }
        for (offer_id, (framework_id, ..)) in &agent.offered {
            let holds = |framework: &Framework| {
                framework.id.as_ref() == Some(framework_id) && framework.offers.contains_key(offer_id)
            };
            if !world.frameworks.iter().any(holds) {
                return Err(format!(
                    "offer {offer_id} on {} is held for {framework_id}, which does not have it",
                    agent.id
                ));
            }
        }
        if !agent.tasks.is_empty() {
            return Err(format!("the picture of {} still has {:?}", agent.id, agent.tasks.keys()));
        }
    }
    let is_granted = |offer_id: &OfferId| {
        views.iter().flat_map(|view| view.agents.values()).any(|agent| agent.offered.contains_key(offer_id))
    };
    for framework in &world.frameworks {
        if let Some(offer_id) = framework.offers.keys().find(|offer_id| !is_granted(offer_id)) {
            return Err(format!("{} has offer {offer_id}, which no book knows", framework.name));
        }
    }
    Ok(())
}
