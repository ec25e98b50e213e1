//! The node's record in the store: who it is and where, there for as long as its process shows signs of life.

use crate::limits::{NAME_RETRY, NAME_WAIT, PRESENCE_TTL};
use muster_model::NodeId;
use muster_model::record::{NodeRecord, Record};
use muster_model::store_op::{Key, PersistError};
use muster_store::{Presence, Standing, Store};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;
use tracing::{info, warn};

/// Why a node can't be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// Another process has the name.
    #[error(
        "another process is registered as node {name} of this cluster (in the store for {} s after its last sign of life); stop it, or give this one another --node-name",
        PRESENCE_TTL.as_secs()
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The store did not write.
    #[error("cannot register the node in the store")]
    Persist(#[source] PersistError),
}

/// Registers the node. The record of an earlier run of it that was killed is waited for; a process that lives keeps its
/// name, and this one ends with [`RegistrationError::NameTaken`].
pub async fn register(store: &Arc<dyn Store>, record: NodeRecord) -> Result<Presence, RegistrationError> {
    let (began, key) = (Instant::now(), Key::Node(record.name.clone()));
    let mut is_told = false;
    loop {
        match store.keep(key.clone(), Record::Node(record.clone()), PRESENCE_TTL).await {
            Ok(presence) => return Ok(presence),
            Err(PersistError::Conflict { .. }) if began.elapsed() < NAME_WAIT => {
                if !std::mem::replace(&mut is_told, true) {
                    info!(node = %record.name, "an earlier run of this node is still registered; waiting for its record to vanish");
                }
                tokio::time::sleep(NAME_RETRY).await;
            }
            Err(PersistError::Conflict { .. }) => {
                return Err(RegistrationError::NameTaken { name: record.name.to_string() });
            }
            Err(error) => return Err(RegistrationError::Persist(error)),
        }
    }
}

/// Watches the registration until it is to end, then takes it back: the other nodes need not find out that this one is
/// gone. Returns early only when another process has taken the name meanwhile.
pub async fn keep(
    mut presence: Presence,
    name: NodeId,
    mut stop: oneshot::Receiver<()>,
) -> Result<(), RegistrationError> {
    loop {
        tokio::select! {
            standing = presence.changed() => match standing {
                Standing::Held => info!("registered again"),
                Standing::Lost => warn!("the registration is lost while the store does not answer; it is renewed by itself"),
                Standing::Replaced => return Err(RegistrationError::NameTaken { name: name.to_string() }),
            },
            _ = &mut stop => {
                presence.end().await;
                return Ok(());
            }
        }
    }
}
