//! The records of the cluster itself, of parts, tokens, roles and nodes.

use muster_model::fence::Fence as ModelFence;
use muster_model::record::{ClusterRecord, NodeRecord, PartRecord, RoleRecord, TokenRecord};
use muster_model::{Milli, NodeId, Uuid, WallTime};
use rkyv::{Archive, Deserialize, Serialize};

use super::RecordError;

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct Cluster {
    id: [u8; 16],
    name: String,
    generation: u64,
    shard_count: u16,
    created: u64,
    next_agent: u64,
    next_framework: u64,
}

impl From<&ClusterRecord> for Cluster {
    fn from(record: &ClusterRecord) -> Self {
        Self {
            id: record.id.0,
            name: record.name.to_string(),
            generation: record.generation,
            shard_count: record.shard_count,
            created: record.created.0,
            next_agent: record.next_agent,
            next_framework: record.next_framework,
        }
    }
}

impl Cluster {
    pub(super) fn into_model(self) -> ClusterRecord {
        ClusterRecord {
            id: Uuid(self.id),
            name: self.name.into(),
            generation: self.generation,
            shard_count: self.shard_count,
            created: WallTime(self.created),
            next_agent: self.next_agent,
            next_framework: self.next_framework,
        }
    }
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct Part {
    node: String,
    generation: u64,
    epoch: u64,
    incarnation: u64,
    since: u64,
    why: String,
}

impl From<&PartRecord> for Part {
    fn from(record: &PartRecord) -> Self {
        let ModelFence { generation, epoch, incarnation } = record.fence;
        Self {
            node: record.node.as_str().to_owned(),
            generation,
            epoch,
            incarnation,
            since: record.since.0,
            why: record.why.to_string(),
        }
    }
}

impl Part {
    pub(super) fn into_model(self) -> Result<PartRecord, RecordError> {
        let Self { generation, epoch, incarnation, .. } = self;
        Ok(PartRecord {
            node: NodeId::parse(&self.node).map_err(RecordError::damaged)?,
            fence: ModelFence { generation, epoch, incarnation },
            since: WallTime(self.since),
            why: self.why.into(),
        })
    }
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct Token {
    name: String,
    uses_left: Option<u32>,
    expires: Option<u64>,
    created: u64,
    is_revoked: bool,
}

impl From<&TokenRecord> for Token {
    fn from(record: &TokenRecord) -> Self {
        Self {
            name: record.name.to_string(),
            uses_left: record.uses_left,
            expires: record.expires.map(|at| at.0),
            created: record.created.0,
            is_revoked: record.is_revoked,
        }
    }
}

impl Token {
    pub(super) fn into_model(self) -> TokenRecord {
        TokenRecord {
            name: self.name.into(),
            uses_left: self.uses_left,
            expires: self.expires.map(WallTime),
            created: WallTime(self.created),
            is_revoked: self.is_revoked,
        }
    }
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct Role {
    weight: u64,
}

impl From<&RoleRecord> for Role {
    fn from(record: &RoleRecord) -> Self {
        Self { weight: record.weight.0 }
    }
}

impl Role {
    pub(super) fn into_model(self) -> RoleRecord {
        RoleRecord { weight: Milli(self.weight) }
    }
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct Node {
    name: String,
    http: String,
    quic: String,
    probe: String,
    incarnation: u64,
    node_tag: u16,
    capacity: u16,
    started: u64,
}

impl From<&NodeRecord> for Node {
    fn from(record: &NodeRecord) -> Self {
        Self {
            name: record.name.as_str().to_owned(),
            http: record.http.to_string(),
            quic: record.quic.to_string(),
            probe: record.probe.to_string(),
            incarnation: record.incarnation,
            node_tag: record.node_tag,
            capacity: record.capacity,
            started: record.started.0,
        }
    }
}

impl Node {
    pub(super) fn into_model(self) -> Result<NodeRecord, RecordError> {
        Ok(NodeRecord {
            name: NodeId::parse(&self.name).map_err(RecordError::damaged)?,
            http: self.http.into(),
            quic: self.quic.into(),
            probe: self.probe.into(),
            incarnation: self.incarnation,
            node_tag: self.node_tag,
            capacity: self.capacity,
            started: WallTime(self.started),
        })
    }
}
