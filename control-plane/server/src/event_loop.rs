//! The loop around the node's engine: takes events in batches, lets the parts talk to each other, performs what they ask.
//!
//! One thread, no locks. Nothing here decides.

mod clock;
mod perform;

pub use clock::{Clock, wall_now};

use crate::answer::ReplyTo;
use crate::event::{Event, SessionHandle, StreamItem};
use crate::limits::EVENTS_PER_TURN_MAX;
use crate::metrics::Metrics;
use crate::peers::{PeerHandle, PeerTable, Peers};
use crate::probes::{ProbeEvent, Probes};
use crate::store_worker::StoreWorker;
use muster_home_engine::io::{self as home, Answer, ConnectionId, RequestId};
use muster_model::node_message::NodeMessage;
use muster_model::time::Now;
use muster_model::view::ClusterView;
use muster_model::{AgentId, Duration, NodeId, Uuid};
use muster_node_engine::NodeEngine;
use muster_node_engine::io::{Input, LinkId};
use muster_owner_engine::io::{self as owner, SessionId};
use muster_sharding::membership;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// The ways out of the node.
pub struct Ways {
    /// To the store.
    pub store: StoreWorker,
    /// Which other nodes HTTP handlers see.
    pub table: PeerTable,
    /// The ways to other nodes; none on a store that is for one node only.
    pub others: Option<Others>,
}

/// The ways to other nodes.
pub struct Others {
    /// The links.
    pub peers: Arc<Peers>,
    /// Asks whether they live.
    pub probes: Probes,
}

/// The node's state between turns.
pub struct EventLoop {
    node: NodeEngine,
    name: NodeId,
    clock: Clock,
    ways: Ways,
    metrics: Arc<Metrics>,
    sessions: HashMap<SessionId, (AgentId, SessionHandle)>,
    agents: HashMap<AgentId, SessionId>,
    streams: HashMap<ConnectionId, mpsc::Sender<StreamItem>>,
    opening: HashMap<ConnectionId, oneshot::Sender<Result<Uuid, Answer>>>,
    answers: HashMap<RequestId, ReplyTo>,
    /// Each with what this turn has for it.
    links: HashMap<LinkId, (PeerHandle, Vec<NodeMessage>)>,
    next_request: u64,
    readers: Vec<oneshot::Sender<ClusterView>>,
}

/// Whether the loop goes on after a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Turn,
    Stop,
}

impl EventLoop {
    /// Joins the node with the means to perform what it asks.
    pub fn new(node: NodeEngine, name: NodeId, ways: Ways, metrics: Arc<Metrics>) -> Self {
        Self {
            node,
            name,
            clock: Clock::start(),
            ways,
            metrics,
            sessions: HashMap::new(),
            agents: HashMap::new(),
            streams: HashMap::new(),
            opening: HashMap::new(),
            answers: HashMap::new(),
            links: HashMap::new(),
            next_request: 0,
            readers: Vec::new(),
        }
    }

    /// Runs until [`Event::Stop`], or until every sender of events is gone.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let mut batch = Vec::with_capacity(EVENTS_PER_TURN_MAX);
        loop {
            let received = match self.node.deadline() {
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
                self.node.settle(now);
            }
            self.node.handle_deadline(now);
            self.node.settle(now);
            // Once a turn: each client's and each agent's task then wakes once and finds all that the turn has for it.
            self.perform();
            self.serve_readers();
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

    fn take(&mut self, event: Event, now: Now) -> Next {
        let input = match event {
            Event::Subscribe { connection, call, stream, reply } => {
                self.streams.insert(connection, stream);
                self.opening.insert(connection, reply);
                Input::Home(home::Input::Subscribe { connection, call: *call })
            }
            Event::Call { framework_id, stream_id, call, reply } => {
                let request = self.number(reply);
                Input::Home(home::Input::Call { request, framework_id, stream_id, call: *call })
            }
            Event::OperatorTeardown { framework_id, reply } => {
                let request = self.number(ReplyTo::One(reply));
                Input::Home(home::Input::OperatorTeardown { request, framework_id })
            }
            Event::StreamClosed(connection) => {
                self.streams.remove(&connection);
                Input::Home(home::Input::StreamClosed { connection })
            }
            Event::View(reader) => {
                self.readers.push(reader);
                return Next::Turn;
            }
            Event::AgentConnection { agent_id, reply } => {
                let session = self.agents.get(&agent_id).and_then(|session| self.sessions.get(session));
                let _ = reply.send(session.map(|(_, handle)| handle.connection.clone()));
                return Next::Turn;
            }
            Event::SessionOpened { session, agent_id, certificate, peer, hello, handle } => {
                self.agents.insert(agent_id.clone(), session);
                self.sessions.insert(session, (agent_id.clone(), handle));
                Input::Owner(owner::Input::SessionOpened { session, agent_id, certificate, peer, hello: *hello })
            }
            Event::StandBy { session, agent_id, handle } => {
                self.sessions.insert(session, (agent_id.clone(), handle));
                Input::StandBy { session, agent_id }
            }
            Event::PeerMoved { session, peer } => Input::Owner(owner::Input::PeerMoved { session, peer }),
            Event::SessionClosed { session, why } => {
                if let Some((agent_id, _)) = self.sessions.remove(&session)
                    && self.agents.get(&agent_id) == Some(&session)
                {
                    self.agents.remove(&agent_id);
                }
                Input::Owner(owner::Input::SessionClosed { session, why })
            }
            Event::FromAgent { session, message } => {
                Input::Owner(owner::Input::FromAgent { session, message: *message })
            }
            Event::SettleDoubt { agent_id, reply } => {
                let _ = reply.send(self.node.doubt_of(&agent_id));
                Input::Owner(owner::Input::SettleDoubt { agent_id })
            }
            Event::AgentAdmitted(stored) => Input::Owner(owner::Input::AgentAdmitted(*stored)),
            Event::Node(input) => *input,
            Event::Probed(event) => Input::Probed(self.probed(event, now)),
            Event::PeerUp(handle) => {
                let (link, node) = (handle.link(), handle.node().clone());
                self.ways.table.up(handle.clone());
                self.links.insert(link, (handle, Vec::new()));
                Input::PeerUp { link, node }
            }
            Event::PeerDown { link, is_stopping, .. } => {
                self.ways.table.down(link);
                self.links.remove(&link);
                if is_stopping {
                    self.node.handle(Input::PeerStops { link }, now);
                }
                Input::PeerDown { link }
            }
            Event::Stop => return Next::Stop,
        };
        self.node.handle(input, now);
        Next::Turn
    }

    fn probed(&mut self, event: ProbeEvent, now: Now) -> membership::Input {
        match event {
            ProbeEvent::Answered { node, incarnation, suspects, clock_ahead_ms } => {
                self.node.handle(Input::ClockHeard { node: node.clone(), ahead_ms: clock_ahead_ms }, now);
                membership::Input::Answered { node, incarnation, suspects }
            }
            ProbeEvent::Refused { node } => membership::Input::Refused { node },
            ProbeEvent::Paused { slept } => {
                let slept = Duration(u64::try_from(slept.as_nanos()).unwrap_or(u64::MAX));
                membership::Input::Paused { slept }
            }
        }
    }

    fn number(&mut self, reply: ReplyTo) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.answers.insert(request, reply);
        request
    }

    /// Readers see the state between two turns.
    fn serve_readers(&mut self) {
        if self.readers.is_empty() {
            return;
        }
        let view = self.node.view();
        for reader in self.readers.drain(..) {
            let _ = reader.send(view.clone());
        }
    }
}
