//! What must hold after each step, and what must hold once faults have stopped.

use crate::agent::{Container, Machine, Process};
use crate::world::World;
use muster_model::resource::Resources;
use muster_model::task::TaskState;

/// Checks every invariant; panics with how to replay.
pub fn after_step(world: &mut World) {
    let replay = format!("at step {} — replay with seed {:#x}", world.steps, world.seed);
    for machine in &world.machines {
        ledger(machine, &replay);
        started_once(machine, &replay);
    }
    for framework in &world.frameworks {
        for (task_id, known) in &framework.tasks {
            states_in_order(task_id.as_str(), &known.states, &replay);
        }
    }
    // The picture is rebuilt on demand: looking at each step would only test the view.
    if world.steps.is_multiple_of(16) {
        book(world, &replay);
    }
}

/// S1 on the machine itself: what runs never needs more than there is.
fn ledger(machine: &Machine, replay: &str) {
    let mut free = machine.info.total.clone();
    let holds = |container: &&Container| !matches!(container.process, Process::Ended(_));
    for container in machine.containers.values().filter(holds) {
        let taken = free.subtract(&container.task.resources);
        assert!(taken.is_ok(), "sim: {} runs more than it has ({taken:?}) {replay}", machine.id);
    }
}

fn started_once(machine: &Machine, replay: &str) {
    for ((framework_id, task_id), count) in &machine.starts {
        assert!(*count <= 1, "sim: {task_id} of {framework_id} was started {count} times on {} {replay}", machine.id);
    }
}

/// S1 in the book: used + offered never passes the total.
fn book(world: &mut World, replay: &str) {
    for agent in world.owner_views().iter().flat_map(|view| view.agents.values()) {
        let mut free: Resources = agent.info.total.clone();
        for amount in agent.used.values().chain(agent.offered.values().map(|(_, _, amount)| amount)) {
            let taken = free.subtract(amount);
            assert!(taken.is_ok(), "sim: offered + used > total on {} ({taken:?}) {replay}", agent.id);
        }
    }
}

/// A framework never hears that a task lives after it heard by update that it ended for good.
fn states_in_order(task_id: &str, states: &[TaskState], replay: &str) {
    let certain = |state: &TaskState| {
        matches!(
            state,
            TaskState::Finished | TaskState::Failed | TaskState::Killed | TaskState::Error | TaskState::Dropped
        )
    };
    if let Some(end) = states.iter().position(certain) {
        let later = states.get(end + 1..).unwrap_or_default();
        assert!(
            later.iter().all(|state| matches!(state, TaskState::Lost | TaskState::Gone | TaskState::Unknown)),
            "sim: {task_id} went on after its end: {states:?} {replay}"
        );
    }
}

/// Once faults have stopped and time has passed: every task that was asked for has ended, and nothing is left over.
pub fn at_rest(world: &mut World) {
    let replay = format!("at rest after step {} — replay with seed {:#x}", world.steps, world.seed);
    for framework in &world.frameworks {
        let open: Vec<_> =
            framework.live_tasks().map(|id| (id, framework.tasks.get(id).map(|known| known.states.clone()))).collect();
        assert!(open.is_empty(), "sim: {} never heard the end of {open:?} {replay}", framework.name);
    }
    for machine in &world.machines {
        assert!(machine.containers.is_empty(), "sim: {} keeps {:?} {replay}", machine.id, machine.containers.keys());
    }
    let views = world.owner_views();
    assert!(!views.is_empty(), "sim: no control plane {replay}");
    let seen: usize = views.iter().map(|view| view.agents.len()).sum();
    assert_eq!(seen, world.machines.len(), "sim: each agent has one owner {replay}");
    for agent in views.iter().flat_map(|view| view.agents.values()) {
        assert!(
            agent.used.values().all(Resources::is_empty),
            "sim: the book of {} still has {:?} {replay}",
            agent.id,
            agent.used
        );
        assert!(agent.tasks.is_empty(), "sim: the picture of {} still has {:?} {replay}", agent.id, agent.tasks.keys());
    }
}
