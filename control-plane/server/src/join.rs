//! The desk where a machine trades a join token for a certificate.
//!
//! What is decided stands in `owner-engine/src/admission.rs`; here the records are read, the certificate is signed, and
//! the transaction is tried again when another one was faster.

use crate::admin::token_hash;
use crate::authority::SigningAuthority;
use crate::event_loop::wall_now;
use crate::limits::STORE_GROUP_MAX;
use muster_model::agent_message::{JoinReply, JoinRequest};
use muster_model::record::{ClusterRecord, Record};
use muster_model::store_op::{Key, KeyKind, PersistError, Stored};
use muster_model::{AgentId, Uuid};
use muster_owner_engine::admission::{JoinFacts, JoinRecords, plan_admission};
use muster_store::{ReadError, Store};
use muster_transport::tls::PeerKind;
use ring::digest::{SHA256, digest};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tracing::{info, warn};

/// How often an admission that lost against another write is decided again.
const TRIES_MAX: usize = 32;
/// Longest secret that is looked up.
const SECRET_BYTES_MAX: usize = 256;

/// Admits machines.
pub struct JoinDesk {
    store: Arc<dyn Store>,
    authority: Arc<SigningAuthority>,
    nonces: Mutex<Nonces>,
}

/// The join nonces of the agents with the lowest numbers. A nonce never changes, and each admission counts the numbers up
/// in its own transaction, so what is known stays true and only newer agents are looked up.
#[derive(Debug, Default)]
struct Nonces {
    /// Agents below this number are known.
    known: u64,
    agents: HashMap<Uuid, AgentId>,
}

impl Nonces {
    fn learn(&mut self, records: &[Stored], known: u64) {
        for stored in records {
            if let Record::Agent(agent) = &stored.record {
                self.agents.insert(agent.join_nonce, agent.id.clone());
            }
        }
        self.known = self.known.max(known);
    }
}

impl JoinDesk {
    /// Joins store and authority.
    pub fn new(store: Arc<dyn Store>, authority: Arc<SigningAuthority>) -> Self {
        Self { store, authority, nonces: Mutex::default() }
    }

    /// Answers a request; with an admission comes the new record, which the owner must be told before the answer goes out.
    pub async fn admit(&self, request: JoinRequest) -> (JoinReply, Option<Stored>) {
        match self.try_admit(&request).await {
            Ok((reply, stored)) => (reply, Some(stored)),
            Err((why, may_retry)) => {
                info!(hostname = %request.info.hostname, why, "join refused");
                (JoinReply::Refused { why: Arc::from(why), may_retry }, None)
            }
        }
    }

    async fn try_admit(&self, request: &JoinRequest) -> Result<(JoinReply, Stored), (String, bool)> {
        if request.secret.len() > SECRET_BYTES_MAX {
            return Err(("the join token is too long; copy it again".to_owned(), false));
        }
        let token_key = Key::Token(Arc::from(token_hash(&request.secret)));
        let facts = JoinFacts { nonce: request.nonce, info: Arc::clone(&request.info) };
        let unreadable = |error: ReadError| (format!("the control plane cannot read its store: {error}"), true);
        for _ in 0..TRIES_MAX {
            let records = self.store.get(vec![Key::Cluster, token_key.clone()]).await.map_err(unreadable)?.records;
            let token = records.iter().find(|stored| stored.key == token_key);
            let cluster = records.iter().find(|stored| stored.key == Key::Cluster);
            let cluster = cluster.ok_or_else(|| ("the store holds no cluster record".to_owned(), true))?;
            // Only a holder of a token may make us look through agents.
            let same_nonce = match token {
                Some(_) => self.agent_of(request.nonce, cluster).await.map_err(unreadable)?,
                None => None,
            };
            let same_nonce = same_nonce.as_ref();
            let plan = plan_admission(&facts, JoinRecords { cluster, token, same_nonce }, wall_now())
                .map_err(|refusal| (refusal.to_string(), refusal.may_retry()))?;
            let leaf = self
                .authority
                .sign(&request.csr, PeerKind::Agent, plan.agent_id.as_str())
                .map_err(|error| (error.to_string(), false))?;
            let mut fingerprint = [0; 32];
            fingerprint.iter_mut().zip(digest(&SHA256, &leaf).as_ref()).for_each(|(to, from)| *to = *from);
            match self.store.perform(plan.store_op(fingerprint)).await {
                Ok(revision) => {
                    info!(agent_id = %plan.agent_id, hostname = %request.info.hostname, "agent admitted");
                    let record = Record::Agent(plan.record(fingerprint));
                    let stored = Stored { key: Key::Agent(plan.agent_id.clone()), revision, record };
                    let reply = JoinReply::Admitted {
                        agent_id: plan.agent_id,
                        chain: vec![Arc::from(leaf)],
                        ca: Arc::from(self.authority.public().as_der()),
                    };
                    return Ok((reply, stored));
                }
                // Another machine joined, or a framework subscribed, in between; or nobody knows: read what is there.
                Err(PersistError::Conflict { .. } | PersistError::Unknown { .. }) => {}
                Err(error) => {
                    warn!(%error, "cannot admit an agent");
                    return Err((format!("the control plane cannot write to its store: {error}"), true));
                }
            }
        }
        Err(("too many machines join at once; try again".to_owned(), true))
    }

    /// The agent that was admitted by a request with this nonce, as of the cluster's record or newer.
    async fn agent_of(&self, nonce: Uuid, cluster: &Stored) -> Result<Option<Stored>, ReadError> {
        let Record::Cluster(ClusterRecord { id, next_agent, .. }) = &cluster.record else { return Ok(None) };
        let known = {
            let mut nonces = self.nonces();
            // Numbers that went down: the store is an older copy, and what is known is of another one.
            if nonces.known > *next_agent {
                *nonces = Nonces::default();
            }
            nonces.known
        };
        let key = |number: u64| AgentId::parse(&format!("{id}-S{number}")).ok().map(Key::Agent);
        let newer: Vec<Key> = (known..*next_agent).take(STORE_GROUP_MAX + 1).filter_map(key).collect();
        if newer.len() > STORE_GROUP_MAX {
            let all = self.store.range(KeyKind::Agents).await?.records;
            self.nonces().learn(&all, *next_agent);
        } else if !newer.is_empty() {
            let records = self.store.get(newer).await?.records;
            self.nonces().learn(&records, *next_agent);
        }
        let agent_id = self.nonces().agents.get(&nonce).cloned();
        match agent_id {
            Some(agent_id) => {
                let has_nonce =
                    |stored: &Stored| matches!(&stored.record, Record::Agent(agent) if agent.join_nonce == nonce);
                Ok(self.store.get(vec![Key::Agent(agent_id)]).await?.records.into_iter().find(has_nonce))
            }
            None => Ok(None),
        }
    }

    fn nonces(&self) -> std::sync::MutexGuard<'_, Nonces> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::open_cluster;
    use crate::config::{Config, Flags};
    use muster_model::agent::AgentInfo;
    use muster_model::record::TokenRecord;
    use muster_model::resource::Resources;
    use muster_model::store_op::{StoreOp, Write};
    use muster_model::{Milli, WallTime};
    use muster_transport::tls::PendingIdentity;

    /// Two desks, as two nodes have them, on one store with a token of this secret.
    async fn two_desks(dir: &std::path::Path, secret: &str) -> (JoinDesk, JoinDesk) {
        let flags = Flags { data_dir: Some(dir.to_owned()), ..Flags::default() };
        let config = Config::from_flags(flags).unwrap();
        let store: Arc<dyn Store> = muster_store::open(&config.store, &config.data_dir).await.unwrap();
        let authority = Arc::new(open_cluster(&store, &config, WallTime(1)).await.unwrap().authority);
        let name = Arc::from("t");
        let token = TokenRecord { name, uses_left: None, expires: None, created: WallTime(1), is_revoked: false };
        let write = Write::Put(Key::Token(Arc::from(token_hash(secret))), Record::Token(token));
        store.perform(StoreOp { compares: Vec::new(), writes: vec![write] }).await.unwrap();
        (JoinDesk::new(Arc::clone(&store), Arc::clone(&authority)), JoinDesk::new(store, authority))
    }

    async fn join(desk: &JoinDesk, secret: &str, csr: &Arc<[u8]>, nonce: u8) -> AgentId {
        let info = AgentInfo {
            hostname: Arc::from("h"),
            ip: Arc::from("127.0.0.1"),
            port: 5051,
            total: Resources::basic(Milli::whole(1), Milli::whole(64), Milli::ZERO),
            attributes: Vec::new(),
            version: Arc::from("1"),
            missing_isolation: Vec::new(),
        };
        let nonce = Uuid([nonce; 16]);
        let request = JoinRequest { secret: Arc::from(secret), csr: Arc::clone(csr), nonce, info: Arc::new(info) };
        match desk.admit(request).await.0 {
            JoinReply::Admitted { agent_id, .. } => agent_id,
            JoinReply::Refused { why, .. } => panic!("refused: {why}"),
        }
    }

    #[tokio::test]
    async fn the_same_request_gets_the_same_id_at_any_node_however_many_joined_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = two_desks(dir.path(), "s").await;
        let csr: Arc<[u8]> = Arc::from(PendingIdentity::generate().unwrap().request_der());
        let first = join(&one, "s", &csr, 0).await;
        assert_eq!(join(&other, "s", &csr, 0).await, first, "the other node looks up what it does not know");
        assert_eq!(join(&one, "s", &csr, 0).await, first);
        let second = join(&other, "s", &csr, 1).await;
        assert_ne!(second, first);
        // More than are looked up one by one.
        let mut ids = vec![first, second];
        for nonce in 2..=u8::try_from(STORE_GROUP_MAX).unwrap() + 10 {
            ids.push(join(&one, "s", &csr, nonce).await);
        }
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), ids.len(), "no id is given twice");
        for (nonce, id) in ids.iter().enumerate() {
            let nonce = u8::try_from(nonce).unwrap();
            assert_eq!(join(&other, "s", &csr, nonce).await, *id, "nonce {nonce}");
        }
    }
}
