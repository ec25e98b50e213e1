//! TLS of a node: anyone may knock, but a certificate that is shown has to be this cluster's.
//!
//! A stranger's certificate ends the handshake. That a certificate is *missing* is decided after the handshake, by
//! protocol, in `quic/endpoint.rs`, so the answer can say what to do.

use std::fmt;
use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use super::{Alpn, Authority, Identity, SetupError, provider};

/// Settings for accepting connections.
#[derive(Clone)]
pub struct ServerTls {
    pub(crate) crypto: Arc<QuicServerConfig>,
    pub(crate) reset_key: Option<[u8; 32]>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

impl ServerTls {
    /// For a node with a certificate of this authority.
    pub fn new(authority: &Authority, identity: &Identity) -> Result<Self, SetupError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(authority.roots(), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|error| SetupError::new("server", error))?;
        let failed = |error| SetupError::new("server", error);
        let resolver = ByProtocol {
            join: Arc::new(identity.certified_key(&[authority.certificate().clone()]).map_err(failed)?),
            usual: Arc::new(identity.certified_key(&[]).map_err(failed)?),
        };
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = Alpn::ALL.iter().map(|alpn| alpn.as_str().as_bytes().to_vec()).collect();
        // Tickets keep the session at the client, so an idle agent costs a node nothing for resumption.
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(failed)?;
        config.send_tls13_tickets = 1;
        let crypto = QuicServerConfig::try_from(config).map_err(|error| SetupError::new("server", error))?;
        Ok(Self { crypto: Arc::new(crypto), reset_key: None })
    }

    /// The same, with a key that outlives the process: peers of the process before then notice its restart with their
    /// next packet. All nodes behind one address need the same key; it must stay secret.
    #[must_use]
    pub fn with_reset_key(self, key: [u8; 32]) -> Self {
        Self { reset_key: Some(key), ..self }
    }
}

/// Sends the authority's certificate only to those who join: they know its digest and need the rest. All others hold it.
#[derive(Debug)]
struct ByProtocol {
    join: Arc<CertifiedKey>,
    usual: Arc<CertifiedKey>,
}

impl ResolvesServerCert for ByProtocol {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let joins = hello.alpn()?.any(|offered| Alpn::from_bytes(offered) == Some(Alpn::Join));
        Some(Arc::clone(if joins { &self.join } else { &self.usual }))
    }
}
