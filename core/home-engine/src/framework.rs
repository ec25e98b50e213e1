//! One framework as its home has it.

use crate::accept::Launch;
use crate::io::ConnectionId;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::fence::Fence;
use muster_model::framework::FrameworkInfo;
use muster_model::node_message::{NodeMessage, ToAllocator};
use muster_model::offer::Offer;
use muster_model::record::FrameworkRecord;
use muster_model::view::FrameworkView;
use muster_model::{AgentId, Duration, NodeId, OfferId, Role, TaskId, Timestamp, Uuid, WallTime};

/// Whether its client is here.
#[derive(Clone, Debug)]
pub(crate) enum Session {
    /// Known from the store only: it has not come back since this home started.
    Recovered {
        /// When it is removed; set if its earlier home saw the client leave.
        removal_due: Option<Timestamp>,
    },
    /// Its stream is open.
    Connected {
        /// The stream.
        connection: ConnectionId,
        /// What every call must carry.
        stream_id: Uuid,
    },
    /// This home saw its client leave.
    Disconnected {
        /// When it is removed.
        removal_due: Timestamp,
        /// The same for the store, where it outlives this process.
        deadline: WallTime,
    },
}

/// A call that waits for the owners' answers to a new home.
#[derive(Clone, Debug)]
pub(crate) enum Deferred {
    /// An ACCEPT whose offers are consumed.
    Launch(Launch),
    /// A KILL.
    Kill { task_id: TaskId, agent_id: Option<AgentId>, grace: Option<Duration> },
    /// A RECONCILE.
    Reconcile(Vec<(TaskId, Option<AgentId>)>),
}

/// A new home waits for its owners.
#[derive(Clone, Debug)]
pub(crate) struct Fencing {
    /// Owners that have not answered.
    pub(crate) silent: BTreeSet<NodeId>,
    /// What waits for them, in order.
    pub(crate) deferred: VecDeque<Deferred>,
}

/// Whose answer a question about a task waits for.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// The owner of the task's agent.
    One,
    /// All owners; these have not answered.
    All { silent: BTreeSet<NodeId>, is_undecided: bool },
}

/// A question about one task.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) task_id: TaskId,
    pub(crate) agent_id: Option<AgentId>,
    pub(crate) asked: Asked,
    pub(crate) since: Timestamp,
}

/// One framework.
#[derive(Clone, Debug)]
pub(crate) struct Framework {
    /// As the store has it.
    pub(crate) record: FrameworkRecord,
    /// The store's revision of the record.
    pub(crate) revision: u64,
    pub(crate) session: Session,
    /// Grows with each change of what it wants.
    pub(crate) session_version: u64,
    /// Offers of an older session version are given back: it was forbidden something since.
    pub(crate) offers_min_version: u64,
    pub(crate) suppressed: BTreeSet<Role>,
    /// Its active tasks.
    pub(crate) tasks: BTreeMap<TaskId, AgentId>,
    /// Active tasks that were told to end, with the grace of the last call.
    pub(crate) kills: BTreeMap<TaskId, Option<Duration>>,
    /// Active tasks whose end was told, with the update that is not acknowledged yet.
    pub(crate) ended: BTreeMap<TaskId, Option<Uuid>>,
    /// Its open offers.
    pub(crate) offers: BTreeMap<OfferId, Arc<Offer>>,
    /// The last order's sequence within the home fence.
    pub(crate) order_sequence: u64,
    pub(crate) fencing: Option<Fencing>,
    pub(crate) questions: BTreeMap<u64, Question>,
}

impl Framework {
    /// A framework as the store has it, without a client.
    pub(crate) fn recovered(record: FrameworkRecord, revision: u64) -> Self {
        Self {
            record,
            revision,
            session: Session::Recovered { removal_due: None },
            session_version: 1,
            offers_min_version: 1,
            suppressed: BTreeSet::new(),
            tasks: BTreeMap::new(),
            kills: BTreeMap::new(),
            ended: BTreeMap::new(),
            offers: BTreeMap::new(),
            order_sequence: 0,
            fencing: None,
            questions: BTreeMap::new(),
        }
    }

    pub(crate) fn info(&self) -> &Arc<FrameworkInfo> {
        &self.record.info
    }

    pub(crate) fn fence(&self) -> Fence {
        self.record.home.fence
    }

    /// Its stream and what every call must carry, if it is connected.
    pub(crate) fn stream(&self) -> Option<(ConnectionId, Uuid)> {
        match &self.session {
            Session::Connected { connection, stream_id } => Some((*connection, *stream_id)),
            Session::Recovered { .. } | Session::Disconnected { .. } => None,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.stream().is_some()
    }

    /// When it is removed unless its client comes back.
    pub(crate) fn removal_due(&self) -> Option<Timestamp> {
        match &self.session {
            Session::Recovered { removal_due } => *removal_due,
            Session::Connected { .. } => None,
            Session::Disconnected { removal_due, .. } => Some(*removal_due),
        }
    }

    /// The task is active no more.
    pub(crate) fn forget_task(&mut self, task_id: &TaskId) {
        self.tasks.remove(task_id);
        self.kills.remove(task_id);
        self.ended.remove(task_id);
    }

    /// What it wants was changed: offers made before are still good.
    pub(crate) fn wants_more(&mut self) {
        self.session_version = self.session_version.saturating_add(1);
    }

    /// It was forbidden something: offers made before are given back.
    pub(crate) fn wants_less(&mut self) {
        self.wants_more();
        self.offers_min_version = self.session_version;
    }

    /// What the allocator must know of it.
    pub(crate) fn demand(&self) -> NodeMessage {
        let session_version = match &self.session {
            // Nobody will speak under this fence again, and it is not known how far its home had counted.
            Session::Recovered { .. } => u64::MAX,
            Session::Connected { .. } | Session::Disconnected { .. } => self.session_version,
        };
        NodeMessage::ToAllocator(ToAllocator::Demand {
            info: self.record.info.clone(),
            home_fence: self.fence(),
            session_version,
            suppressed: self.suppressed.clone(),
            is_active: self.is_connected(),
        })
    }

    pub(crate) fn view(&self) -> FrameworkView {
        FrameworkView {
            info: self.record.info.clone(),
            is_active: self.is_connected(),
            is_connected: self.is_connected(),
            is_recovered: match &self.session {
                Session::Recovered { .. } => true,
                Session::Connected { .. } | Session::Disconnected { .. } => false,
            },
            registered: self.record.registered,
            reregistered: self.record.reregistered,
            unregistered: None,
            suppressed: self.suppressed.iter().cloned().collect(),
            offers: self.offers.clone(),
            failover_deadline: self.record.failover_deadline,
        }
    }
}
