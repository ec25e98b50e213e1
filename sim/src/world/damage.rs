//! What people do to agents: machines are copied, disks set back; and operators who look at what is in doubt.

use super::{Coming, World};
use muster_model::agent_message::Hello;
use muster_model::fence::Fence;
use muster_model::record::Record;
use muster_model::store_op::{Compare, Key, StoreOp, Write};
use muster_model::{AgentId, Duration};
use muster_node_engine::io::Note;
use muster_owner_engine::io::{NOTE_DOUBT, NOTE_DOUBT_SETTLED, SessionId};
use std::collections::{BTreeMap, BTreeSet};

/// Copies of agents that a world makes. One more is not made.
const CLONES_MAX: usize = 3;

/// What the world remembers of copied machines and old disks.
#[derive(Debug, Default)]
pub struct Damage {
    /// Copies of machines that were started.
    pub clones: usize,
    /// How often an agent was told that it is a copy, or that its disk is old.
    pub refused_copies: u64,
    /// Disks that were set back.
    pub rollbacks: u64,
    /// How often an owner stopped launches on an agent whose disk is older than what it had shown before.
    pub doubts: u64,
    /// How far the journal was that an agent showed, by session.
    shown: BTreeMap<SessionId, u64>,
    /// How far it was at most, as an owner knows that let it in, and how far it was when it was let in last.
    seen: BTreeMap<(AgentId, Fence), (u64, u64)>,
    /// Agents on which their owner, under this fence, may launch nothing until somebody has looked.
    pub(crate) doubted: BTreeSet<(AgentId, Fence)>,
    /// Agents that an operator has let go on.
    settled: BTreeSet<AgentId>,
}

impl World {
    /// A second machine starts with what is on the first one's disk, while that one lives on.
    pub(super) fn clone_agent(&mut self, index: usize) {
        if self.damage.clones >= CLONES_MAX {
            return;
        }
        let Some(machine) = self.machines.get_mut(index).filter(|machine| !machine.is_cloned) else { return };
        let clone = machine.cloned();
        self.damage.clones += 1;
        let machine = self.machines.len();
        self.machines.push(clone);
        self.soon(1000, Coming::AgentStarts { machine });
        let length = Duration::from_millis(500 + self.rng.below(120_000));
        self.after(length, Coming::CopyRemoved { machine });
    }

    /// An operator ends the copy, and all that it runs.
    pub(super) fn remove_copy(&mut self, index: usize) {
        self.crash_agent(index);
        if let Some(machine) = self.machines.get_mut(index) {
            machine.is_removed = true;
            machine.containers.clear();
        }
    }

    pub(super) fn remove_copies(&mut self) {
        for index in self.machines.len().saturating_sub(self.damage.clones)..self.machines.len() {
            self.remove_copy(index);
        }
    }

    /// Copies a machine's disk, or sets it back if there is a copy. What runs on the machine runs on.
    pub(super) fn copy_or_roll_back(&mut self, index: usize) {
        let Some(machine) = self.machines.get_mut(index).filter(|machine| !machine.is_removed) else { return };
        let Some(copy) = machine.copy.take() else { return machine.copy_disk() };
        let is_down = machine.engine.is_none();
        self.crash_agent(index);
        self.damage.rollbacks += 1;
        if let Some(machine) = self.machines.get_mut(index) {
            machine.roll_back(copy);
        }
        if is_down {
            // A start is on its way.
            return;
        }
        self.soon(2000, Coming::AgentStarts { machine: index });
    }

    pub(super) fn note_hello(&mut self, session: SessionId, hello: &Hello) {
        self.damage.shown.insert(session, hello.journal_position);
    }

    /// An owner lets an agent in: if it knows of a journal that was longer, it must launch nothing there.
    pub(super) fn note_welcome(&mut self, session: SessionId, fence: Fence) {
        let Some(shown) = self.damage.shown.remove(&session) else { return };
        let Some(ends) = self.live_sessions.get(&session) else { return };
        let Some(machine) = self.machines.get(ends.machine) else { return };
        let key = (machine.id.clone(), fence);
        let (seen, last) = self.damage.seen.entry(key.clone()).or_default();
        if shown < *seen {
            self.damage.doubts += 1;
            self.damage.doubted.insert(key);
        }
        (*seen, *last) = (shown.max(*seen), shown);
    }

    /// An owner waits for an operator: one comes after a while. What the operator said may be heard much later.
    pub(super) fn hear_note(&mut self, note: &Note) {
        let Some(agent_id) = &note.agent_id else { return };
        match note.what {
            NOTE_DOUBT => {
                self.soon(20_000, Coming::OperatorLooks { agent_id: agent_id.clone(), is_stopped: true });
            }
            NOTE_DOUBT_SETTLED if self.damage.settled.contains(agent_id) => {
                self.damage.doubted.retain(|(doubted, _)| doubted != agent_id);
                // The operator trusts the disk as it is now.
                for ((of, _), (seen, last)) in &mut self.damage.seen {
                    if of == agent_id {
                        *seen = *last;
                    }
                }
            }
            _ => {}
        }
    }

    /// First the agent is stopped, then let go on: that settles the doubt.
    pub(super) fn operator_looks(&mut self, agent_id: AgentId, is_stopped: bool) {
        let again = Coming::OperatorLooks { agent_id: agent_id.clone(), is_stopped };
        if self.is_store_away {
            return self.soon(2000, again);
        }
        let key = Key::Agent(agent_id.clone());
        let Some(stored) = self.store.get(&key) else { return };
        let Record::Agent(mut record) = stored.record else { return };
        record.is_deactivated = is_stopped;
        let op = StoreOp {
            compares: vec![Compare { key: key.clone(), revision: Some(stored.revision) }],
            writes: vec![Write::Put(key, Record::Agent(record))],
        };
        if self.write(&op).is_err() {
            return self.soon(2000, again);
        }
        if is_stopped {
            self.soon(3000, Coming::OperatorLooks { agent_id, is_stopped: false });
        } else {
            self.damage.settled.insert(agent_id);
        }
    }
}
