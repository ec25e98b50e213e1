//! The desk where a machine trades a join token for a certificate.
//!
//! What is decided stands in `owner-engine/src/admission.rs`; here the records are read, the certificate is signed, and
//! the transaction is tried again when another one was faster.

use crate::admin::token_hash;
use crate::authority::SigningAuthority;
use crate::event_loop::wall_now;
use muster_model::agent_message::{JoinReply, JoinRequest};
use muster_model::record::Record;
use muster_model::store_op::{Key, KeyKind, PersistError, Stored};
use muster_owner_engine::admission::{JoinFacts, JoinRecords, plan_admission};
use muster_store::Store;
use muster_transport::tls::PeerKind;
use ring::digest::{SHA256, digest};
use std::sync::Arc;
use tracing::{info, warn};

/// How often an admission that lost against another write is decided again.
const TRIES_MAX: usize = 32;
/// Longest secret that is looked up.
const SECRET_BYTES_MAX: usize = 256;

/// Admits machines.
pub struct JoinDesk {
    store: Arc<dyn Store>,
    authority: Arc<SigningAuthority>,
}

impl JoinDesk {
    /// Joins store and authority.
    pub fn new(store: Arc<dyn Store>, authority: Arc<SigningAuthority>) -> Self {
        Self { store, authority }
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
        let unreadable =
            |error: muster_store::ReadError| (format!("the control plane cannot read its store: {error}"), true);
        for _ in 0..TRIES_MAX {
            let records = self.store.get(vec![Key::Cluster, token_key.clone()]).await.map_err(unreadable)?.records;
            let token = records.iter().find(|stored| stored.key == token_key);
            let cluster = records.iter().find(|stored| stored.key == Key::Cluster);
            let cluster = cluster.ok_or_else(|| ("the store holds no cluster record".to_owned(), true))?;
            // Only a holder of a token may make us look through all agents.
            let agents = match token {
                Some(_) => self.store.range(KeyKind::Agents).await.map_err(unreadable)?.records,
                None => Vec::new(),
            };
            let has_nonce =
                |stored: &&Stored| matches!(&stored.record, Record::Agent(agent) if agent.join_nonce == request.nonce);
            let same_nonce = agents.iter().find(has_nonce);
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
}
