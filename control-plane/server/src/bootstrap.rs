//! A node's first minute: makes the cluster if the store is empty, and opens its authority.
//!
//! Which parts the node takes is decided in `core/sharding`, once the loop runs.

use crate::authority::{AuthorityError, ClusterSecret, SigningAuthority};
use crate::config::Config;
use crate::limits::FOUND_TRIES_MAX;
use muster_model::record::{ClusterRecord, Record};
use muster_model::store_op::{Compare, Key, KeyKind, PersistError, StoreOp, Stored, Write};
use muster_model::{IdError, NodeId, Rng, Uuid, WallTime};
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
    /// The generation of the store.
    pub generation: u64,
    /// Its number of shards.
    pub shard_count: u16,
    /// The node's number in ids that it makes.
    pub node_tag: u16,
}

/// What a node has before it plays any part.
pub struct Booted {
    /// Who it is.
    pub identity: NodeIdentity,
    /// The authority, opened.
    pub authority: SigningAuthority,
    /// For stateless resets: agents notice a restart at once.
    pub reset_key: [u8; 32],
    /// Authenticates nodes' probes.
    pub probe_key: [u8; 32],
    /// Seeded from the kernel's entropy, once.
    pub rng: Rng,
}

/// Makes or opens the cluster. Nodes that start together on an empty store agree on what the fastest one made.
pub async fn open_cluster(store: &Arc<dyn Store>, config: &Config, now: WallTime) -> Result<Booted, BootstrapError> {
    let mut tries = 0;
    loop {
        match try_open_cluster(store, config, now).await {
            Err(BootstrapError::Persist(PersistError::Conflict { .. })) if tries < FOUND_TRIES_MAX => tries += 1,
            outcome => return outcome,
        }
    }
}

async fn try_open_cluster(store: &Arc<dyn Store>, config: &Config, now: WallTime) -> Result<Booted, BootstrapError> {
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
        incarnation: incarnation(now, &mut rng),
        cluster_id: cluster.id,
        cluster_name: cluster.name.to_string(),
        generation: cluster.generation,
        shard_count: cluster.shard_count,
        node_tag: free_tag(&config.node_name, &everything),
    };
    let (reset_key, probe_key) = (secret.derive("stateless reset"), secret.derive("node probes"));
    Ok(Booted { identity, authority, reset_key, probe_key, rng })
}

/// Names this run of the program: later runs have larger numbers where the clock goes forward, and no two have the same.
fn incarnation(now: WallTime, rng: &mut Rng) -> u64 {
    (now.0 << 10) | rng.below(1 << 10)
}

/// A number for the node's stream ids that no registered node has: from its name, so that it is mostly the same again.
fn free_tag(name: &str, records: &[Stored]) -> u16 {
    let taken = records.iter().filter_map(|stored| match &stored.record {
        Record::Node(node) if node.name.as_str() != name => Some(node.node_tag),
        _ => None,
    });
    let taken: BTreeSet<u16> = taken.collect();
    let first = name.bytes().fold(0_u16, |hash, byte| hash.wrapping_mul(31).wrapping_add(u16::from(byte)));
    (0..=u16::MAX).map(|step| first.wrapping_add(step)).find(|tag| !taken.contains(tag)).unwrap_or(first)
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
