//! TLS of the side that connects: it believes only nodes of its cluster, whatever their address.

use std::fmt;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::authority::pin_of;
use super::{Alpn, Authority, AuthorityPin, Identity, SetupError, provider};
use crate::limits::CLIENT_SESSIONS_MAX;

/// Settings for opening connections of one protocol. Keep it: sessions are resumed only within one value.
#[derive(Clone)]
pub struct ClientTls {
    pub(crate) alpn: Alpn,
    pub(crate) crypto: Arc<QuicClientConfig>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientTls({})", self.alpn.as_str())
    }
}

impl ClientTls {
    /// For an agent with a certificate.
    pub fn agent(authority: &Authority, identity: &Identity) -> Result<Self, SetupError> {
        Self::with_identity(Alpn::Agent, authority, identity)
    }

    /// For a node that connects to another node.
    pub fn node(authority: &Authority, identity: &Identity) -> Result<Self, SetupError> {
        Self::with_identity(Alpn::Node, authority, identity)
    }

    /// For a machine that holds only a join token: it believes the node whose authority has this pin.
    pub fn join(pin: AuthorityPin) -> Result<Self, SetupError> {
        let verifier = PinnedVerifier { pin, algorithms: provider().signature_verification_algorithms };
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| SetupError::new("client", error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Self::finish(Alpn::Join, config)
    }

    fn with_identity(alpn: Alpn, authority: &Authority, identity: &Identity) -> Result<Self, SetupError> {
        Self::build(alpn, authority, Some(identity))
    }

    /// Builds any combination, so that tests can pose as a peer that breaks the rules.
    #[doc(hidden)]
    pub fn build(alpn: Alpn, authority: &Authority, identity: Option<&Identity>) -> Result<Self, SetupError> {
        let failed = |error| SetupError::new("client", error);
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .with_root_certificates(authority.roots());
        let config = match identity {
            Some(identity) => {
                builder.with_client_auth_cert(identity.chain().to_vec(), identity.key().clone_key()).map_err(failed)?
            }
            None => builder.with_no_client_auth(),
        };
        Self::finish(alpn, config)
    }

    fn finish(alpn: Alpn, mut config: rustls::ClientConfig) -> Result<Self, SetupError> {
        config.alpn_protocols = vec![alpn.as_str().as_bytes().to_vec()];
        config.resumption = Resumption::in_memory_sessions(CLIENT_SESSIONS_MAX);
        let crypto = QuicClientConfig::try_from(config).map_err(|error| SetupError::new("client", error))?;
        Ok(Self { alpn, crypto: Arc::new(crypto) })
    }
}

/// Believes a node whose chain ends in the one authority certificate with this digest.
#[derive(Debug)]
struct PinnedVerifier {
    pin: AuthorityPin,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| pin_of(certificate) == self.pin)
            .ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
        let all = self.algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, all)?;
        rustls::client::verify_server_name(&parsed, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is never negotiated".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
