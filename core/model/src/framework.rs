//! A framework: a tenant that accepts offers.

use crate::resource::ResourceName;
use crate::{Duration, FrameworkId, Milli, Role};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// What a framework declared it can handle. Source: mesos.proto, `FrameworkInfo.Capability`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Capabilities {
    /// Gets revocable resources in offers.
    pub revocable_resources: bool,
    /// Understands `TASK_KILLING`.
    pub task_killing_state: bool,
    /// Gets offers of agents with GPUs.
    pub gpu_resources: bool,
    /// Gets shared volumes in offers.
    pub shared_resources: bool,
    /// Understands the finer states that replace `TASK_LOST`.
    pub partition_aware: bool,
    /// Subscribes to a list of roles; resources carry the role they are allocated to.
    pub multi_role: bool,
    /// Gets resources with a reservation stack.
    pub reservation_refinement: bool,
    /// Gets offers of agents in other regions.
    pub region_aware: bool,
}

/// The smallest offers a role wants: an offer passes if it holds all amounts of at least one alternative.
/// An empty list means that every offer is large enough.
pub type MinAllocatable = Vec<BTreeMap<ResourceName, Milli>>;

/// What a framework said of itself when it subscribed, with its id filled in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrameworkInfo {
    /// Its id.
    pub id: FrameworkId,
    /// Name for people.
    pub name: Arc<str>,
    /// Default user of its tasks; can't change.
    pub user: Arc<str>,
    /// Roles it wants offers for. Exactly one without `multi_role`; may be empty with it.
    pub roles: BTreeSet<Role>,
    /// What it can handle.
    pub capabilities: Capabilities,
    /// How long its tasks outlive a lost connection.
    pub failover_timeout: Duration,
    /// Whether it asked for checkpoints; can't change. Muster keeps every framework's tasks, see docs/adr.
    pub is_checkpointing: bool,
    /// Principal; can't change.
    pub principal: Option<Arc<str>>,
    /// Per role, what is too small to be offered; roles that are absent use the cluster's default.
    pub min_allocatable: BTreeMap<Role, MinAllocatable>,
    /// The client's `FrameworkInfo` as protobuf bytes, which only `http-api` opens.
    pub spec: Arc<[u8]>,
}

/// What an agent must know of a framework to run its tasks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrameworkBrief {
    /// Its id.
    pub id: FrameworkId,
    /// Name for people.
    pub name: Arc<str>,
    /// Default user of its tasks.
    pub user: Arc<str>,
    /// What it can handle.
    pub capabilities: Capabilities,
}

impl FrameworkInfo {
    /// What agents and owners get to know of it.
    pub fn brief(&self) -> FrameworkBrief {
        FrameworkBrief {
            id: self.id.clone(),
            name: self.name.clone(),
            user: self.user.clone(),
            capabilities: self.capabilities,
        }
    }
}
