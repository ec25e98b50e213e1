//! One agent as its owner knows it: its record, its link, its book and tasks, and the orders on their way to it.
//!
//! The lifecycle: *recovered* (known from the store) or *disconnected* → *greeted* (Welcome sent, picture awaited) →
//! *connected* (orders flow) → *disconnected*; after long silence *unreachable*, by an operator *gone*. The last two are
//! states of the record and are written before anybody sees them.

use crate::book::Book;
use crate::doubt::Doubt;
use crate::engine::Why;
use crate::io::SessionId;
use crate::limits::ACKNOWLEDGED_REMEMBERED_MAX;
use crate::outbox::Outbox;
use crate::task::{Entry, TaskKey};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::agent::AgentInfo;
use muster_model::agent_message::{Order, OrderKind, Picture, Report, ToAgent};
use muster_model::fence::Fence;
use muster_model::node_message::{AgentBook, ToAllocator};
use muster_model::record::{Admission, AgentRecord};
use muster_model::view::{AgentView, Presence};
use muster_model::{AgentId, Duration, ShardId, Timestamp, Uuid, WallTime};

/// How an agent can be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Link {
    /// Not at all since the shard was taken.
    Recovered,
    /// Not any more.
    Disconnected { since: WallTime },
    /// It has a session and was welcomed; its picture is awaited.
    Greeted { session: SessionId, before: Presence },
    /// It has a session and sent its picture.
    Connected { session: SessionId },
}

/// Tells a clone or a rolled-back disk from the real agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ratchet {
    /// The token of the last Welcome.
    pub(crate) given: Uuid,
    /// What the agent showed to get it.
    pub(crate) shown: Option<Uuid>,
    /// The agent is known to have the new one, so the one shown is an old one.
    pub(crate) is_confirmed: bool,
}

/// An order that was sent and is not known to be taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Flight {
    pub(crate) what: OrderKind,
    /// Sent a second time: its refusal may have been lost, so the next picture decides.
    pub(crate) is_resent: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) record: AgentRecord,
    /// The store's revision of the record.
    pub(crate) revision: u64,
    pub(crate) shard: ShardId,
    /// Ours, for the agent's shard.
    pub(crate) fence: Fence,
    pub(crate) info: Arc<AgentInfo>,
    pub(crate) link: Link,
    /// Since when it is silent; meaningful while it has no session that reports.
    pub(crate) silent_since: (Timestamp, WallTime),
    pub(crate) peer: Option<Arc<str>>,
    /// Whether it sent a picture under our fence: before that, no negative answer is given for it.
    pub(crate) has_reported: bool,
    /// It had a session with the cluster before this one.
    pub(crate) is_back: bool,
    pub(crate) reregistered: Option<WallTime>,
    pub(crate) report: Option<(WallTime, Arc<Report>)>,
    pub(crate) book: Book,
    pub(crate) tasks: BTreeMap<TaskKey, Entry>,
    /// Tasks of removed frameworks that the agent was told to end: charged, and nothing else is said about them.
    pub(crate) ending: BTreeSet<TaskKey>,
    /// Wait before the last look at `ending`.
    pub(crate) ending_wait: Option<Duration>,
    pub(crate) flight: BTreeMap<u64, Flight>,
    last_sequence: u64,
    /// Kills that came while the agent was away.
    pub(crate) kills: BTreeSet<TaskKey>,
    acknowledged: BTreeMap<Uuid, TaskKey>,
    /// Their order, oldest first.
    acknowledged_order: VecDeque<Uuid>,
    /// Tasks that homes ask about, with the fence of the one that asks: answered once the agent has reported.
    pub(crate) undecided: BTreeMap<TaskKey, Fence>,
    /// Its shard is about to be handed over: nothing new is ordered or granted on it.
    pub(crate) is_draining: bool,
    pub(crate) ratchet: Option<Ratchet>,
    /// The session began with an older token than was given last: it is another machine, or its disk was set back.
    pub(crate) is_token_old: bool,
    /// Where the agent's journal was seen at the latest.
    pub(crate) journal_seen: u64,
    /// Where it ended at the beginning of its last session.
    pub(crate) journal_shown: u64,
    /// Why nothing is launched on it.
    pub(crate) doubt: Option<Doubt>,
    /// It was unreachable and its session's first picture is still to be applied.
    pub(crate) is_returning: bool,
    /// A picture that waits for the record to say that the agent is reachable again.
    pub(crate) held: Option<Picture>,
    /// The write of its record that is not answered yet.
    pub(crate) write: Option<(u64, AgentRecord)>,
    /// When it must be looked at again, and why.
    pub(crate) alarms: BTreeMap<Why, Timestamp>,
    /// A picture was asked for on this session and has not come.
    pub(crate) is_picture_asked: bool,
}

impl Agent {
    pub(crate) fn new(record: AgentRecord, revision: u64, shard: (ShardId, Fence), now: (Timestamp, WallTime)) -> Self {
        Self {
            info: record.info.clone(),
            book: Book::new(record.info.total.clone()),
            record,
            revision,
            shard: shard.0,
            fence: shard.1,
            link: Link::Recovered,
            silent_since: now,
            peer: None,
            has_reported: false,
            is_back: false,
            reregistered: None,
            report: None,
            tasks: BTreeMap::new(),
            ending: BTreeSet::new(),
            ending_wait: None,
            flight: BTreeMap::new(),
            last_sequence: 0,
            kills: BTreeSet::new(),
            acknowledged: BTreeMap::new(),
            acknowledged_order: VecDeque::new(),
            undecided: BTreeMap::new(),
            is_draining: false,
            ratchet: None,
            is_token_old: false,
            journal_seen: 0,
            journal_shown: 0,
            doubt: None,
            is_returning: false,
            held: None,
            write: None,
            alarms: BTreeMap::new(),
            is_picture_asked: false,
        }
    }

    pub(crate) fn id(&self) -> &AgentId {
        &self.record.id
    }

    /// Its session, whether or not orders flow.
    pub(crate) fn session(&self) -> Option<SessionId> {
        match self.link {
            Link::Recovered | Link::Disconnected { .. } => None,
            Link::Greeted { session, .. } | Link::Connected { session } => Some(session),
        }
    }

    /// The session that orders flow on.
    pub(crate) fn connected(&self) -> Option<SessionId> {
        match self.link {
            Link::Recovered | Link::Disconnected { .. } | Link::Greeted { .. } => None,
            Link::Connected { session } => Some(session),
        }
    }

    /// Whether the cluster counts on it.
    pub(crate) fn is_admitted_active(&self) -> bool {
        match self.record.admission {
            Admission::Active => true,
            Admission::Unreachable { .. } | Admission::Gone { .. } => false,
        }
    }

    /// Whether offers may be made on it.
    pub(crate) fn is_offerable(&self) -> bool {
        self.connected().is_some()
            && self.is_admitted_active()
            && !self.record.is_deactivated
            && !self.is_draining
            && self.doubt.is_none()
    }

    pub(crate) fn presence(&self) -> Presence {
        match &self.link {
            Link::Recovered => Presence::Recovered,
            Link::Disconnected { since } => Presence::Disconnected { since: *since },
            Link::Greeted { before, .. } => *before,
            Link::Connected { .. } => Presence::Connected,
        }
    }

    /// Numbers an order, remembers it until it is taken, and sends it. The agent must be connected.
    pub(crate) fn order(&mut self, what: OrderKind, outbox: &mut Outbox) -> u64 {
        self.last_sequence = self.last_sequence.saturating_add(1);
        let sequence = self.last_sequence;
        self.flight.insert(sequence, Flight { what, is_resent: false });
        self.send_flight(sequence, outbox);
        sequence
    }

    /// Whether a launch that is in flight when a session begins goes out again. What a disk has forgotten may have run, and
    /// what a copy of the machine was sent runs there.
    pub(crate) fn may_resend_launches(&self) -> bool {
        self.doubt.is_none() && !self.is_token_old
    }

    /// The number that the next order will get.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.last_sequence.saturating_add(1)
    }

    /// Sends an order that is in flight.
    pub(crate) fn send_flight(&self, sequence: u64, outbox: &mut Outbox) {
        if let (Some(session), Some(flight)) = (self.connected(), self.flight.get(&sequence)) {
            let order = Order { fence: self.fence, sequence, what: flight.what.clone() };
            outbox.agent(session, ToAgent::Order(order));
        }
    }

    /// Asks for the whole picture, once until it comes.
    pub(crate) fn want_picture(&mut self, outbox: &mut Outbox) {
        if let (Some(session), false) = (self.connected(), self.is_picture_asked) {
            self.is_picture_asked = true;
            outbox.agent(session, ToAgent::PictureWanted);
        }
    }

    /// Sends an acknowledgement of an update, if the agent is connected.
    pub(crate) fn send_acknowledgement(&self, key: &TaskKey, uuid: Uuid, outbox: &mut Outbox) -> bool {
        let Some(session) = self.connected() else { return false };
        outbox.agent(
            session,
            ToAgent::AcknowledgeUpdate { fence: self.fence, framework_id: key.0.clone(), task_id: key.1.clone(), uuid },
        );
        true
    }

    /// Remembers that the framework has this update.
    pub(crate) fn remember_acknowledged(&mut self, key: TaskKey, uuid: Uuid) {
        if self.acknowledged.insert(uuid, key).is_some() {
            return;
        }
        self.acknowledged_order.push_back(uuid);
        if self.acknowledged_order.len() > ACKNOWLEDGED_REMEMBERED_MAX
            && let Some(oldest) = self.acknowledged_order.pop_front()
        {
            self.acknowledged.remove(&oldest);
        }
    }

    /// Whether the framework is known to have this update.
    pub(crate) fn is_acknowledged(&self, key: &TaskKey, uuid: Uuid) -> bool {
        self.acknowledged.get(&uuid).is_some_and(|known| known == key)
    }

    /// The book as the allocator gets it.
    pub(crate) fn to_book(&self) -> AgentBook {
        AgentBook {
            agent_id: self.id().clone(),
            shard: (self.shard, self.fence),
            info: self.info.clone(),
            is_active: self.is_offerable(),
            used: self
                .book
                .used()
                .iter()
                .map(|((framework, role), used)| (framework.clone(), role.clone(), used.clone()))
                .collect(),
            grants: self.book.grants().values().cloned().collect(),
        }
    }

    /// The agent as readers see it.
    pub(crate) fn to_view(&self) -> AgentView {
        AgentView {
            id: self.id().clone(),
            shard: (self.shard, self.fence),
            info: self.info.clone(),
            admission: self.record.admission,
            is_deactivated: self.record.is_deactivated,
            is_revoked: self.record.is_revoked,
            presence: self.presence(),
            peer: self.peer.clone(),
            registered: self.record.admitted,
            reregistered: self.reregistered,
            used: self.book.used().clone(),
            offered: self
                .book
                .grants()
                .iter()
                .map(|(id, grant)| (*id, (grant.framework_id.clone(), grant.role.clone(), grant.resources.clone())))
                .collect(),
            tasks: self.tasks.iter().map(|(key, entry)| (key.clone(), entry.view.clone())).collect(),
            report: self.report.clone(),
        }
    }

    /// Takes a report; containers that it does not name keep their last figures while their task is here.
    pub(crate) fn take_report(&mut self, mut report: Report, at: WallTime) {
        if let Some((_, last)) = &self.report {
            let named: BTreeSet<_> =
                report.containers.iter().map(|c| (c.framework_id.clone(), c.task_id.clone())).collect();
            let kept: Vec<_> = last
                .containers
                .iter()
                .filter(|container| {
                    let key = (container.framework_id.clone(), container.task_id.clone());
                    !named.contains(&key) && self.book.holds(&key)
                })
                .cloned()
                .collect();
            report.containers.extend(kept);
        }
        self.report = Some((at, Arc::new(report)));
    }

    /// Lets go of all that it is known to run and of all that is on its way to it: it counts as lost.
    pub(crate) fn forget_work(&mut self) -> BTreeMap<TaskKey, Entry> {
        self.book.release_all();
        self.ending.clear();
        self.ending_wait = None;
        for flight in self.flight.values_mut() {
            // The number is kept, so that the agent misses none; what it would launch is told as lost.
            match &mut flight.what {
                OrderKind::Launch { tasks, .. } => tasks.clear(),
                OrderKind::Kill { .. } | OrderKind::ShutdownFramework { .. } => {}
            }
        }
        self.kills.clear();
        core::mem::take(&mut self.tasks)
    }
}

/// The message that takes an agent out of the offers.
pub(crate) fn inactive(agent: &Agent, reason: muster_model::offer::RescindReason) -> ToAllocator {
    ToAllocator::AgentInactive { agent_id: agent.id().clone(), reason }
}
