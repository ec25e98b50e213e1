//! Who may talk to this node: the first words on a link and what is checked in them.

use super::{Peers, REFUSED};
use crate::limits::PEER_GREETING_TIMEOUT;
use crate::sessions::Chain;
use bytes::Bytes;
use muster_model::NodeId;
use muster_model::record::NodeRecord;
use muster_node_wire::limits::{FRAME_BYTES_MAX, GREETING_BYTES_MAX};
use muster_node_wire::message::{decode_greeting, decode_messages, encode_greeting, encode_messages};
use muster_node_wire::{Greeting, NodeHello, VersionRange, WireError};
use muster_transport::quic::{Connection, Priority, RecvStream, SendStream};
use muster_transport::tls::PeerKind;
use std::sync::Arc;
use tokio::time::timeout;

/// Why there is no link to a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No connection.
    #[error("it cannot be reached: {why}")]
    Unreachable {
        /// What happened.
        why: String,
    },
    /// The other side refused us, in its words.
    #[error("it refuses this node: {why}")]
    ByPeer {
        /// Its words.
        why: Arc<str>,
    },
    /// The first words were none of the protocol, or did not come.
    #[error("it does not say hello: {why}")]
    NoHello {
        /// What happened.
        why: String,
    },
    /// No common version.
    #[error(
        "node {node} speaks node protocol {} to {}, node {me} speaks {} to {}; upgrade the older one",
        theirs.oldest, theirs.newest, ours.oldest, ours.newest
    )]
    Version {
        /// Who.
        node: NodeId,
        /// What it speaks.
        theirs: VersionRange,
        /// This node.
        me: NodeId,
        /// What this one speaks.
        ours: VersionRange,
    },
    /// It is of another cluster.
    #[error(
        "node {node} is of cluster {theirs}, node {me} is of cluster {ours}; start each with the store of its own cluster"
    )]
    Cluster {
        /// Who.
        node: NodeId,
        /// Its cluster.
        theirs: muster_model::Uuid,
        /// This node.
        me: NodeId,
        /// This node's cluster.
        ours: muster_model::Uuid,
    },
    /// Its certificate names another.
    #[error("hello of node {node} on a certificate of {certificate}; a node's name and certificate belong together")]
    Certificate {
        /// Whom it claims to be.
        node: NodeId,
        /// Whom the certificate names.
        certificate: String,
    },
    /// It has this node's name.
    #[error("two nodes have the name {node}; give each a name of its own with --node-name")]
    SameName {
        /// The name.
        node: NodeId,
    },
    /// Another node answered than was dialled.
    #[error("node {found} answers at the address of node {wanted}; check what both advertise")]
    OtherNode {
        /// Who was dialled.
        wanted: NodeId,
        /// Who answered.
        found: NodeId,
    },
    /// The store does not show it here.
    #[error("node {node} is not registered in the store, as node {me} sees it; it is let in once it is")]
    NotRegistered {
        /// Who.
        node: NodeId,
        /// This node.
        me: NodeId,
    },
    /// The store shows another run of it.
    #[error(
        "node {node} is run {said:x}, but run {registered:x} of it is registered, as node {me} sees it; either the news is \
         on its way, or two nodes have that name: then give each a name of its own with --node-name"
    )]
    OtherRun {
        /// Who.
        node: NodeId,
        /// Its run.
        said: u64,
        /// The registered one.
        registered: u64,
        /// This node.
        me: NodeId,
    },
}

impl Refusal {
    /// Whether it is ordinary while nodes start and stop.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NotRegistered { .. } | Self::OtherRun { .. } => true,
            Self::ByPeer { .. }
            | Self::NoHello { .. }
            | Self::Version { .. }
            | Self::Cluster { .. }
            | Self::Certificate { .. }
            | Self::SameName { .. }
            | Self::OtherNode { .. } => false,
        }
    }
}

/// A link whose both ends have agreed.
pub(super) struct Agreed {
    pub(super) node: NodeId,
    pub(super) incarnation: u64,
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
}

impl Peers {
    /// The dialling side: speaks first, and says at the end that it accepts, so that the other side does not take a link
    /// for one that this side refuses.
    pub(super) async fn greet(&self, connection: &Connection, wanted: &NodeId) -> Result<Agreed, Refusal> {
        let greeted = async {
            let (mut send, mut recv) = connection.open_bi(Priority::Control).await.map_err(|error| no_hello(&error))?;
            self.say(&mut send, &Greeting::Hello(self.me.hello())).await?;
            let hello = hear(&mut recv).await?;
            let checked = self.check(connection, &hello).and_then(|()| {
                let is_wanted = hello.node == *wanted;
                let found = || Refusal::OtherNode { wanted: wanted.clone(), found: hello.node.clone() };
                if is_wanted { Ok(()) } else { Err(found()) }
            });
            if let Err(refusal) = checked {
                self.refuse(connection, &mut send, &refusal).await;
                return Err(refusal);
            }
            let accepted = encode_messages(&[]).map_err(|error| no_hello(&error))?;
            send.write_frame(Bytes::from(accepted), FRAME_BYTES_MAX).await.map_err(|error| no_hello(&error))?;
            Ok(Agreed { node: hello.node, incarnation: hello.incarnation, send, recv })
        };
        within_time(connection, greeted).await
    }

    /// The accepting side.
    pub(super) async fn be_greeted(&self, connection: &Connection) -> Result<Agreed, Refusal> {
        let greeted = async {
            let (mut send, mut recv) = connection.accept_bi().await.map_err(|error| no_hello(&error))?;
            send.set_priority(Priority::Control);
            let hello = hear(&mut recv).await?;
            if let Err(refusal) = self.check(connection, &hello) {
                self.refuse(connection, &mut send, &refusal).await;
                return Err(refusal);
            }
            self.say(&mut send, &Greeting::Hello(self.me.hello())).await?;
            let frame = recv.read_frame(FRAME_BYTES_MAX).await.map_err(|error| no_hello(&error))?;
            let frame = frame.ok_or_else(ended)?;
            match (decode_messages(&frame), decode_greeting(&frame)) {
                (Ok(_), _) => Ok(Agreed { node: hello.node, incarnation: hello.incarnation, send, recv }),
                (Err(_), Ok(Greeting::Refused { why })) => Err(Refusal::ByPeer { why }),
                (Err(error), _) => Err(no_hello(&error)),
            }
        };
        within_time(connection, greeted).await
    }

    fn check(&self, connection: &Connection, hello: &NodeHello) -> Result<(), Refusal> {
        let (node, me) = (hello.node.clone(), self.me.node.clone());
        if hello.versions.common(VersionRange::OURS).is_none() {
            return Err(Refusal::Version { node, theirs: hello.versions, me, ours: VersionRange::OURS });
        }
        if hello.cluster_id != self.me.cluster_id {
            return Err(Refusal::Cluster { node, theirs: hello.cluster_id, me, ours: self.me.cluster_id });
        }
        let certificate = connection.peer().map(|peer| &peer.name);
        if !certificate.is_some_and(|name| name.is(PeerKind::Node, node.as_str())) {
            let certificate = certificate.map_or_else(|| "nobody".to_owned(), ToString::to_string);
            return Err(Refusal::Certificate { node, certificate });
        }
        if node == me {
            return Err(Refusal::SameName { node });
        }
        check_run(hello, self.registered(&node).map(|(record, _)| record).as_ref(), me)
    }

    async fn say(&self, send: &mut SendStream, greeting: &Greeting) -> Result<(), Refusal> {
        let frame = encode_greeting(greeting).map_err(|error| no_hello(&error))?;
        send.write_frame(Bytes::from(frame), GREETING_BYTES_MAX).await.map_err(|error| no_hello(&error))
    }

    async fn refuse(&self, connection: &Connection, send: &mut SendStream, refusal: &Refusal) {
        let why: Arc<str> = Arc::from(refusal.to_string());
        if self.say(send, &Greeting::Refused { why: Arc::clone(&why) }).await.is_ok() {
            // The words must arrive before the close; a peer that is gone meanwhile is no loss.
            let _ = send.finish_and_confirm().await;
        }
        connection.close(REFUSED, &why);
    }
}

/// The registered run is the only one that is talked to.
fn check_run(hello: &NodeHello, registered: Option<&NodeRecord>, me: NodeId) -> Result<(), Refusal> {
    let node = hello.node.clone();
    match registered {
        None => Err(Refusal::NotRegistered { node, me }),
        Some(record) if record.incarnation != hello.incarnation => {
            Err(Refusal::OtherRun { node, said: hello.incarnation, registered: record.incarnation, me })
        }
        Some(_) => Ok(()),
    }
}

/// Reads the other side's hello.
async fn hear(recv: &mut RecvStream) -> Result<NodeHello, Refusal> {
    let frame = recv.read_frame(GREETING_BYTES_MAX).await.map_err(|error| no_hello(&error))?.ok_or_else(ended)?;
    match decode_greeting(&frame) {
        Ok(Greeting::Hello(hello)) => Ok(hello),
        Ok(Greeting::Refused { why }) => Err(Refusal::ByPeer { why }),
        Err(error @ WireError::UnknownVersion { .. }) => Err(no_hello(&error)),
        Err(error) => Err(no_hello(&error)),
    }
}

async fn within_time(
    connection: &Connection,
    greeted: impl Future<Output = Result<Agreed, Refusal>>,
) -> Result<Agreed, Refusal> {
    let why = || format!("it took longer than {} s", PEER_GREETING_TIMEOUT.as_secs());
    let outcome = timeout(PEER_GREETING_TIMEOUT, greeted).await;
    let outcome = outcome.unwrap_or_else(|_| Err(Refusal::NoHello { why: why() }));
    if let Err(refusal) = &outcome {
        // It is closed already where the other side was told more.
        connection.close(REFUSED, &refusal.to_string());
    }
    outcome
}

fn no_hello(error: &dyn std::error::Error) -> Refusal {
    Refusal::NoHello { why: Chain(error).to_string() }
}

fn ended() -> Refusal {
    Refusal::NoHello { why: "it ended the stream".to_owned() }
}
