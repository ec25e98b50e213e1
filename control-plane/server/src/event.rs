//! Everything that can happen to the node, as one closed enum: the event loop's only input.

use crate::answer::ReplyTo;
use crate::peers::{LinkId, PeerHandle};
use crate::probes::ProbeEvent;
use muster_home_engine::io::{Answer, ConnectionId};
use muster_model::agent_message::{FromAgent, Hello, ToAgent};
use muster_model::framework::Capabilities;
use muster_model::scheduler::{Event as FrameworkEvent, FrameworkCall, Subscribe};
use muster_model::store_op::Stored;
use muster_model::view::ClusterView;
use muster_model::{AgentId, FrameworkId, Uuid};
use muster_node_engine::io::Input;
use muster_owner_engine::io::{DoubtSeen, SessionId};
use muster_transport::quic::Connection;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// What a subscribed client's stream is fed with; the connection's own task encodes it.
#[derive(Debug)]
pub enum StreamItem {
    /// One record.
    Event(Capabilities, FrameworkEvent),
    /// The end.
    Close,
}

/// What an agent's session is fed with; the session's own task encodes it.
#[derive(Debug)]
pub enum AgentItem {
    /// One message.
    Message(ToAgent),
    /// The end, after what went before.
    Close(Arc<str>),
}

/// One agent's live connection as the loop keeps it.
#[derive(Debug)]
pub struct SessionHandle {
    /// Items for the agent, in order.
    pub items: mpsc::Sender<AgentItem>,
    /// For bulk streams, and for closing without order.
    pub connection: Connection,
}

/// What happens to the node.
#[derive(Debug)]
pub enum Event {
    /// A SUBSCRIBE came in.
    Subscribe {
        /// Its number.
        connection: ConnectionId,
        /// The call.
        call: Box<Subscribe>,
        /// Where its events go.
        stream: mpsc::Sender<StreamItem>,
        /// The stream id, or the refusal.
        reply: oneshot::Sender<Result<Uuid, Answer>>,
    },
    /// Another call of a framework came in.
    Call {
        /// Whose it claims to be.
        framework_id: FrameworkId,
        /// The stream id header.
        stream_id: Option<Arc<str>>,
        /// The call.
        call: Box<FrameworkCall>,
        /// The answer.
        reply: ReplyTo,
    },
    /// An operator removes a framework.
    OperatorTeardown {
        /// Which.
        framework_id: FrameworkId,
        /// The answer.
        reply: oneshot::Sender<Answer>,
    },
    /// A client's stream has ended from its side.
    StreamClosed(ConnectionId),
    /// A reader wants the cluster's picture.
    View(oneshot::Sender<ClusterView>),
    /// A reader wants an agent's connection, for a bulk stream.
    AgentConnection {
        /// Which agent.
        agent_id: AgentId,
        /// Its connection, if it has one here.
        reply: oneshot::Sender<Option<Connection>>,
    },
    /// An agent has said hello.
    SessionOpened {
        /// Its number.
        session: SessionId,
        /// The id in its certificate and its hello, which agree.
        agent_id: AgentId,
        /// SHA-256 of its certificate.
        certificate: [u8; 32],
        /// Where it comes from.
        peer: Arc<str>,
        /// Its first message.
        hello: Box<Hello>,
        /// How to reach it.
        handle: SessionHandle,
    },
    /// An agent keeps a connection to this node in case it takes the agent's shard over.
    StandBy {
        /// Its number.
        session: SessionId,
        /// The id in its certificate.
        agent_id: AgentId,
        /// How to reach it.
        handle: SessionHandle,
    },
    /// An agent's far address changed.
    PeerMoved {
        /// Its number.
        session: SessionId,
        /// The new address.
        peer: Arc<str>,
    },
    /// An agent's connection has ended.
    SessionClosed {
        /// Its number.
        session: SessionId,
        /// Why.
        why: Arc<str>,
    },
    /// A message of an agent.
    FromAgent {
        /// Its session.
        session: SessionId,
        /// The message.
        message: Box<FromAgent>,
    },
    /// An operator trusts an agent whose journal is in doubt.
    SettleDoubt {
        /// Which agent.
        agent_id: AgentId,
        /// The doubt as it was, if this node has one.
        reply: oneshot::Sender<Option<DoubtSeen>>,
    },
    /// An agent's record was made or changed; the store has it.
    AgentAdmitted(Box<Stored>),
    /// An input that the node's engine takes as it is: what the store answers and tells, and other nodes' messages.
    Node(Box<Input>),
    /// What the probes found out.
    Probed(ProbeEvent),
    /// A link to another node is up. A newer link of the same node replaces the older one, whose end was told before.
    PeerUp(PeerHandle),
    /// A link is down.
    PeerDown {
        /// Which.
        link: LinkId,
        /// Why, for people.
        why: Arc<str>,
        /// The other node ended it as it stops.
        is_stopping: bool,
    },
    /// The process is asked to stop.
    Stop,
}
