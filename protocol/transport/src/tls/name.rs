//! The name in a certificate: kind and id of a peer as one DNS name.
//!
//! DNS names compare without case, so a name is kept in lower case; ids that differ only by case are one peer.

use std::fmt;

use crate::limits::{DNS_LABEL_BYTES_MAX, DNS_NAME_BYTES_MAX};

/// The name that every node's certificate carries and every client asks for.
pub const SERVER_NAME: &str = "control-plane.muster.internal";

const AGENT_SUFFIX: &str = ".agent.muster.internal";
const NODE_SUFFIX: &str = ".node.muster.internal";

/// What a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKind {
    /// A machine that runs tasks.
    Agent,
    /// A node of the control plane.
    Node,
}

impl PeerKind {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Agent => AGENT_SUFFIX,
            Self::Node => NODE_SUFFIX,
        }
    }
}

impl fmt::Display for PeerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Node => "node",
        })
    }
}

/// Kind and name of a peer, as its certificate proves them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName {
    kind: PeerKind,
    name: String,
}

/// A name that cannot stand in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, too long, or with characters outside `[A-Za-z0-9.-]`.
    #[error(
        "`{name}` cannot name an {kind}; use up to {max} letters, digits and inner hyphens, with dots between parts of up to {DNS_LABEL_BYTES_MAX}"
    )]
    Unfit {
        /// What it should have named.
        kind: PeerKind,
        /// The refused text, cut to 80 characters.
        name: String,
        /// Longest name of this kind.
        max: usize,
    },
}

impl PeerName {
    /// Makes a name from an id, in lower case.
    ///
    /// Errors: [`NameError::Unfit`] if the result would not be a DNS name.
    pub fn new(kind: PeerKind, name: &str) -> Result<Self, NameError> {
        let max = DNS_NAME_BYTES_MAX.saturating_sub(kind.suffix().len());
        if name.len() > max || !name.split('.').all(is_label) {
            return Err(NameError::Unfit { kind, name: name.chars().take(80).collect(), max });
        }
        Ok(Self { kind, name: name.to_ascii_lowercase() })
    }

    /// Makes an agent's name.
    pub fn agent(name: &str) -> Result<Self, NameError> {
        Self::new(PeerKind::Agent, name)
    }

    /// Makes a node's name.
    pub fn node(name: &str) -> Result<Self, NameError> {
        Self::new(PeerKind::Node, name)
    }

    /// Reads a name back from the DNS name of a certificate; `None` for other DNS names.
    pub fn from_dns(dns: &str) -> Option<Self> {
        [PeerKind::Agent, PeerKind::Node]
            .into_iter()
            .find_map(|kind| Self::new(kind, dns.to_ascii_lowercase().strip_suffix(kind.suffix())?).ok())
    }

    /// Returns the DNS name that a certificate for this peer carries, e.g. `a1-s7.agent.muster.internal`.
    pub fn to_dns(&self) -> String {
        format!("{}{}", self.name, self.kind.suffix())
    }

    /// Returns all DNS names that the certificate must carry: for a node also [`SERVER_NAME`].
    pub fn certificate_names(&self) -> Vec<String> {
        match self.kind {
            PeerKind::Agent => vec![self.to_dns()],
            PeerKind::Node => vec![self.to_dns(), SERVER_NAME.to_owned()],
        }
    }

    /// Returns what the peer is.
    pub fn kind(&self) -> PeerKind {
        self.kind
    }

    /// Returns the id, in lower case.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Says whether this is the peer with that id, case aside.
    pub fn is(&self, kind: PeerKind, id: &str) -> bool {
        self.kind == kind && self.name.eq_ignore_ascii_case(id)
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

fn is_label(label: &str) -> bool {
    (1..=DNS_LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_survives_the_certificate_in_lower_case() {
        let long = "a".repeat(63);
        for (name, id, expected) in [
            ("as Mesos ids are", "3f1c-S12", Some("3f1c-s12")),
            ("with dots", "eu.rack-1", Some("eu.rack-1")),
            ("longest label", long.as_str(), Some(long.as_str())),
            ("empty", "", None),
            ("empty label", "a..b", None),
            ("hyphen first", "-a", None),
            ("hyphen last", "a-", None),
            ("slash", "a/b", None),
            ("wildcard", "*", None),
            ("not ascii", "é", None),
            ("label too long", &"a".repeat(64), None),
            ("name too long", &["a".repeat(60), "b".repeat(60), "c".repeat(60), "d".repeat(60)].join("."), None),
        ] {
            let made = PeerName::agent(id).ok();
            assert_eq!(made.as_ref().map(PeerName::name), expected, "case: {name}");
            if let Some(made) = made {
                assert_eq!(PeerName::from_dns(&made.to_dns()), Some(made), "case: {name}");
            }
        }
    }

    #[test]
    fn only_our_dns_names_are_peers() {
        assert_eq!(PeerName::from_dns(SERVER_NAME), None);
        assert_eq!(PeerName::from_dns("n1.node.muster.internal.evil.org"), None);
        assert_eq!(PeerName::from_dns(".agent.muster.internal"), None);
        assert_eq!(PeerName::from_dns("N1.NODE.muster.internal"), PeerName::node("n1").ok());
        assert!(PeerName::agent("A-S1").unwrap().is(PeerKind::Agent, "a-S1"));
        assert!(!PeerName::agent("A-S1").unwrap().is(PeerKind::Node, "a-S1"));
    }
}
