//! Why a connection ended: codes that we send, and what an ended connection tells its user.

use std::fmt;

use quinn::{ConnectionError, VarInt};

use crate::limits::CLOSE_REASON_BYTES_MAX;

/// The application's code in a QUIC close. Codes below 256 belong to this crate, those above to the message protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u32);

impl CloseCode {
    /// Ended in order.
    pub const DONE: Self = Self(0);
    /// The program is stopping.
    pub const STOPPING: Self = Self(1);
    /// The protocol needs a certificate of this cluster, and the client showed none.
    pub const CERTIFICATE_REQUIRED: Self = Self(0x10);
    /// The client's certificate is for another protocol, e.g. an agent's on the protocol between nodes.
    pub const CERTIFICATE_UNFIT: Self = Self(0x11);
    /// The client's certificate has ended (a resumed session does not check it in TLS).
    pub const CERTIFICATE_EXPIRED: Self = Self(0x12);
    /// The client's certificate was revoked.
    pub const CERTIFICATE_REVOKED: Self = Self(0x13);
    /// The peer broke the rules of framing.
    pub const BAD_FRAME: Self = Self(0x20);
    /// Too much work; come back later.
    pub const OVERLOADED: Self = Self(0x30);
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl From<CloseCode> for VarInt {
    fn from(code: CloseCode) -> Self {
        Self::from_u32(code.0)
    }
}

/// Cuts a reason to what fits a close, at a character's border.
pub(super) fn reason_bytes(reason: &str) -> &[u8] {
    let mut end = reason.len().min(CLOSE_REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.as_bytes().get(..end).unwrap_or_default()
}

/// Why a connection is no longer there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionLost {
    /// The other side closed it and said why.
    #[error("peer closed the connection, code {code}: {reason}")]
    ClosedByPeer {
        /// Its code.
        code: CloseCode,
        /// Its words.
        reason: String,
    },
    /// We closed it.
    #[error("this side closed the connection")]
    ClosedHere,
    /// Nothing was heard for the idle timeout.
    #[error("peer was silent for longer than the idle timeout; check the network, and UDP on its way")]
    TimedOut,
    /// The other side lost its state, most likely because it restarted.
    #[error("peer does not know this connection any more; it has most likely restarted, connect again")]
    Reset,
    /// The other side does not believe our certificate.
    #[error("peer refuses our certificate ({why}); join this machine again with a new token")]
    OurCertificateRefused {
        /// The TLS alert.
        why: String,
    },
    /// We do not believe the other side's certificate.
    #[error(
        "peer cannot prove that it is of this cluster ({why}); check the address, and the token or certificate used"
    )]
    PeerCertificateRefused {
        /// What TLS found.
        why: String,
    },
    /// The two sides speak no common protocol.
    #[error("peer speaks none of our protocol versions ({why}); upgrade the older side")]
    NoCommonProtocol {
        /// What TLS or QUIC found.
        why: String,
    },
    /// A rule of QUIC was broken, or a bound of it reached.
    #[error("connection failed: {why}")]
    Failed {
        /// The QUIC stack's words.
        why: String,
    },
}

/// QUIC's crypto errors are 0x100 + the TLS alert (RFC 9001, 4.8).
const ALERTS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;

enum Refusal {
    Certificate(&'static str),
    Protocol,
}

fn refusal(alert: u64) -> Option<Refusal> {
    Some(match alert {
        42 => Refusal::Certificate("bad certificate"),
        43 => Refusal::Certificate("unsupported certificate"),
        44 => Refusal::Certificate("revoked"),
        45 => Refusal::Certificate("expired or not yet valid"),
        46 => Refusal::Certificate("not acceptable"),
        48 => Refusal::Certificate("not signed by the cluster's authority"),
        49 => Refusal::Certificate("access denied"),
        51 => Refusal::Certificate("signature does not fit"),
        116 => Refusal::Certificate("none was shown"),
        70 | 120 => Refusal::Protocol,
        _ => return None,
    })
}

impl From<ConnectionError> for ConnectionLost {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::ClosedByPeer {
                code: CloseCode(u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX)),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::LocallyClosed => Self::ClosedHere,
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::Reset => Self::Reset,
            ConnectionError::VersionMismatch => Self::NoCommonProtocol { why: "QUIC version".to_owned() },
            ConnectionError::ConnectionClosed(close) => {
                let words = String::from_utf8_lossy(&close.reason).into_owned();
                Self::from_code(u64::from(close.error_code), words, |why| Self::OurCertificateRefused { why })
            }
            ConnectionError::TransportError(error) => {
                Self::from_code(u64::from(error.code), error.reason, |why| Self::PeerCertificateRefused { why })
            }
            ConnectionError::CidsExhausted => Self::Failed { why: "connection ids are exhausted".to_owned() },
        }
    }
}

impl ConnectionLost {
    fn from_code(code: u64, words: String, certificate: impl FnOnce(String) -> Self) -> Self {
        let found = ALERTS.contains(&code).then(|| refusal(code - ALERTS.start())).flatten();
        match found {
            Some(Refusal::Certificate(what)) if words.is_empty() => certificate(what.to_owned()),
            Some(Refusal::Certificate(what)) => certificate(format!("{what}: {words}")),
            Some(Refusal::Protocol) => Self::NoCommonProtocol { why: words },
            None => Self::Failed { why: format!("code {code:#x}: {words}") },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_cut_at_a_character() {
        assert_eq!(reason_bytes("short"), b"short");
        let long = "é".repeat(CLOSE_REASON_BYTES_MAX);
        assert_eq!(std::str::from_utf8(reason_bytes(&long)).unwrap().chars().count(), CLOSE_REASON_BYTES_MAX / 2);
        assert!(std::str::from_utf8(reason_bytes(&format!("a{long}"))).is_ok());
    }
}
