//! The socket: binds, accepts, connects, and checks who is on the other side before anyone above sees a connection.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::SystemTime;

use quinn::{EndpointConfig, ServerConfig, TokioRuntime};
use rustls_pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::timeout;

use super::close::reason_bytes;
use super::{CloseCode, Connection, ConnectionLost, Tuning, reset};
use crate::limits::{HANDSHAKE_TIMEOUT, INCOMING_BUFFER_BYTES_MAX, INCOMING_BUFFER_TOTAL_BYTES_MAX, INCOMING_MAX};
use crate::tls::{Alpn, CertificateError, ClientTls, PeerCertificate, PeerKind, SERVER_NAME, ServerTls};

/// A UDP socket that speaks QUIC: a node's accepts and connects, an agent's only connects.
#[derive(Debug, Clone)]
pub struct Endpoint {
    inner: quinn::Endpoint,
    tuning: Tuning,
}

/// A socket that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind UDP {address}; check that the address is this machine's and that no other program uses the port")]
pub struct BindError {
    /// Which address.
    pub address: SocketAddr,
    /// The system's answer.
    #[source]
    pub source: io::Error,
}

/// A connection that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No answer.
    #[error("no answer from UDP {address} within {} s; check that the control plane runs there and that UDP passes", HANDSHAKE_TIMEOUT.as_secs())]
    NoAnswer {
        /// Which address.
        address: SocketAddr,
    },
    /// An answer that ended the attempt.
    #[error("cannot connect to UDP {address}")]
    Failed {
        /// Which address.
        address: SocketAddr,
        /// What happened.
        #[source]
        source: ConnectionLost,
    },
    /// The attempt could not start.
    #[error("cannot start to connect to UDP {address}; check the address, and that an IPv6 address has an IPv6 socket")]
    NotStarted {
        /// Which address.
        address: SocketAddr,
        /// The QUIC stack's words.
        #[source]
        source: quinn::ConnectError,
    },
}

/// A connection that was not accepted. The other side was told why, where there was a connection to say it on.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The handshake did not end in time.
    #[error("handshake with {address} took longer than {} s", HANDSHAKE_TIMEOUT.as_secs())]
    TooSlow {
        /// Whose.
        address: SocketAddr,
    },
    /// The handshake failed.
    #[error("handshake with {address} failed")]
    Handshake {
        /// Whose.
        address: SocketAddr,
        /// What happened.
        #[source]
        source: ConnectionLost,
    },
    /// The peer may not speak the protocol that it asked for.
    #[error("{address} may not speak {}: {reason}", alpn.as_str())]
    NotAllowed {
        /// Whose.
        address: SocketAddr,
        /// The protocol.
        alpn: Alpn,
        /// What the peer was told.
        code: CloseCode,
        /// What the peer was told.
        reason: String,
    },
}

impl Endpoint {
    /// Opens a socket on `address` that accepts connections, and can connect too.
    ///
    /// Must be called within a tokio runtime.
    pub fn server(address: SocketAddr, tls: &ServerTls, tuning: Tuning) -> Result<Self, BindError> {
        let endpoint = tls.reset_key.as_ref().map_or_else(EndpointConfig::default, reset::endpoint_config);
        Self::open(address, endpoint, Some(server_config(tls, &tuning)), tuning)
    }

    /// Opens a socket that only connects: on `bind`, or else on any port of all IPv4 addresses.
    ///
    /// Must be called within a tokio runtime.
    pub fn client(bind: Option<SocketAddr>, tuning: Tuning) -> Result<Self, BindError> {
        let address = bind.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        Self::open(address, EndpointConfig::default(), None, tuning)
    }

    fn open(
        address: SocketAddr,
        mut endpoint: EndpointConfig,
        server: Option<ServerConfig>,
        tuning: Tuning,
    ) -> Result<Self, BindError> {
        tuning.apply(&mut endpoint);
        let failed = |source| BindError { address, source };
        let socket = bind(address, &tuning).map_err(failed)?;
        let runtime = Arc::new(TokioRuntime);
        let inner = quinn::Endpoint::new(endpoint, server, socket, runtime).map_err(failed)?;
        Ok(Self { inner, tuning })
    }

    /// Replaces key and certificate for connections to come.
    pub fn set_server_tls(&self, tls: &ServerTls) {
        self.inner.set_server_config(Some(server_config(tls, &self.tuning)));
    }

    /// Connects to a node at `address` with the protocol of `tls`.
    pub async fn connect(&self, address: SocketAddr, tls: &ClientTls) -> Result<Connection, ConnectError> {
        let mut config = quinn::ClientConfig::new(Arc::clone(&tls.crypto) as Arc<_>);
        config.transport_config(self.tuning.transport());
        let connecting = self
            .inner
            .connect_with(config, address, SERVER_NAME)
            .map_err(|source| ConnectError::NotStarted { address, source })?;
        let failed = |source| ConnectError::Failed { address, source };
        let connection = timeout(HANDSHAKE_TIMEOUT, connecting)
            .await
            .map_err(|_| ConnectError::NoAnswer { address })?
            .map_err(|error| match error {
                quinn::ConnectionError::TimedOut => ConnectError::NoAnswer { address },
                other => failed(other.into()),
            })?;
        let peer = peer_certificate(&connection);
        match peer {
            Some(Ok(peer)) if peer.name.kind() == PeerKind::Node => {
                Ok(Connection::new(connection, tls.alpn, Some(peer)))
            }
            _ => {
                connection.close(CloseCode::CERTIFICATE_UNFIT.into(), b"your certificate is not a node's");
                Err(failed(ConnectionLost::PeerCertificateRefused { why: "it does not name a node".to_owned() }))
            }
        }
    }

    /// Waits for the next peer that knocks. `None` once the endpoint is closed.
    pub async fn accept(&self) -> Option<Incoming> {
        self.inner.accept().await.map(Incoming)
    }

    /// Moves to another socket, bound to `address`; connections go on from there.
    pub fn rebind(&self, address: SocketAddr) -> Result<(), BindError> {
        let failed = |source| BindError { address, source };
        let socket = bind(address, &self.tuning).map_err(failed)?;
        self.inner.rebind(socket).map_err(failed)
    }

    /// Returns the address that the socket is bound to.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Counts connections, those in handshake included.
    pub fn connection_count(&self) -> usize {
        self.inner.open_connections()
    }

    /// Closes all connections and accepts no more. Then call [`Endpoint::drained`], or peers wait for their timeout.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.inner.close(code.into(), reason_bytes(reason));
    }

    /// Waits until every close has been sent and confirmed, or given up.
    pub async fn drained(&self) {
        self.inner.wait_idle().await;
    }
}

/// A peer that knocks; nothing has been spent on it yet.
#[derive(Debug)]
pub struct Incoming(quinn::Incoming);

impl Incoming {
    /// Returns the peer's address as its packets claim it.
    pub fn remote_address(&self) -> SocketAddr {
        self.0.remote_address()
    }

    /// Says whether the peer has shown that it receives at that address.
    pub fn is_address_validated(&self) -> bool {
        self.0.remote_address_validated()
    }

    /// Turns it away.
    pub fn refuse(self) {
        self.0.refuse();
    }

    /// Asks it to come again with a token, which proves its address and costs us no memory. For times of load.
    pub fn retry(self) {
        // It fails only for a peer that has already retried; then it may stay.
        if let Err(error) = self.0.retry() {
            error.into_incoming().refuse();
        }
    }

    /// Completes the handshake and checks that the peer may speak the protocol that it asked for.
    ///
    /// A peer that may not is told so by a close with code and reason. Whether a certificate is revoked is the
    /// caller's to check, from [`Connection::peer`].
    pub async fn handshake(self) -> Result<Connection, AcceptError> {
        let address = self.0.remote_address();
        let failed = |error: quinn::ConnectionError| AcceptError::Handshake { address, source: error.into() };
        let connecting = self.0.accept().map_err(failed)?;
        let connection = timeout(HANDSHAKE_TIMEOUT, connecting)
            .await
            .map_err(|_| AcceptError::TooSlow { address })?
            .map_err(failed)?;
        let alpn = negotiated(&connection).ok_or_else(|| AcceptError::Handshake {
            address,
            source: ConnectionLost::NoCommonProtocol { why: "none was asked for".to_owned() },
        })?;
        match admit(alpn, peer_certificate(&connection), SystemTime::now()) {
            Ok(peer) => Ok(Connection::new(connection, alpn, peer)),
            Err((code, reason)) => {
                connection.close(code.into(), reason_bytes(&reason));
                Err(AcceptError::NotAllowed { address, alpn, code, reason })
            }
        }
    }
}

/// Decides whether a peer with this certificate may speak this protocol.
fn admit(
    alpn: Alpn,
    certificate: Option<Result<PeerCertificate, CertificateError>>,
    now: SystemTime,
) -> Result<Option<PeerCertificate>, (CloseCode, String)> {
    let peer = certificate.transpose().map_err(|error| (CloseCode::CERTIFICATE_UNFIT, error.to_string()))?;
    let Some(needed) = alpn.client_kind() else { return Ok(peer) };
    let Some(peer) = peer else {
        let join = Alpn::Join.as_str();
        let reason =
            format!("{} needs a certificate of this cluster; join first, over {join} with a token", alpn.as_str());
        return Err((CloseCode::CERTIFICATE_REQUIRED, reason));
    };
    if peer.name.kind() != needed {
        let reason = format!("{} is for {needed}s, but the certificate is of {}", alpn.as_str(), peer.name);
        return Err((CloseCode::CERTIFICATE_UNFIT, reason));
    }
    if now > peer.validity.not_after {
        let reason = format!("the certificate of {} has expired; join again with a new token", peer.name);
        return Err((CloseCode::CERTIFICATE_EXPIRED, reason));
    }
    Ok(Some(peer))
}

fn server_config(tls: &ServerTls, tuning: &Tuning) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(Arc::clone(&tls.crypto) as Arc<_>);
    config
        .transport_config(tuning.transport())
        .migration(true)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL_BYTES_MAX);
    config
}

fn bind(address: SocketAddr, tuning: &Tuning) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // The kernel cuts these to its own maxima without an error; smaller buffers cost packets under load, not function.
    socket.set_recv_buffer_size(tuning.socket_receive_bytes)?;
    socket.set_send_buffer_size(tuning.socket_send_bytes)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn negotiated(connection: &quinn::Connection) -> Option<Alpn> {
    let data = connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
    Alpn::from_bytes(data.protocol.as_deref()?)
}

fn peer_certificate(connection: &quinn::Connection) -> Option<Result<PeerCertificate, CertificateError>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    Some(PeerCertificate::read(chain.first()?))
}
