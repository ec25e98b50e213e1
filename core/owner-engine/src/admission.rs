//! Decides whether a machine with a join token becomes an agent, and under which id.
//!
//! Pure: the shell reads the records, signs the certificate, performs the operation, and on a conflict reads and decides
//! again. The same join request sent twice gets the same id, even when the token is used up by then.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::agent::AgentInfo;
use muster_model::record::{Admission, AgentRecord, ClusterRecord, Record, TokenRecord};
use muster_model::store_op::{Compare, Key, StoreOp, Stored, Write};
use muster_model::{AgentId, ShardId, Uuid, WallTime};

/// What a machine asks with; the secret itself stays with the shell, which looks up the token by its hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinFacts {
    /// Random, kept by the machine.
    pub nonce: Uuid,
    /// What it says of itself.
    pub info: Arc<AgentInfo>,
}

/// What the store holds about the request.
#[derive(Clone, Copy, Debug)]
pub struct JoinRecords<'a> {
    /// Under `Key::Cluster`.
    pub cluster: &'a Stored,
    /// Under `Key::Token` of the hash of the secret, if there is one.
    pub token: Option<&'a Stored>,
    /// The agent whose `join_nonce` is the request's, if there is one.
    pub same_nonce: Option<&'a Stored>,
}

/// Why a machine does not become an agent. The text goes to its operator.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdmissionRefusal {
    /// No token has this secret.
    #[error("the join token is not known; make one with `muster tokens create` and give the whole text")]
    UnknownToken,
    /// An operator revoked it.
    #[error("join token '{name}' is revoked; make another with `muster tokens create`")]
    TokenRevoked {
        /// Its name.
        name: Arc<str>,
    },
    /// Its time is over.
    #[error("join token '{name}' expired {age_secs} s ago; make another with `muster tokens create`")]
    TokenExpired {
        /// Its name.
        name: Arc<str>,
        /// For how long it has been expired.
        age_secs: u64,
    },
    /// It was used as often as it may.
    #[error("join token '{name}' is used up; make another with `muster tokens create`")]
    TokenUsedUp {
        /// Its name.
        name: Arc<str>,
    },
    /// The machine was an agent that may not come back.
    #[error("agent {agent_id} was revoked or marked gone; remove its work directory and join again")]
    AgentBarred {
        /// Which agent.
        agent_id: AgentId,
    },
    /// The store holds something else under a key: a damaged store.
    #[error("the store holds no {expected} where one must be; an operator must restore it")]
    WrongRecord {
        /// What was expected.
        expected: &'static str,
    },
}

impl AdmissionRefusal {
    /// Whether coming again without a change by a person can help.
    pub const fn may_retry(&self) -> bool {
        match self {
            Self::UnknownToken
            | Self::TokenRevoked { .. }
            | Self::TokenExpired { .. }
            | Self::TokenUsedUp { .. }
            | Self::AgentBarred { .. } => false,
            Self::WrongRecord { .. } => true,
        }
    }
}

/// A machine that may become an agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdmissionPlan {
    /// The id: goes into the certificate.
    pub agent_id: AgentId,
    /// Its shard; tells the shell which owner to tell.
    pub shard: ShardId,
    /// Whether the id is new; the same request had it before otherwise.
    pub is_new: bool,
    compares: Vec<Compare>,
    writes: Vec<Write>,
    record: AgentRecord,
}

impl AdmissionPlan {
    /// The record as it will be stored, with the SHA-256 of the certificate that was signed for the id.
    pub fn record(&self, certificate: [u8; 32]) -> AgentRecord {
        AgentRecord { certificate, ..self.record.clone() }
    }

    /// The transaction that admits the agent. After it the shell answers the machine, and hands the record to the owner
    /// as `Input::AgentAdmitted`.
    pub fn store_op(&self, certificate: [u8; 32]) -> StoreOp {
        let mut writes = self.writes.clone();
        writes.push(Write::Put(Key::Agent(self.agent_id.clone()), Record::Agent(self.record(certificate))));
        StoreOp { compares: self.compares.clone(), writes }
    }
}

/// Plans one admission: request, token, cluster → id and transaction, or the reason for a refusal.
///
/// A token's last use and its expiry count for new agents only: the answer to a request may be lost, and then the
/// machine asks again.
pub fn plan_admission(
    facts: &JoinFacts,
    records: JoinRecords<'_>,
    now: WallTime,
) -> Result<AdmissionPlan, AdmissionRefusal> {
    let (stored_token, token) = token_of(records.token)?;
    if token.is_revoked {
        return Err(AdmissionRefusal::TokenRevoked { name: token.name.clone() });
    }
    let token_compare = Compare { key: stored_token.key.clone(), revision: Some(stored_token.revision) };
    let cluster = cluster_of(records.cluster)?;
    if let Some(stored) = records.same_nonce {
        return admit_again(facts, stored, token_compare, cluster);
    }
    if let Some(expires) = token.expires.filter(|expires| *expires <= now) {
        let age_secs = now.since(expires).as_secs();
        return Err(AdmissionRefusal::TokenExpired { name: token.name.clone(), age_secs });
    }
    let uses_left = match token.uses_left {
        Some(0) => return Err(AdmissionRefusal::TokenUsedUp { name: token.name.clone() }),
        Some(uses) => Some(uses.saturating_sub(1)),
        None => None,
    };
    let agent_id = AgentId::parse(&format!("{}-S{}", cluster.id, cluster.next_agent))
        .map_err(|_| AdmissionRefusal::WrongRecord { expected: "cluster" })?;
    let next = ClusterRecord { next_agent: cluster.next_agent.saturating_add(1), ..cluster.clone() };
    let mut writes = alloc::vec![Write::Put(Key::Cluster, Record::Cluster(next))];
    if uses_left.is_some() {
        writes.push(Write::Put(stored_token.key.clone(), Record::Token(TokenRecord { uses_left, ..token.clone() })));
    }
    Ok(AdmissionPlan {
        shard: ShardId::of(&agent_id, cluster.shard_count.max(1)),
        is_new: true,
        compares: alloc::vec![
            token_compare,
            Compare { key: Key::Cluster, revision: Some(records.cluster.revision) },
            Compare { key: Key::Agent(agent_id.clone()), revision: None },
        ],
        writes,
        record: AgentRecord {
            id: agent_id.clone(),
            certificate: [0; 32],
            join_nonce: facts.nonce,
            info: facts.info.clone(),
            admission: Admission::Active,
            is_deactivated: false,
            is_revoked: false,
            admitted: now,
            ratchet_token: None,
        },
        agent_id,
    })
}

fn token_of(stored: Option<&Stored>) -> Result<(&Stored, &TokenRecord), AdmissionRefusal> {
    let stored = stored.ok_or(AdmissionRefusal::UnknownToken)?;
    match &stored.record {
        Record::Token(token) => Ok((stored, token)),
        Record::Cluster(_)
        | Record::Authority(_)
        | Record::Part(_)
        | Record::Agent(_)
        | Record::Framework(_)
        | Record::Tombstone(_)
        | Record::Role(_)
        | Record::Node(_) => Err(AdmissionRefusal::WrongRecord { expected: "join token" }),
    }
}

fn cluster_of(stored: &Stored) -> Result<&ClusterRecord, AdmissionRefusal> {
    match &stored.record {
        Record::Cluster(cluster) => Ok(cluster),
        Record::Token(_)
        | Record::Authority(_)
        | Record::Part(_)
        | Record::Agent(_)
        | Record::Framework(_)
        | Record::Tombstone(_)
        | Record::Role(_)
        | Record::Node(_) => Err(AdmissionRefusal::WrongRecord { expected: "cluster" }),
    }
}

/// The same request again: the same id with a new certificate, and no further use of the token.
fn admit_again(
    facts: &JoinFacts,
    stored: &Stored,
    token_compare: Compare,
    cluster: &ClusterRecord,
) -> Result<AdmissionPlan, AdmissionRefusal> {
    let Record::Agent(agent) = &stored.record else {
        return Err(AdmissionRefusal::WrongRecord { expected: "agent" });
    };
    let is_barred = agent.is_revoked
        || match agent.admission {
            Admission::Gone { .. } => true,
            Admission::Active | Admission::Unreachable { .. } => false,
        };
    if is_barred || agent.join_nonce != facts.nonce {
        return Err(AdmissionRefusal::AgentBarred { agent_id: agent.id.clone() });
    }
    Ok(AdmissionPlan {
        agent_id: agent.id.clone(),
        shard: ShardId::of(&agent.id, cluster.shard_count.max(1)),
        is_new: false,
        compares: alloc::vec![
            token_compare,
            Compare { key: Key::Agent(agent.id.clone()), revision: Some(stored.revision) },
        ],
        writes: Vec::new(),
        record: AgentRecord { info: facts.info.clone(), ..agent.clone() },
    })
}
