//! Where the store is, as one writes it in a configuration, and opening it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::embedded::{Embedded, OpenError};
use crate::etcd::Etcd;
use crate::limits::MEMBERS_MAX;
use crate::store::Store;

const SCHEME: &str = "etcd://";
const PREFIX: &str = "muster";
const PREFIX_LEN_MAX: usize = 64;

/// Where the store is: `embedded`, or `etcd://host:port[,host:port…][/prefix]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Location {
    /// In the node's own data directory.
    #[default]
    Embedded,
    /// In an etcd cluster.
    Etcd {
        /// Its members, `host:port`.
        members: Vec<String>,
        /// First part of all keys, without slashes around it. Clusters that share an etcd have different ones.
        prefix: String,
    },
}

/// A text that names no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Neither of the two forms.
    #[error("'{text}' is neither 'embedded' nor 'etcd://HOST:PORT[,HOST:PORT…]'")]
    Form {
        /// The text.
        text: String,
    },
    /// TLS to etcd.
    #[error("'{text}': TLS to etcd is not supported; write etcd:// and keep etcd on loopback or a private network")]
    Tls {
        /// The text.
        text: String,
    },
    /// A member's address.
    #[error("'{member}' is no member of etcd; write HOST:PORT, such as 127.0.0.1:2379")]
    Member {
        /// The text.
        member: String,
    },
    /// A member that is named twice.
    #[error("member '{member}' is named twice; name each member once")]
    Twice {
        /// Which.
        member: String,
    },
    /// Too many members.
    #[error("{count} members of etcd are named, at most {MEMBERS_MAX} are used; name fewer")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// The prefix.
    #[error(
        "'{prefix}' is no prefix; use 1 to {PREFIX_LEN_MAX} of a-z, A-Z, 0-9, '-', '_', '.', with '/' between parts"
    )]
    Prefix {
        /// The text.
        prefix: String,
    },
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        if text == "embedded" {
            return Ok(Self::Embedded);
        }
        if text.starts_with("etcds://") || text.starts_with("https://") {
            return Err(LocationError::Tls { text: text.to_owned() });
        }
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| LocationError::Form { text: text.to_owned() })?;
        let (list, prefix) = rest.split_once('/').unwrap_or((rest, PREFIX));
        let members: Vec<String> = list.split(',').map(str::to_owned).collect();
        if members.len() > MEMBERS_MAX {
            return Err(LocationError::TooMany { count: members.len() });
        }
        let mut seen = BTreeSet::new();
        for member in &members {
            if !is_member(member) {
                return Err(LocationError::Member { member: member.clone() });
            }
            if !seen.insert(member) {
                return Err(LocationError::Twice { member: member.clone() });
            }
        }
        if !is_prefix(prefix) {
            return Err(LocationError::Prefix { prefix: prefix.to_owned() });
        }
        Ok(Self::Etcd { members, prefix: prefix.to_owned() })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::Etcd { members, prefix } if prefix == PREFIX => write!(f, "{SCHEME}{}", members.join(",")),
            Self::Etcd { members, prefix } => write!(f, "{SCHEME}{}/{prefix}", members.join(",")),
        }
    }
}

/// `name:port`, `1.2.3.4:port` or `[v6]:port`.
fn is_member(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_name = |host: &str| {
        !host.is_empty()
            && host.len() <= 253
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
    };
    let is_v6 = || {
        let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
    };
    port.parse::<u16>().is_ok_and(|port| port > 0) && (is_name(host) || is_v6())
}

fn is_prefix(text: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    text.len() <= PREFIX_LEN_MAX && text.split('/').all(is_part)
}

/// Opens the store that a configuration names; an embedded one in `directory`.
///
/// Blocks the thread while an embedded store is read as a whole. Waits a bounded time for etcd to answer.
pub async fn open(location: &Location, directory: &Path) -> Result<Arc<dyn Store>, OpenError> {
    Ok(match location {
        Location::Embedded => Arc::new(Embedded::open(directory)?),
        Location::Etcd { members, prefix } => Arc::new(Etcd::open(members, prefix).await?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_read_back_what_they_write() {
        for text in [
            "embedded",
            "etcd://127.0.0.1:2379",
            "etcd://a.example:2379,b-2:1,[::1]:65535",
            "etcd://a:2379/test",
            "etcd://a:2379/teams/one",
        ] {
            let location: Location = text.parse().unwrap();
            assert_eq!(location.to_string(), text);
        }
        let Location::Etcd { members, prefix } = "etcd://a:1,b:2".parse().unwrap() else { panic!("it is etcd") };
        assert_eq!((members.len(), prefix.as_str()), (2, "muster"));
    }

    #[test]
    fn texts_that_name_no_store_are_refused_with_what_is_wrong() {
        let many = format!("etcd://{}", (1..=10).map(|n| format!("h{n}:1")).collect::<Vec<_>>().join(","));
        for (text, expected) in [
            ("", "neither"),
            ("redis://a:1", "neither"),
            ("Embedded", "neither"),
            ("etcds://a:1", "TLS"),
            ("https://a:1", "TLS"),
            ("etcd://", "'' is no member"),
            ("etcd://a", "'a' is no member"),
            ("etcd://a:0", "'a:0' is no member"),
            ("etcd://a:65536", "'a:65536' is no member"),
            ("etcd://a:1,", "'' is no member"),
            ("etcd://a:1, b:2", "' b:2' is no member"),
            ("etcd://:2379", "':2379' is no member"),
            ("etcd://::1:2379", "'::1:2379' is no member"),
            ("etcd://user@a:1", "'user@a:1' is no member"),
            ("etcd://a:1,a:1", "named twice"),
            (many.as_str(), "10 members"),
            ("etcd://a:1/", "'' is no prefix"),
            ("etcd://a:1/x/", "'x/' is no prefix"),
            ("etcd://a:1/x y", "'x y' is no prefix"),
        ] {
            let error = text.parse::<Location>().unwrap_err().to_string();
            assert!(error.contains(expected), "case: {text}: {error}");
        }
    }
}
