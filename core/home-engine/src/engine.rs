//! The home as one state machine: what goes in is handed to the file of its subject; what comes out is queued here.
//!
//! Invariant: nothing that a write decides is visible outside before the store has it (`records.rs`). Every
//! call is answered exactly once, and an open offer is consumed at most once (`offers.rs`).

use crate::framework::Framework;
use crate::io::{Answer, ConnectionId, HomeConfig, Input, Output, RequestId};
use crate::limits::RETRY_AFTER_SECS;
use crate::nodes::Nodes;
use crate::records::{Subject, WriteQueue};
use crate::registration::Registrar;
use crate::timers::{Timer, Timers, Why};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::sync::Arc;
use muster_model::fence::Fence;
use muster_model::node_message::{NodeMessage, Target, ToAllocator, ToHome, ToOwner};
use muster_model::record::ClusterRecord;
use muster_model::scheduler::{Event, FrameworkCall};
use muster_model::time::Now;
use muster_model::view::{FrameworkView, HomeView};
use muster_model::{FrameworkId, NodeId, OfferId, Rng, Timestamp};

/// The home of frameworks. See the crate's documentation.
#[derive(Debug)]
pub struct HomeEngine {
    pub(crate) config: HomeConfig,
    pub(crate) stream_rng: Rng,
    outputs: VecDeque<Output>,
    pub(crate) timers: Timers,
    /// The cluster's record and its revision; absent until the store was read.
    pub(crate) cluster: Option<(ClusterRecord, u64)>,
    pub(crate) owners: BTreeSet<NodeId>,
    pub(crate) frameworks: BTreeMap<FrameworkId, Framework>,
    /// Whose stream a connection is; only the current ones.
    pub(crate) streams: BTreeMap<ConnectionId, FrameworkId>,
    /// Connections whose SUBSCRIBE waits for the store, and whether the client has left already.
    pub(crate) opening: BTreeMap<ConnectionId, bool>,
    /// Whose each open offer is.
    pub(crate) offer_holders: BTreeMap<OfferId, FrameworkId>,
    /// Removed frameworks, oldest first.
    pub(crate) tombstones: VecDeque<FrameworkId>,
    /// The same for look-ups, with the revisions of their tombstones.
    pub(crate) removed: BTreeMap<FrameworkId, u64>,
    /// Which nodes live; absent until it was told.
    pub(crate) nodes: Option<Nodes>,
    /// Frameworks of dead homes that this node acts for, with the dead homes' fences.
    pub(crate) carried: BTreeMap<FrameworkId, Fence>,
    /// Removed frameworks for readers, oldest first.
    pub(crate) completed: VecDeque<Arc<FrameworkView>>,
    pub(crate) writes: BTreeMap<FrameworkId, WriteQueue>,
    pub(crate) registrar: Registrar,
    /// Frameworks whose record waits for the store, of which people were told.
    pub(crate) unwritten: BTreeSet<FrameworkId>,
    /// People were told that calls are refused, as the store does not write.
    pub(crate) has_refused: bool,
    /// Whom the answer to each write or read concerns.
    pub(crate) in_flight: BTreeMap<u64, Subject>,
    next_seq: u64,
    next_question: u64,
    /// The highest fence of an allocator that was heard.
    allocator_fence: Fence,
    view: Arc<HomeView>,
    changed: BTreeSet<FrameworkId>,
    is_completed_changed: bool,
}

impl HomeEngine {
    /// A home without frameworks; it answers 503 until it gets [`Input::Loaded`].
    pub fn new(config: HomeConfig, rng: Rng) -> Self {
        Self {
            config,
            stream_rng: rng.fork("stream-ids"),
            outputs: VecDeque::new(),
            timers: Timers::default(),
            cluster: None,
            owners: BTreeSet::new(),
            frameworks: BTreeMap::new(),
            streams: BTreeMap::new(),
            opening: BTreeMap::new(),
            offer_holders: BTreeMap::new(),
            tombstones: VecDeque::new(),
            removed: BTreeMap::new(),
            nodes: None,
            carried: BTreeMap::new(),
            completed: VecDeque::new(),
            writes: BTreeMap::new(),
            registrar: Registrar::default(),
            unwritten: BTreeSet::new(),
            has_refused: false,
            in_flight: BTreeMap::new(),
            next_seq: 0,
            next_question: 0,
            allocator_fence: Fence::default(),
            view: Arc::new(HomeView::default()),
            changed: BTreeSet::new(),
            is_completed_changed: false,
        }
    }

    /// Takes one input. Never blocks, never fails: a bad input becomes an output that says so.
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Loaded(records) => self.load(records, now),
            Input::OwnersChanged(owners) => self.owners_changed(owners, now),
            Input::OwnersReset { owner, shards, why } => self.owners_reset(&owner, &shards, &why, now),
            Input::RecordChanged(stored) => self.record_changed(stored, now),
            Input::NodesChanged { live, carries_dead_homes } => self.nodes_changed(live, carries_dead_homes, now),
            Input::AllocatorReset => self.replay_demand(),
            Input::Subscribe { connection, call } => self.subscribe(connection, call, now),
            Input::Call { request, framework_id, stream_id, call } => {
                self.handle_call(request, framework_id, stream_id.as_deref(), call, now);
            }
            Input::OperatorTeardown { request, framework_id } => self.operator_teardown(request, framework_id, now),
            Input::StreamClosed { connection } => self.stream_closed(connection, now),
            Input::FromNode(message) => self.handle_message(message, now),
            Input::Persisted { seq, revision } => self.persisted(seq, revision, now),
            Input::PersistFailed { seq, error } => self.persist_failed(seq, &error, now),
            Input::Read { seq, found } => self.read_back(seq, found, now),
            Input::ReadFailed { seq, error } => self.read_failed(seq, &error, now),
        }
    }

    /// The next thing to do, in the order in which the shell must do them.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The earliest moment at which it wants to be woken, and why.
    pub fn deadline(&self) -> Option<(Timestamp, Why)> {
        self.timers.next()
    }

    /// Does what is due. Early, late or repeated calls are harmless.
    pub fn handle_deadline(&mut self, now: Now) {
        while let Some((at, timer)) = self.timers.pop_due(now.mono) {
            match timer {
                Timer::Heartbeat(id) => self.heartbeat(&id, at, now),
                Timer::Removal(id) => self.failover_timeout_over(&id, now),
                Timer::OfferTimeout(offer_id) => self.offer_timed_out(offer_id),
                Timer::FenceWait(id) => self.fence_wait_over(&id, now),
                Timer::StoreRetry(id) => self.start_next_write(&id, now),
                Timer::Questions(id) => self.questions_timed_out(&id, now),
            }
        }
    }

    /// What readers see. The picture is made when something has changed since the last call, and shared after that.
    pub fn view(&mut self) -> Arc<HomeView> {
        if !self.changed.is_empty() || self.is_completed_changed {
            let view = Arc::make_mut(&mut self.view);
            for id in core::mem::take(&mut self.changed) {
                match self.frameworks.get(&id) {
                    // Each framework is shown by its home's node, or by the one that acts for a dead home.
                    Some(framework)
                        if framework.record.home.node == self.config.node || self.carried.contains_key(&id) =>
                    {
                        view.frameworks.insert(id, Arc::new(framework.view()))
                    }
                    Some(_) | None => view.frameworks.remove(&id),
                };
            }
            if core::mem::take(&mut self.is_completed_changed) {
                view.completed = self.completed.iter().cloned().collect();
            }
        }
        self.view.clone()
    }

    /// The checks of a call in Mesos's order, then the call.
    fn handle_call(
        &mut self,
        request: RequestId,
        id: FrameworkId,
        stream_id: Option<&str>,
        call: FrameworkCall,
        now: Now,
    ) {
        if let Err(answer) = self.check_call(&id, stream_id) {
            return self.answer(request, answer);
        }
        match call {
            FrameworkCall::Teardown => self.teardown(request, id, now),
            FrameworkCall::Accept(accept) => self.accept(request, &id, accept, now),
            FrameworkCall::Decline { offers, refusal } => self.decline(request, &offers, refusal),
            FrameworkCall::Revive(roles) => self.revive(request, &id, &roles),
            FrameworkCall::Suppress(roles) => self.suppress(request, &id, &roles),
            FrameworkCall::Kill { task_id, agent_id, grace } => {
                self.kill(request, &id, task_id, agent_id, grace, now);
            }
            FrameworkCall::Shutdown { executor_id, agent_id } => {
                self.shutdown_executor(request, &id, &executor_id, &agent_id);
            }
            FrameworkCall::Acknowledge { agent_id, task_id, uuid } => {
                self.acknowledge(request, &id, agent_id, task_id, uuid);
            }
            FrameworkCall::Reconcile(tasks) => self.reconcile(request, &id, tasks, now),
            FrameworkCall::UpdateFramework { info, suppressed_roles } => {
                self.update_framework(request, id, info, suppressed_roles, now);
            }
            FrameworkCall::ReconcileOperations(operations) => self.reconcile_operations(request, &id, operations),
            // No executor of a framework's own runs yet, so there is nobody to hand bytes to: best effort, as in Mesos.
            FrameworkCall::Message { .. }
            | FrameworkCall::Request
            | FrameworkCall::InverseOffers
            | FrameworkCall::AcknowledgeOperation => self.answer(request, Answer::Accepted),
        }
    }

    fn check_call(&self, id: &FrameworkId, stream_id: Option<&str>) -> Result<(), Answer> {
        if self.cluster.is_none() {
            return Err(not_ready());
        }
        let Some(framework) = self.frameworks.get(id) else {
            return Err(Answer::Bad("Framework cannot be found".into()));
        };
        let Some((_, current)) = framework.stream() else {
            return Err(self.not_subscribed(framework, stream_id));
        };
        let Some(stream_id) = stream_id else {
            return Err(Answer::Bad("All non-subscribe calls should include the 'Mesos-Stream-Id' header".into()));
        };
        if current.text() != *stream_id.as_bytes() {
            return Err(Answer::Bad(Arc::from(format!(
                "The stream ID '{stream_id}' included in this request didn't match the stream ID currently \
                 associated with framework ID {id}"
            ))));
        }
        Ok(())
    }

    fn handle_message(&mut self, message: ToHome, now: Now) {
        match message {
            ToHome::Update(status) => self.update_from_owner(status),
            ToHome::TaskRemoved { framework_id, task_id } => {
                if let Some(framework) = self.frameworks.get_mut(&framework_id) {
                    framework.forget_task(&task_id);
                }
            }
            ToHome::FrameworkTasks { framework_id, home_fence, owner, tasks } => {
                self.tasks_from_owner(&framework_id, home_fence, &owner, tasks, now);
            }
            ToHome::Reconciled { framework_id, owner, request, outcome } => {
                self.reconciled(&framework_id, &owner, request, outcome, now);
            }
            ToHome::AgentLost { agent_id } => self.agent_lost(&agent_id),
            ToHome::Offers { framework_id, home_fence, session_version, offers } => {
                self.offers_from_allocator(&framework_id, home_fence, session_version, offers, now);
            }
            ToHome::DemandWanted { allocator_fence } => {
                if allocator_fence >= self.allocator_fence {
                    self.allocator_fence = allocator_fence;
                    self.replay_demand();
                }
            }
            ToHome::Rescinded { framework_id, offers } => self.rescinded(&framework_id, offers),
        }
    }

    fn replay_demand(&mut self) {
        for framework in self.frameworks.values().filter(|framework| framework.record.home.node == self.config.node) {
            self.outputs.push_back(Output::Send { to: Target::Allocator, message: framework.demand() });
        }
        for (framework_id, home_fence) in self.carried.clone() {
            self.send_to_allocator(ToAllocator::HomeLost { framework_id, home_fence });
        }
    }

    // What every subject's file uses to speak.

    pub(crate) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn answer(&mut self, request: RequestId, answer: Answer) {
        self.output(Output::Answer { request, answer });
    }

    pub(crate) fn send_to_owner(&mut self, to: Target, message: ToOwner) {
        self.output(Output::Send { to, message: NodeMessage::ToOwner(message) });
    }

    pub(crate) fn send_to_allocator(&mut self, message: ToAllocator) {
        self.output(Output::Send { to: Target::Allocator, message: NodeMessage::ToAllocator(message) });
    }

    /// Tells the allocator what a framework wants, if no other node speaks for it.
    pub(crate) fn send_demand(&mut self, id: &FrameworkId) {
        if let Some(framework) = self.frameworks.get(id)
            && framework.record.home.node == self.config.node
        {
            let message = framework.demand();
            self.output(Output::Send { to: Target::Allocator, message });
        }
    }

    /// One event for the framework's client; nothing if it is not connected.
    pub(crate) fn event(&mut self, id: &FrameworkId, event: Event) {
        if let Some(framework) = self.frameworks.get(id)
            && let Some((connection, _)) = framework.stream()
        {
            let capabilities = framework.info().capabilities;
            self.output(Output::Event { connection, capabilities, event });
        }
    }

    pub(crate) fn note(&mut self, id: Option<&FrameworkId>, what: &'static str, detail: impl Into<Arc<str>>) {
        self.output(Output::Note { framework_id: id.cloned(), what, detail: detail.into() });
    }

    /// What readers see of this framework has changed.
    pub(crate) fn touch(&mut self, id: &FrameworkId) {
        self.changed.insert(id.clone());
    }

    pub(crate) fn touch_completed(&mut self) {
        self.is_completed_changed = true;
    }

    pub(crate) fn new_seq(&mut self, subject: Subject) -> u64 {
        self.next_seq = self.next_seq.saturating_add(1);
        self.in_flight.insert(self.next_seq, subject);
        self.next_seq
    }

    pub(crate) fn new_question(&mut self) -> u64 {
        self.next_question = self.next_question.saturating_add(1);
        self.next_question
    }
}

/// The answer to everything until the store was read.
pub(crate) fn not_ready() -> Answer {
    unavailable("the control plane has not finished recovery")
}

/// A 503 with the usual Retry-After.
pub(crate) fn unavailable(why: impl Into<Arc<str>>) -> Answer {
    Answer::Unavailable { why: why.into(), retry_after_secs: RETRY_AFTER_SECS }
}
