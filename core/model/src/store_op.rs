//! Store operations as data: what a part wants written, and under which condition.
//!
//! The store performs one operation as one transaction: every compare holds, then every write is done; or nothing is.

use crate::record::Record;
use crate::{AgentId, FrameworkId, NodeId, Role, ShardId};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Names one record in the store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Key {
    /// The cluster itself.
    Cluster,
    /// The certificate authority, sealed.
    Authority,
    /// Who owns a shard.
    Shard(ShardId),
    /// Who allocates.
    Allocator,
    /// An admitted agent.
    Agent(AgentId),
    /// A framework that is not removed.
    Framework(FrameworkId),
    /// A framework that was removed.
    Tombstone(FrameworkId),
    /// A join token, by the SHA-256 of its secret in hexadecimal.
    Token(Arc<str>),
    /// The policy of a role.
    Role(Role),
    /// A control-plane node that is there.
    Node(NodeId),
}

/// What one asks the store for as a range.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum KeyKind {
    /// Everything.
    All,
    /// All shards.
    Shards,
    /// All agents.
    Agents,
    /// All frameworks.
    Frameworks,
    /// All tombstones.
    Tombstones,
    /// All join tokens.
    Tokens,
    /// All roles with a policy.
    Roles,
    /// All control-plane nodes that are there.
    Nodes,
}

impl KeyKind {
    /// The text that all keys of the kind start with.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Shards => "shards/",
            Self::Agents => "agents/",
            Self::Frameworks => "frameworks/",
            Self::Tombstones => "tombstones/",
            Self::Tokens => "tokens/",
            Self::Roles => "roles/",
            Self::Nodes => "nodes/",
        }
    }
}

impl Key {
    /// The key as text; [`Self::parse`] reads it back.
    pub fn path(&self) -> String {
        match self {
            Self::Cluster => "cluster".into(),
            Self::Authority => "authority".into(),
            Self::Allocator => "allocator".into(),
            Self::Shard(shard) => format!("shards/{:05}", shard.0),
            Self::Agent(id) => format!("agents/{id}"),
            Self::Framework(id) => format!("frameworks/{id}"),
            Self::Tombstone(id) => format!("tombstones/{id}"),
            Self::Token(hash) => format!("tokens/{hash}"),
            Self::Role(role) => format!("roles/{role}"),
            Self::Node(id) => format!("nodes/{id}"),
        }
    }

    /// Reads a key's text; `None` for a text that is no key of this version.
    pub fn parse(path: &str) -> Option<Self> {
        match path {
            "cluster" => return Some(Self::Cluster),
            "authority" => return Some(Self::Authority),
            "allocator" => return Some(Self::Allocator),
            _ => {}
        }
        let (kind, rest) = path.split_once('/')?;
        match kind {
            "shards" => rest.parse().ok().map(|number| Self::Shard(ShardId(number))),
            "agents" => AgentId::parse(rest).ok().map(Self::Agent),
            "frameworks" => FrameworkId::parse(rest).ok().map(Self::Framework),
            "tombstones" => FrameworkId::parse(rest).ok().map(Self::Tombstone),
            "tokens" => (!rest.is_empty()).then(|| Self::Token(Arc::from(rest))),
            "roles" => Role::parse(rest).ok().map(Self::Role),
            "nodes" => NodeId::parse(rest).ok().map(Self::Node),
            _ => None,
        }
    }
}

/// A condition on one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compare {
    /// Which record.
    pub key: Key,
    /// The store's revision of its last change that is expected; `None` means that it must not exist.
    pub revision: Option<u64>,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// Create or replace.
    Put(Key, Record),
    /// Remove; removing what is not there is no error.
    Delete(Key),
}

/// One transaction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StoreOp {
    /// All must hold.
    pub compares: Vec<Compare>,
    /// All are done, or none.
    pub writes: Vec<Write>,
}

/// Why an operation changed nothing, or may have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PersistError {
    /// A compare did not hold: somebody else changed the record. Read and decide again.
    #[error("record {key} was changed meanwhile")]
    Conflict {
        /// The first key whose compare failed.
        key: String,
    },
    /// The store can't be reached now; nothing was written.
    #[error("the store is not available: {why}")]
    Unavailable {
        /// The store's answer.
        why: Arc<str>,
    },
    /// There is no room; nothing was written.
    #[error("the store is full: {why}")]
    Full {
        /// The store's answer.
        why: Arc<str>,
    },
    /// The answer was lost: it may be written or not. Read back.
    #[error("the store's answer was lost, read back what it holds: {why}")]
    Unknown {
        /// What is known.
        why: Arc<str>,
    },
}

/// A record with the revision of its last change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// Its key.
    pub key: Key,
    /// Revision of its last change.
    pub revision: u64,
    /// Its value.
    pub record: Record,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_what_they_write() {
        for key in [
            Key::Cluster,
            Key::Authority,
            Key::Allocator,
            Key::Shard(ShardId(7)),
            Key::Agent(AgentId::parse("x-S1").unwrap()),
            Key::Framework(FrameworkId::parse("x-0001").unwrap()),
            Key::Tombstone(FrameworkId::parse("x-0001").unwrap()),
            Key::Token(Arc::from("ab12")),
            Key::Role(Role::parse("a/b").unwrap()),
            Key::Node(NodeId::parse("node-1").unwrap()),
        ] {
            assert_eq!(Key::parse(&key.path()), Some(key));
        }
        assert_eq!(Key::parse("machines/a"), None);
        assert_eq!(Key::parse("nodes/a/b"), None);
    }
}
