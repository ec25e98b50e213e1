//! A node's first minute: makes the cluster if the store is empty, opens its authority, and takes its parts.
//!
//! What is claimed and how an unknown outcome is read back is decided in `core/sharding`; here the store is asked.

use crate::authority::{AuthorityError, ClusterSecret, SigningAuthority};
use crate::config::Config;
use crate::event_loop::Start;
use crate::limits::STORE_GROUP_MAX;
use muster_home_engine::io as home;
use muster_model::record::{ClusterRecord, Record};
use muster_model::store_op::{Compare, Key, KeyKind, PersistError, StoreOp, Stored, Write};
use muster_model::time::Now;
use muster_model::view::ShardView;
use muster_model::{IdError, NodeId, Rng, Timestamp, Uuid, WallTime};
use muster_owner_engine::io as owner;
use muster_sharding::fence::{ClaimConfig, Claims, Input as ClaimInput, Output as ClaimOutput, OwnedShard};
use muster_sharding::live::Live;
use muster_store::{ReadError, Store};
use std::collections::BTreeSet;
use std::sync::Arc;
use tracing::info;

/// Shards of a new cluster; fixed for its life.
const SHARD_COUNT: u16 = 256;

/// Why a node can't take its parts.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The store did not read.
    #[error("cannot read the store")]
    Read(#[from] ReadError),
    /// The store did not write.
    #[error("cannot write to the store")]
    Persist(#[from] PersistError),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The node's name.
    #[error("the node's name is no id")]
    Name(#[from] IdError),
    /// No randomness.
    #[error("the system gives no entropy: {0}")]
    Entropy(String),
    /// The store holds something else under a key.
    #[error(
        "the store holds no {what} although it is not empty; restore it from a copy, or start with an empty data directory"
    )]
    Incomplete {
        /// What is missing.
        what: &'static str,
    },
}

/// Who this process is in the cluster.
#[derive(Debug, Clone)]
pub struct NodeIdentity {
    /// The node's name.
    pub node: NodeId,
    /// This run of the program.
    pub incarnation: u64,
    /// The cluster's id.
    pub cluster_id: Uuid,
    /// Its name for people.
    pub cluster_name: String,
    /// Its number of shards.
    pub shard_count: u16,
}

/// What a node has after it took its parts.
pub struct Booted {
    /// Who it is.
    pub identity: NodeIdentity,
    /// The authority, opened.
    pub authority: SigningAuthority,
    /// For stateless resets: agents notice a restart at once.
    pub reset_key: [u8; 32],
    /// Seeded from the kernel's entropy, once.
    pub rng: Rng,
    /// What the engines are told first.
    pub start: Start,
}

/// Makes or opens the cluster and takes all of its parts for this process.
pub async fn take_parts(store: &Arc<dyn Store>, config: &Config, now: WallTime) -> Result<Booted, BootstrapError> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| BootstrapError::Entropy(error.to_string()))?;
    let mut rng = Rng::new(u64::from_le_bytes(seed));
    let secret_path = config.data_dir.join("cluster-secret");
    let everything = store.range(KeyKind::All).await?.records;
    let (cluster, authority, secret) = match find_cluster(&everything) {
        Some(cluster) => {
            let sealed = everything.iter().find_map(|stored| match &stored.record {
                Record::Authority(sealed) => Some(sealed),
                _ => None,
            });
            let sealed = sealed.ok_or(BootstrapError::Incomplete { what: "authority" })?;
            let secret = ClusterSecret::load_or_create(&secret_path, false)?;
            let authority = SigningAuthority::open(&secret, sealed, &cluster.id.to_string())?;
            (cluster.clone(), authority, secret)
        }
        None if everything.is_empty() => {
            let secret = ClusterSecret::load_or_create(&secret_path, true)?;
            let (cluster, authority) = found_cluster(store, config, &secret, &mut rng, now).await?;
            (cluster, authority, secret)
        }
        None => return Err(BootstrapError::Incomplete { what: "cluster record" }),
    };
    let identity = NodeIdentity {
        node: NodeId::parse(&config.node_name)?,
        incarnation: rng.next_u64(),
        cluster_id: cluster.id,
        cluster_name: cluster.name.to_string(),
        shard_count: cluster.shard_count,
    };
    let start = claim(store, &identity, &cluster, now).await?;
    Ok(Booted { identity, authority, reset_key: secret.derive("stateless reset"), rng, start })
}

fn find_cluster(records: &[Stored]) -> Option<&ClusterRecord> {
    records.iter().find_map(|stored| match &stored.record {
        Record::Cluster(cluster) => Some(cluster),
        _ => None,
    })
}

/// Cluster and authority are written in one transaction: a crash leaves both or none.
async fn found_cluster(
    store: &Arc<dyn Store>,
    config: &Config,
    secret: &ClusterSecret,
    rng: &mut Rng,
    now: WallTime,
) -> Result<(ClusterRecord, SigningAuthority), BootstrapError> {
    let cluster = ClusterRecord {
        id: Uuid::from_random(rng.bytes16()),
        name: Arc::from(config.cluster_name.as_str()),
        generation: store.generation(),
        shard_count: SHARD_COUNT,
        created: now,
        next_agent: 0,
        next_framework: 0,
    };
    let (authority, plain) = SigningAuthority::create(&cluster.id.to_string())?;
    let sealed = SigningAuthority::seal(secret, plain)?;
    let absent = |key| Compare { key, revision: None };
    store
        .perform(StoreOp {
            compares: vec![absent(Key::Cluster), absent(Key::Authority)],
            writes: vec![
                Write::Put(Key::Cluster, Record::Cluster(cluster.clone())),
                Write::Put(Key::Authority, Record::Authority(Arc::from(sealed))),
            ],
        })
        .await?;
    info!(cluster = %cluster.id, name = %cluster.name, "new cluster");
    Ok((cluster, authority))
}

/// Takes every part for this process: what is claimed is decided by [`Claims`], here the store is asked.
async fn claim(
    store: &Arc<dyn Store>,
    identity: &NodeIdentity,
    cluster: &ClusterRecord,
    now: WallTime,
) -> Result<Start, BootstrapError> {
    let mut claims = Claims::new(ClaimConfig {
        node: identity.node.clone(),
        incarnation: identity.incarnation,
        generation: cluster.generation,
        shard_count: identity.shard_count,
        keys_per_op_max: STORE_GROUP_MAX,
    });
    // No timer runs before the loop does: a store that does not answer now is an error of the start.
    let now = Now { mono: Timestamp::ZERO, wall: now };
    let live = Live::alone(identity.node.clone(), 1, identity.incarnation);
    claims.handle(ClaimInput::Loaded { records: store.range(KeyKind::All).await?.records, live }, now);
    let (mut shards, mut allocating) = (Vec::new(), None);
    while let Some(output) = claims.poll_output() {
        match output {
            ClaimOutput::Persist { seq, op } => {
                let input = match store.perform(op).await {
                    Ok(revision) => ClaimInput::Persisted { seq, revision },
                    Err(error @ (PersistError::Unavailable { .. } | PersistError::Full { .. })) => {
                        return Err(error.into());
                    }
                    Err(error) => ClaimInput::PersistFailed { seq, error },
                };
                claims.handle(input, now);
            }
            ClaimOutput::ReadBack { seq, keys } => {
                let records = store.get(keys).await?.records;
                claims.handle(ClaimInput::Read { seq, records }, now);
            }
            ClaimOutput::Owned { shards: owned } => {
                let taken =
                    |it: OwnedShard| owner::TakenShard { shard: it.shard, fence: it.fence, revision: it.revision };
                shards.extend(owned.into_iter().map(taken));
            }
            ClaimOutput::Allocating { fence, .. } => allocating = Some(fence),
            ClaimOutput::Lost { .. }
            | ClaimOutput::HandOver { .. }
            | ClaimOutput::HandOverCancelled { .. }
            | ClaimOutput::Damaged { .. } => {
                return Err(BootstrapError::Incomplete { what: "readable record of a shard's owner" });
            }
        }
    }
    let fence = allocating.ok_or(BootstrapError::Incomplete { what: "free place for an allocator" })?;
    // After its swap each part reads what it acts on.
    let everything = store.range(KeyKind::All).await?.records;
    let of_kind = |kind: KeyKind| -> Vec<Stored> {
        everything.iter().filter(|stored| stored.key.path().starts_with(kind.prefix())).cloned().collect()
    };
    let removed = everything.iter().filter_map(|stored| match &stored.key {
        Key::Tombstone(id) => Some(id.clone()),
        _ => None,
    });
    let shown = shards.iter().map(|it: &owner::TakenShard| ShardView {
        shard: it.shard,
        owner: Some(identity.node.clone()),
        fence: it.fence,
        since: now.wall,
        why: Arc::from("taken at the node's start"),
    });
    Ok(Start {
        shown_shards: shown.collect(),
        shards: owner::Input::ShardsTaken {
            shards,
            agents: of_kind(KeyKind::Agents),
            removed_frameworks: removed.collect(),
            frameworks: Vec::new(),
        },
        took: muster_allocator::io::Input::Took { fence, roles: of_kind(KeyKind::Roles) },
        owners: home::Input::OwnersChanged(BTreeSet::from([identity.node.clone()])),
        loaded: everything,
    })
}
