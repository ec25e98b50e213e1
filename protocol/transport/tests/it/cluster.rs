//! A cluster authority, identities under it, and a node that listens.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use muster_transport::quic::{AcceptError, Connection, Endpoint, Tuning};
use muster_transport::tls::{Authority, Identity, PeerName, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(crate) struct Cluster {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) authority: Authority,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), authority: Authority::from_der(der).unwrap() }
    }

    pub(crate) fn identity(&self, name: &PeerName) -> Identity {
        self.identity_until(name, SystemTime::now() + Duration::from_secs(3600))
    }

    pub(crate) fn identity_until(&self, name: &PeerName, not_after: SystemTime) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(name.certificate_names()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = (not_after - Duration::from_secs(90_000)).into();
        params.not_after = not_after.into();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Identity::from_der(vec![leaf.der().to_vec()], key.serialize_der()).unwrap()
    }

    pub(crate) fn sign_request(&self, request: &[u8], name: &PeerName) -> Vec<u8> {
        let mut request = rcgen::CertificateSigningRequestParams::from_der(&request.into()).unwrap();
        request.params.subject_alt_names = name
            .certificate_names()
            .into_iter()
            .map(|name| rcgen::SanType::DnsName(name.try_into().unwrap()))
            .collect();
        request.signed_by(&self.issuer).unwrap().der().to_vec()
    }

    pub(crate) fn node_endpoint(&self, tuning: Tuning) -> Endpoint {
        let identity = self.identity(&PeerName::node("n1").unwrap());
        Endpoint::server(LOOPBACK, &ServerTls::new(&self.authority, &identity).unwrap(), tuning).unwrap()
    }
}

pub(crate) fn node_tuning() -> Tuning {
    Tuning::node(Duration::from_secs(10))
}

pub(crate) fn agent_endpoint() -> Endpoint {
    Endpoint::client(Some(LOOPBACK), Tuning::agent(Duration::from_secs(2), Duration::from_secs(10))).unwrap()
}

pub(crate) async fn accept(node: &Endpoint) -> Result<Connection, AcceptError> {
    node.accept().await.unwrap().handshake().await
}
