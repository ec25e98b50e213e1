//! Who may talk to whom: names in certificates, identities on disk, and the TLS settings of both sides.
//!
//! One cluster has one certificate authority. A node's certificate carries the fixed name [`SERVER_NAME`] beside its own
//! name, so a client checks *that it is a node of the cluster*, never an address. An agent's certificate carries only
//! the agent's name, so an agent cannot pose as a node.

mod authority;
mod certificate;
mod client;
mod identity;
mod name;
mod server;

pub use authority::{Authority, AuthorityError, AuthorityPin, PinError};
pub use certificate::{CertificateError, PeerCertificate, Validity};
pub use client::ClientTls;
pub use identity::{Identity, IdentityError, PendingIdentity};
pub use name::{NameError, PeerKind, PeerName, SERVER_NAME};
pub use server::ServerTls;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The protocols that a connection can be opened for; TLS negotiates exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alpn {
    /// A machine without a certificate trades its join token for one. The only protocol open to strangers.
    Join,
    /// An admitted agent and a node.
    Agent,
    /// Two nodes of the control plane.
    Node,
}

impl Alpn {
    /// All protocols, in the order in which a server prefers them.
    pub const ALL: [Self; 3] = [Self::Agent, Self::Node, Self::Join];

    /// Returns the identifier as negotiated in TLS, e.g. `muster-agent/1`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Join => "muster-join/1",
            Self::Agent => "muster-agent/1",
            Self::Node => "muster-node/1",
        }
    }

    /// Finds the protocol with this identifier.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|alpn| alpn.as_str().as_bytes() == bytes)
    }

    /// Says which kind of certificate a client needs for this protocol.
    pub const fn client_kind(self) -> Option<PeerKind> {
        match self {
            Self::Join => None,
            Self::Agent => Some(PeerKind::Agent),
            Self::Node => Some(PeerKind::Node),
        }
    }
}

/// A set-up of TLS that rustls refuses.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS as a {side}; check that key and certificate belong together and make the identity again")]
pub struct SetupError {
    side: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl SetupError {
    fn new(side: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { side, source: source.into() }
    }
}

/// The one set of ciphers: ring's. No process-wide default is installed, so a test and a program cannot disagree.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
