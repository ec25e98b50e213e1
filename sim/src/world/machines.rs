//! The machines' side of the world: syncs of disks, processes that start and end.

use super::faults::{Moment, Sabotage};
use super::{Coming, Synced, World};
use crate::agent::Process;
use muster_agent_engine::io as agent;
use muster_model::status::Exit;
use muster_model::{ContainerId, Duration};
use std::sync::Arc;

impl World {
    /// A sync of an agent's disk ends, well or not.
    pub(super) fn sync_ends(&mut self, index: usize, incarnation: u64, seq: u64, what: Synced) {
        let now = self.now();
        let Some(machine) = self.machines.get_mut(index) else { return };
        if machine.incarnation != incarnation || machine.engine.is_none() {
            return;
        }
        let trap = self.traps.agent_sync.take();
        if trap == Some(Moment::Before) {
            return self.crash_agent(index);
        }
        if machine.disk_full_until > now.mono.0 {
            return machine.handle(agent::Input::PersistFailed { seq, why: Arc::from("no space left on device") }, now);
        }
        match what {
            Synced::Entries(entries) => machine.synced(entries),
            Synced::Identity(identity) => machine.identity_synced(identity),
        }
        match trap {
            Some(Moment::After) => self.crash_agent(index),
            // It was told before.
            _ if self.sabotage == Some(Sabotage::AnswersBeforeSync) => {}
            Some(Moment::Before) | None => {
                let position = machine.journal.len() as u64;
                machine.handle(agent::Input::JournalGrew { position }, now);
                machine.handle(agent::Input::Persisted { seq }, now);
            }
        }
    }

    pub(super) fn started(&mut self, index: usize, incarnation: u64, container_id: ContainerId) {
        let now = self.now();
        let length = Duration::from_millis(self.rng.below(20_000));
        let exit = match self.rng.below(4) {
            0 => Exit::Code(3),
            1 => Exit::Signal(11),
            _ => Exit::Code(0),
        };
        let Some(machine) = self.machines.get_mut(index) else { return };
        let Some(container) = machine.containers.get_mut(&container_id) else { return };
        if container.process != Process::Starting {
            return;
        }
        container.process = Process::Running;
        if machine.incarnation == incarnation {
            let input = agent::Input::ContainerStarted { container_id: container_id.clone(), supervisor_pid: 1 };
            machine.handle(input, now);
        }
        self.after(length, Coming::Exits { machine: index, container_id, exit });
    }

    pub(super) fn exits(&mut self, index: usize, container_id: ContainerId, exit: Exit) {
        let Some(machine) = self.machines.get_mut(index) else { return };
        let Some(container) = machine.containers.get_mut(&container_id) else { return };
        if matches!(container.process, Process::Ended(_)) {
            return;
        }
        container.process = Process::Ended(exit);
        let incarnation = machine.incarnation;
        self.soon(5, Coming::ExitSeen { machine: index, incarnation, container_id });
    }
}
