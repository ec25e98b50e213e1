//! What operators do with the store: join tokens, and what an agent may.
//!
//! A token's secret is shown once, when it is made; the store holds its hash only.

use crate::event::Event;
use muster_model::record::{AgentRecord, Record, TokenRecord};
use muster_model::store_op::{Compare, Key, KeyKind, PersistError, StoreOp, Stored, Write};
use muster_model::{AgentId, Duration, WallTime};
use muster_store::{ReadError, Store};
use muster_transport::tls::AuthorityPin;
use ring::digest::{SHA256, digest};
use std::fmt::Write as _;
use std::sync::Arc;
use tokio::sync::mpsc;
use tracing::info;

/// Longest name of a token.
const NAME_BYTES_MAX: usize = 64;
const SECRET_BYTES: usize = 24;

/// The operators' desk.
pub struct Admin {
    store: Arc<dyn Store>,
    events: mpsc::Sender<Event>,
    pin: AuthorityPin,
    advertise: String,
}

/// What an operator asks of a new token.
#[derive(Debug, Clone, Default)]
pub struct NewToken {
    /// Name for people; made up when empty.
    pub name: String,
    /// How often it may be used; absent means any number of times.
    pub uses: Option<u32>,
    /// How long it is valid; absent means for ever.
    pub valid_for: Option<Duration>,
}

/// Why something could not be done for an operator.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The request is wrong.
    #[error("{0}")]
    Bad(String),
    /// There is nothing of that name.
    #[error("no join token is named '{0}'; `muster tokens list` shows them")]
    NoSuchToken(String),
    /// There is no agent of that id.
    #[error("no agent has the id '{0}'; `muster agents` shows them")]
    NoSuchAgent(String),
    /// The store did not read.
    #[error("cannot read the store")]
    Read(#[from] ReadError),
    /// The store did not write.
    #[error("cannot write to the store")]
    Persist(#[from] PersistError),
}

impl Admin {
    /// Joins the store with what goes into a token.
    pub fn new(store: Arc<dyn Store>, events: mpsc::Sender<Event>, pin: AuthorityPin, advertise: String) -> Self {
        Self { store, events, pin, advertise }
    }

    /// Where machines are told to join, `host:port`.
    pub fn advertise(&self) -> &str {
        &self.advertise
    }

    /// Makes a token; returns it whole, this one time, and its record.
    pub async fn create_token(&self, new: NewToken, now: WallTime) -> Result<(String, TokenRecord), AdminError> {
        if new.uses == Some(0) {
            return Err(AdminError::Bad(
                "a token with 0 uses would admit nobody; leave uses out for any number".into(),
            ));
        }
        if new.name.len() > NAME_BYTES_MAX || new.name.chars().any(char::is_control) {
            return Err(AdminError::Bad(format!(
                "a token's name has at most {NAME_BYTES_MAX} bytes and no control characters"
            )));
        }
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| AdminError::Bad(format!("no entropy: {error}")))?;
        let secret = hex(&bytes);
        let hash = token_hash(&secret);
        let name = if new.name.is_empty() { format!("token-{}", hash.get(..8).unwrap_or_default()) } else { new.name };
        let is_taken = |record: &TokenRecord| *record.name == *name && is_usable(record, now);
        if self.tokens().await?.iter().any(|(_, record)| is_taken(record)) {
            return Err(AdminError::Bad(format!(
                "a join token named '{name}' exists; choose another name or revoke it"
            )));
        }
        let record = TokenRecord {
            name: Arc::from(name),
            uses_left: new.uses,
            expires: new.valid_for.map(|length| now.after(length)),
            created: now,
            is_revoked: false,
        };
        let key = Key::Token(Arc::from(hash));
        let op = StoreOp {
            compares: vec![Compare { key: key.clone(), revision: None }],
            writes: vec![Write::Put(key, Record::Token(record.clone()))],
        };
        self.store.perform(op).await?;
        Ok((format!("{}.{secret}", self.pin), record))
    }

    /// All tokens.
    pub async fn tokens(&self) -> Result<Vec<(Stored, TokenRecord)>, AdminError> {
        let all = self.store.range(KeyKind::Tokens).await?;
        let token = |stored: Stored| match &stored.record {
            Record::Token(record) => {
                let record = record.clone();
                Some((stored, record))
            }
            _ => None,
        };
        Ok(all.records.into_iter().filter_map(token).collect())
    }

    /// Revokes an agent's certificate: its session ends and it never comes back; its tasks count as lost once it has been
    /// silent for the agent timeout. To use the machine again, empty its work directory and join anew.
    pub async fn revoke_agent(&self, id: &str) -> Result<(), AdminError> {
        self.change_agent(id, |agent| agent.is_revoked = true).await?;
        info!(agent_id = id, "certificate revoked by an operator");
        Ok(())
    }

    /// Stops offers on an agent; its tasks run on.
    pub async fn deactivate_agent(&self, id: &str) -> Result<(), AdminError> {
        if self.change_agent(id, |agent| agent.is_deactivated = true).await?.is_some() {
            info!(agent_id = id, "agent deactivated by an operator");
        }
        Ok(())
    }

    /// Lets offers be made on an agent again. Returns its record as it is now, or nothing where it was not deactivated.
    pub async fn reactivate_agent(&self, id: &str) -> Result<Option<AgentRecord>, AdminError> {
        let changed = self.change_agent(id, |agent| agent.is_deactivated = false).await?;
        if changed.is_some() {
            info!(agent_id = id, "agent reactivated by an operator");
        }
        Ok(changed)
    }

    /// Changes an agent's record and tells this node's engines; others hear of it by the store's watch. Returns the new
    /// record, or nothing where nothing was to be changed.
    async fn change_agent(
        &self,
        id: &str,
        change: impl Fn(&mut AgentRecord),
    ) -> Result<Option<AgentRecord>, AdminError> {
        let no_such = || AdminError::NoSuchAgent(id.to_owned());
        let key = Key::Agent(AgentId::parse(id).map_err(|_| no_such())?);
        for _ in 0..RETRIES_MAX {
            let found = self.store.get(vec![key.clone()]).await?.records.into_iter().next().ok_or_else(no_such)?;
            let Record::Agent(before) = found.record else { return Err(no_such()) };
            let mut agent = before.clone();
            change(&mut agent);
            if agent == before {
                return Ok(None);
            }
            let record = Record::Agent(agent.clone());
            let op = StoreOp {
                compares: vec![Compare { key: key.clone(), revision: Some(found.revision) }],
                writes: vec![Write::Put(key.clone(), record.clone())],
            };
            match self.store.perform(op).await {
                Ok(revision) => {
                    let changed = Stored { key, revision, record };
                    // A closed channel means that the node stops; the record says it all to the next owner.
                    let _ = self.events.send(Event::AgentAdmitted(Box::new(changed))).await;
                    return Ok(Some(agent));
                }
                Err(PersistError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(AdminError::Bad(format!("agent {id} changes faster than an operator can change it; try again")))
    }

    /// Revokes a token by its name. Machines that joined with it stay.
    pub async fn revoke_token(&self, name: &str) -> Result<TokenRecord, AdminError> {
        for _ in 0..RETRIES_MAX {
            let named = self.tokens().await?.into_iter().filter(|(_, record)| &*record.name == name);
            // A name may have served before: the newest token of the name is meant.
            let found = named.max_by_key(|(_, record)| (!record.is_revoked, record.created));
            let (stored, mut record) = found.ok_or_else(|| AdminError::NoSuchToken(name.to_owned()))?;
            record.is_revoked = true;
            let op = StoreOp {
                compares: vec![Compare { key: stored.key.clone(), revision: Some(stored.revision) }],
                writes: vec![Write::Put(stored.key, Record::Token(record.clone()))],
            };
            match self.store.perform(op).await {
                Ok(_) => return Ok(record),
                // A machine joined with it in between: read its count again.
                Err(PersistError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(AdminError::Bad(format!("token '{name}' changes faster than it can be revoked; try again")))
    }
}

/// Whether a machine could join with it now.
fn is_usable(record: &TokenRecord, now: WallTime) -> bool {
    !record.is_revoked && record.uses_left != Some(0) && record.expires.is_none_or(|expires| expires > now)
}

/// How often a write that lost against another is tried again.
const RETRIES_MAX: usize = 16;

/// The name of a secret in the store: SHA-256 in hexadecimal.
pub fn token_hash(secret: &str) -> String {
    hex(digest(&SHA256, secret.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
