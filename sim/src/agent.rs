//! A simulated machine: the real agent engine over a fake disk and fake containers that outlive its crashes.

use muster_agent_engine::AgentEngine;
use muster_agent_engine::io::{AgentConfig, ConnectionId, ContainerEnd, FoundContainer, FoundState, Input, Output};
use muster_model::agent::AgentInfo;
use muster_model::fence::Fence;
use muster_model::framework::FrameworkBrief;
use muster_model::record::{IdentityRecord, JournalEntry};
use muster_model::status::Exit;
use muster_model::task::Task;
use muster_model::time::Now;
use muster_model::{AgentId, ContainerId, Duration, FrameworkId, Rng, TaskId, Uuid};
use muster_owner_engine::io::SessionId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What became of a container's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// It is being started.
    Starting,
    /// It runs.
    Running,
    /// It ended so.
    Ended(Exit),
}

/// A container of a machine; it lives on when the agent crashes.
#[derive(Debug, Clone)]
pub struct Container {
    /// What it runs.
    pub task: Arc<Task>,
    /// Whose.
    pub framework: FrameworkBrief,
    /// Its process.
    pub process: Process,
}

/// One machine with its agent.
pub struct Machine {
    /// The agent's id.
    pub id: AgentId,
    /// What it says of itself.
    pub info: Arc<AgentInfo>,
    /// The engine; absent while the agent is down.
    pub engine: Option<AgentEngine>,
    /// What was synced to the journal.
    pub journal: Vec<JournalEntry>,
    /// What was synced to the identity file.
    pub identity: IdentityRecord,
    /// Connections that the agent asked for, with the session of those that stand.
    pub connections: BTreeMap<ConnectionId, Option<SessionId>>,
    /// The nodes' addresses.
    pub entries: Vec<Arc<str>>,
    /// Counts the agent's runs; answers to an older run are void.
    pub incarnation: u64,
    /// What runs on it.
    pub containers: BTreeMap<ContainerId, Container>,
    /// Its disk takes nothing before this moment.
    pub disk_full_until: u64,
    /// The highest fence that was ever synced here.
    pub highest_fence: Fence,
    /// Updates that were synced, per task and in order.
    pub updates: BTreeMap<TaskId, Vec<Uuid>>,
    /// How often a task was ever started here.
    pub starts: BTreeMap<(FrameworkId, TaskId), u32>,
    /// A copy of its disk as it once was.
    pub copy: Option<DiskCopy>,
    /// It shares its identity with a copy, or is one.
    pub is_cloned: bool,
    /// Its disk was set back once.
    pub was_rolled_back: bool,
    /// An operator has taken it away for good.
    pub is_removed: bool,
    boot_id: Uuid,
    rng: Rng,
}

/// What an agent's disk held for good at some moment.
#[derive(Debug, Clone)]
pub struct DiskCopy {
    /// How many entries the journal had.
    pub journal_length: usize,
    /// The identity file.
    pub identity: IdentityRecord,
}

impl Machine {
    /// A machine whose agent was admitted and is down.
    pub fn new(id: AgentId, info: Arc<AgentInfo>, rng: &Rng) -> Self {
        let mut rng = rng.fork(id.as_str());
        let identity = IdentityRecord {
            agent_id: id.clone(),
            highest_fence: Default::default(),
            ratchet_token: None,
            addresses: Vec::new(),
        };
        let boot_id = Uuid::from_random(rng.bytes16());
        Self {
            id,
            info,
            engine: None,
            journal: Vec::new(),
            identity,
            connections: BTreeMap::new(),
            entries: Vec::new(),
            incarnation: 0,
            containers: BTreeMap::new(),
            disk_full_until: 0,
            highest_fence: Fence::default(),
            updates: BTreeMap::new(),
            starts: BTreeMap::new(),
            copy: None,
            is_cloned: false,
            was_rolled_back: false,
            is_removed: false,
            boot_id,
            rng,
        }
    }

    /// A second machine with this one's disk: nothing runs on it, and it was booted by itself.
    pub fn cloned(&mut self) -> Self {
        self.is_cloned = true;
        let rng = Rng::new(self.rng.next_u64());
        Self {
            journal: self.journal.clone(),
            identity: self.identity.clone(),
            entries: self.entries.clone(),
            highest_fence: self.identity.highest_fence,
            is_cloned: true,
            ..Self::new(self.id.clone(), self.info.clone(), &rng)
        }
    }

    /// Whether people have done something to it that lets less hold.
    pub fn is_damaged(&self) -> bool {
        self.is_cloned || self.was_rolled_back
    }

    /// Takes a copy of the disk.
    pub fn copy_disk(&mut self) {
        self.copy = Some(DiskCopy { journal_length: self.journal.len(), identity: self.identity.clone() });
    }

    /// Sets the disk back to its copy. The agent must be down.
    pub fn roll_back(&mut self, copy: DiskCopy) {
        self.was_rolled_back = true;
        self.journal.truncate(copy.journal_length);
        self.identity = copy.identity;
        // What it forgot it may not be blamed for.
        self.highest_fence = self.identity.highest_fence;
    }

    /// Starts the agent: it reads its disk and finds its containers.
    pub fn start(&mut self, now: Now) {
        self.incarnation += 1;
        let config = AgentConfig {
            identity: self.identity.clone(),
            entries: self.entries.clone(),
            info: self.info.clone(),
            boot_id: self.boot_id,
            incarnation: self.incarnation,
            kill_grace: Duration::from_secs(3),
            update_retry: Duration::from_secs(10),
            update_retry_max: Duration::from_secs(600),
            reconnect: Duration::from_millis(250),
            reconnect_max: Duration::from_secs(2),
        };
        let mut engine = AgentEngine::new(config, Rng::new(self.rng.next_u64()));
        let found = |(container_id, container): (&ContainerId, &Container)| FoundContainer {
            container_id: container_id.clone(),
            task: container.task.clone(),
            framework: container.framework.clone(),
            state: match container.process {
                Process::Starting | Process::Running => FoundState::Alive { supervisor_pid: 1 },
                Process::Ended(exit) => FoundState::Ended(end_of(exit)),
            },
        };
        let input = Input::Recovered {
            entries: self.journal.clone(),
            journal_position: self.journal.len() as u64,
            journal_doubt: None,
            containers: self.containers.iter().map(found).collect(),
        };
        engine.handle(input, now);
        self.engine = Some(engine);
    }

    /// The disk has the entries for good.
    pub fn synced(&mut self, entries: Vec<JournalEntry>) {
        for entry in &entries {
            if let JournalEntry::Update(update) = entry
                && let Some(uuid) = update.status.uuid
            {
                self.updates.entry(update.status.task_id.clone()).or_default().push(uuid);
            }
        }
        self.journal.extend(entries);
    }

    /// The disk has the identity for good.
    pub fn identity_synced(&mut self, identity: IdentityRecord) {
        self.highest_fence = self.highest_fence.max(identity.highest_fence);
        self.identity = identity;
    }

    /// The agent is gone; its disk and containers stay.
    pub fn crash(&mut self) {
        self.engine = None;
        self.connections.clear();
    }

    /// Gives the agent an input; ignored while it is down.
    pub fn handle(&mut self, input: Input, now: Now) {
        if let Some(engine) = &mut self.engine {
            engine.handle(input, now);
        }
    }

    /// The agent's next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.engine.as_mut()?.poll_output()
    }
}

/// What a supervisor writes down.
pub fn end_of(exit: Exit) -> ContainerEnd {
    ContainerEnd { exit: Some(exit), out_of_memory: None, output_bytes: Some((0, 0)) }
}
