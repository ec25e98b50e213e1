//! The loop around the engines: takes events in batches, lets the parts talk to each other, then performs what they ask.
//!
//! One thread, no locks. Within one turn the parts' messages to each other are handed over in memory, in order, until
//! none is left; only then does the shell see the outputs of the turn. Nothing here decides.

mod clock;
mod perform;

pub use clock::{Clock, wall_now};

use crate::event::{Event, Part, SessionHandle, StreamItem};
use crate::limits::EVENTS_PER_TURN_MAX;
use crate::metrics::Metrics;
use crate::store_worker::StoreWorker;
use muster_allocator::AllocatorEngine;
use muster_home_engine::HomeEngine;
use muster_home_engine::io::{self as home, Answer, ConnectionId, RequestId};
use muster_model::node_message::{NodeMessage, Target};
use muster_model::store_op::Stored;
use muster_model::time::Now;
use muster_model::view::{ClusterView, NodeView, ShardView};
use muster_model::{AgentId, Timestamp, Uuid};
use muster_owner_engine::OwnerEngine;
use muster_owner_engine::io::{self as owner, SessionId};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

/// The engines of this node.
pub struct Engines {
    /// Sessions, pictures, orders, the book.
    pub owner: OwnerEngine,
    /// Framework sessions.
    pub home: HomeEngine,
    /// Who is offered what.
    pub allocator: AllocatorEngine,
}

/// What the engines are told before the first event.
pub struct Start {
    /// For the owner: the shards it took.
    pub shards: owner::Input,
    /// For the home: what the store holds.
    pub loaded: Vec<Stored>,
    /// For the home: the owners that exist.
    pub owners: home::Input,
    /// For the allocator: that it allocates.
    pub took: muster_allocator::io::Input,
    /// For readers: the shards.
    pub shown_shards: Arc<[ShardView]>,
}

/// The node's state between turns.
pub struct EventLoop {
    engines: Engines,
    clock: Clock,
    store: StoreWorker,
    metrics: Arc<Metrics>,
    sessions: HashMap<SessionId, (AgentId, SessionHandle)>,
    agents: HashMap<AgentId, SessionId>,
    streams: HashMap<ConnectionId, mpsc::Sender<StreamItem>>,
    opening: HashMap<ConnectionId, oneshot::Sender<Result<Uuid, Answer>>>,
    answers: HashMap<RequestId, oneshot::Sender<Answer>>,
    next_request: u64,
    between: VecDeque<(Target, NodeMessage)>,
    readers: Vec<oneshot::Sender<ClusterView>>,
    shown_node: NodeView,
    shown_shards: Arc<[ShardView]>,
}

/// Whether the loop goes on after a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Turn,
    Stop,
}

impl EventLoop {
    /// Joins the engines with the means to perform what they ask. `shown_node` is how readers see this node.
    pub fn new(engines: Engines, store: StoreWorker, metrics: Arc<Metrics>, shown_node: NodeView) -> Self {
        Self {
            engines,
            clock: Clock::start(),
            store,
            metrics,
            sessions: HashMap::new(),
            agents: HashMap::new(),
            streams: HashMap::new(),
            opening: HashMap::new(),
            answers: HashMap::new(),
            next_request: 0,
            between: VecDeque::new(),
            readers: Vec::new(),
            shown_node,
            shown_shards: Arc::default(),
        }
    }

    /// Runs until [`Event::Stop`], or until every sender of events is gone.
    pub async fn run(mut self, start: Start, mut events: mpsc::Receiver<Event>) {
        let now = self.clock.now();
        self.shown_shards = start.shown_shards;
        self.engines.owner.handle(start.shards, now);
        self.engines.home.handle(home::Input::Loaded(start.loaded), now);
        self.engines.home.handle(start.owners, now);
        self.engines.allocator.handle(start.took, now);
        self.settle(now);
        let mut batch = Vec::with_capacity(EVENTS_PER_TURN_MAX);
        loop {
            let received = match self.deadline() {
                Some(deadline) => {
                    let wait = self.clock.until(deadline);
                    tokio::time::timeout(wait, events.recv_many(&mut batch, EVENTS_PER_TURN_MAX)).await.ok()
                }
                None => Some(events.recv_many(&mut batch, EVENTS_PER_TURN_MAX).await),
            };
            if received == Some(0) {
                return;
            }
            let now = self.clock.now();
            let mut next = Next::Turn;
            for event in batch.drain(..) {
                if self.take(event, now) == Next::Stop {
                    next = Next::Stop;
                }
                self.pass_messages(now);
            }
            self.handle_deadlines(now);
            self.settle(now);
            self.metrics.turn(self.clock.now().mono.since(now.mono));
            if next == Next::Stop {
                // What was decided is performed; clients and agents see their connections end in order.
                for stream in self.streams.values() {
                    let _ = stream.try_send(StreamItem::Close);
                }
                return;
            }
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        [
            self.engines.owner.deadline().map(|(at, _)| at),
            self.engines.home.deadline().map(|(at, _)| at),
            self.engines.allocator.deadline().map(|(at, _)| at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn handle_deadlines(&mut self, now: Now) {
        if self.engines.owner.deadline().is_some_and(|(at, _)| at <= now.mono) {
            self.engines.owner.handle_deadline(now);
        }
        if self.engines.home.deadline().is_some_and(|(at, _)| at <= now.mono) {
            self.engines.home.handle_deadline(now);
        }
        if self.engines.allocator.deadline().is_some_and(|(at, _)| at <= now.mono) {
            self.engines.allocator.handle_deadline(now);
        }
    }

    fn take(&mut self, event: Event, now: Now) -> Next {
        match event {
            Event::Subscribe { connection, call, stream, reply } => {
                self.streams.insert(connection, stream);
                self.opening.insert(connection, reply);
                self.engines.home.handle(home::Input::Subscribe { connection, call: *call }, now);
            }
            Event::Call { framework_id, stream_id, call, reply } => {
                let request = self.number(reply);
                self.engines.home.handle(home::Input::Call { request, framework_id, stream_id, call: *call }, now);
            }
            Event::OperatorTeardown { framework_id, reply } => {
                let request = self.number(reply);
                self.engines.home.handle(home::Input::OperatorTeardown { request, framework_id }, now);
            }
            Event::StreamClosed(connection) => {
                self.streams.remove(&connection);
                self.engines.home.handle(home::Input::StreamClosed { connection }, now);
            }
            Event::View(reader) => self.readers.push(reader),
            Event::AgentConnection { agent_id, reply } => {
                let session = self.agents.get(&agent_id).and_then(|session| self.sessions.get(session));
                let _ = reply.send(session.map(|(_, handle)| handle.connection.clone()));
            }
            Event::SessionOpened { session, agent_id, certificate, peer, hello, handle } => {
                self.agents.insert(agent_id.clone(), session);
                self.sessions.insert(session, (agent_id.clone(), handle));
                let opened = owner::Input::SessionOpened { session, agent_id, certificate, peer, hello: *hello };
                self.engines.owner.handle(opened, now);
            }
            Event::PeerMoved { session, peer } => {
                self.engines.owner.handle(owner::Input::PeerMoved { session, peer }, now);
            }
            Event::SessionClosed { session, why } => {
                if let Some((agent_id, _)) = self.sessions.remove(&session)
                    && self.agents.get(&agent_id) == Some(&session)
                {
                    self.agents.remove(&agent_id);
                }
                self.engines.owner.handle(owner::Input::SessionClosed { session, why }, now);
            }
            Event::FromAgent { session, message } => {
                self.engines.owner.handle(owner::Input::FromAgent { session, message: *message }, now);
            }
            Event::AgentAdmitted(stored) => {
                self.engines.owner.handle(owner::Input::AgentAdmitted(*stored), now);
            }
            Event::Stored { part, seq, result } => match (part, result) {
                (Part::Owner, Ok(revision)) => {
                    self.engines.owner.handle(owner::Input::Persisted { seq, revision }, now);
                }
                (Part::Owner, Err(error)) => {
                    self.engines.owner.handle(owner::Input::PersistFailed { seq, error }, now);
                }
                (Part::Home, Ok(revision)) => self.engines.home.handle(home::Input::Persisted { seq, revision }, now),
                (Part::Home, Err(error)) => self.engines.home.handle(home::Input::PersistFailed { seq, error }, now),
            },
            Event::Read { seq, result: Ok(found) } => self.engines.home.handle(home::Input::Read { seq, found }, now),
            Event::Read { seq, result: Err(error) } => {
                self.engines.home.handle(home::Input::ReadFailed { seq, error }, now);
            }
            Event::AgentRead { stored: Some(stored), .. } => {
                self.engines.owner.handle(owner::Input::AgentAdmitted(*stored), now);
            }
            Event::AgentRead { shard, stored: None } => {
                self.engines.owner.handle(owner::Input::ShardLost { shard, now_at: None }, now);
            }
            Event::PeerUp { link, .. } | Event::PeerDown { link, .. } | Event::FromPeer { link, .. } => {
                debug!(%link, "event of a link to another node ignored");
            }
            Event::Stop => return Next::Stop,
        }
        Next::Turn
    }

    fn number(&mut self, reply: oneshot::Sender<Answer>) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.answers.insert(request, reply);
        request
    }

    /// Performs what is left of the turn, then serves readers: they see the state between two turns.
    fn settle(&mut self, now: Now) {
        self.pass_messages(now);
        if !self.readers.is_empty() {
            let home = self.engines.home.view();
            let framework_count = home.frameworks.len() as u64;
            let view = ClusterView {
                owner: self.engines.owner.view(),
                home,
                allocator: self.engines.allocator.view(),
                nodes: Arc::new([NodeView { framework_count, ..self.shown_node.clone() }]),
                shards: Arc::clone(&self.shown_shards),
            };
            for reader in self.readers.drain(..) {
                let _ = reader.send(view.clone());
            }
        }
    }

    /// Drains the engines and hands their messages to each other until nobody has anything more to say.
    fn pass_messages(&mut self, now: Now) {
        loop {
            self.perform_owner();
            self.perform_home();
            self.perform_allocator();
            if self.between.is_empty() {
                return;
            }
            while let Some((target, message)) = self.between.pop_front() {
                self.deliver(target, message, now);
            }
        }
    }

    /// On one node every target is this node's part.
    fn deliver(&mut self, _target: Target, message: NodeMessage, now: Now) {
        match message {
            NodeMessage::ToOwner(message) => self.engines.owner.handle(owner::Input::FromNode(message), now),
            NodeMessage::ToHome(message) => self.engines.home.handle(home::Input::FromNode(message), now),
            NodeMessage::ToAllocator(message) => {
                self.engines.allocator.handle(muster_allocator::io::Input::FromNode(message), now);
            }
        }
    }
}
