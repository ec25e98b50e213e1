//! What the store holds, as this node last heard: who plays which part, and the records that a part needs when it starts.
//!
//! Fed by one reading and then by the watch, so it is the store as it was at [`Directory::revision`]. A part's new holder
//! may speak before the watch has told of it: then the message's fence, which is higher, is believed ([`Directory::learn`]).

use crate::io::{Holder, StoreChange};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use muster_model::fence::Fence;
use muster_model::framework::FrameworkBrief;
use muster_model::record::{NodeRecord, PartRecord, Record};
use muster_model::store_op::{Key, Stored};
use muster_model::{AgentId, FrameworkId, NodeId, Role, ShardId};

/// What was changed by a batch of changes, in the order of keys.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Shards whose record changed, with the holder before.
    pub(crate) shards: Vec<(ShardId, Option<Holder>)>,
    /// Whether another node or run allocates.
    pub(crate) is_allocator_moved: bool,
    /// Whether nodes came or went.
    pub(crate) are_nodes_changed: bool,
    /// Records of agents that were made or changed.
    pub(crate) agents: Vec<Stored>,
    /// Records of frameworks, of tombstones and of the cluster that were made or changed.
    pub(crate) frameworks: Vec<Stored>,
    /// Records of shards and of the allocator, for whoever claims them.
    pub(crate) parts: Vec<Stored>,
}

/// The store as this node knows it.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    revision: u64,
    parts: BTreeMap<Key, (Stored, PartRecord)>,
    nodes: BTreeMap<NodeId, NodeRecord>,
    agents: BTreeMap<AgentId, Stored>,
    frameworks: BTreeMap<FrameworkId, Stored>,
    tombstones: BTreeMap<FrameworkId, Stored>,
    roles: BTreeMap<Role, Stored>,
    /// Homes as they were last heard of, from the store or from themselves.
    homes: BTreeMap<FrameworkId, Holder>,
    /// The allocator as it was last heard of.
    allocator: Option<Holder>,
}

impl Directory {
    /// Replaces everything by what was read; says what differs from before.
    pub(crate) fn load(&mut self, records: Vec<Stored>, revision: u64) -> Changes {
        let present: BTreeSet<Key> = records.iter().map(|stored| stored.key.clone()).collect();
        let gone = self.keys().filter(|key| !present.contains(key)).collect::<Vec<_>>();
        let mut changes: Vec<StoreChange> =
            gone.into_iter().map(|key| StoreChange::Deleted { key, revision }).collect();
        // The watch goes on after the reading: nothing of it is older than what was told before.
        changes.extend(records.into_iter().filter(|stored| self.is_news(stored)).map(StoreChange::Put));
        let changed = self.change(changes);
        self.revision = self.revision.max(revision);
        changed
    }

    fn keys(&self) -> impl Iterator<Item = Key> {
        let nodes = self.nodes.keys().cloned().map(Key::Node);
        let agents = self.agents.keys().cloned().map(Key::Agent);
        let frameworks = self.frameworks.keys().cloned().map(Key::Framework);
        let tombstones = self.tombstones.keys().cloned().map(Key::Tombstone);
        let roles = self.roles.keys().cloned().map(Key::Role);
        self.parts.keys().cloned().chain(nodes).chain(agents).chain(frameworks).chain(tombstones).chain(roles)
    }

    fn is_news(&self, stored: &Stored) -> bool {
        let known = match &stored.key {
            Key::Shard(_) | Key::Allocator => self.parts.get(&stored.key).map(|(known, _)| known),
            Key::Agent(id) => self.agents.get(id),
            Key::Framework(id) => self.frameworks.get(id),
            Key::Tombstone(id) => self.tombstones.get(id),
            Key::Role(role) => self.roles.get(role),
            Key::Node(_) | Key::Cluster | Key::Authority | Key::Token(_) => None,
        };
        known.is_none_or(|known| known.revision < stored.revision)
    }

    /// Takes changes in order.
    pub(crate) fn change(&mut self, changes: Vec<StoreChange>) -> Changes {
        let mut changed = Changes::default();
        for change in changes {
            match change {
                StoreChange::Put(stored) => {
                    self.revision = self.revision.max(stored.revision);
                    self.put(stored, &mut changed);
                }
                StoreChange::Deleted { key, revision } => {
                    self.revision = self.revision.max(revision);
                    self.delete(&key, &mut changed);
                }
            }
        }
        changed
    }

    fn put(&mut self, stored: Stored, changed: &mut Changes) {
        match (&stored.key, &stored.record) {
            (Key::Shard(shard), Record::Part(part)) => {
                let (shard, part) = (*shard, part.clone());
                let before = self.parts.insert(stored.key.clone(), (stored.clone(), part));
                changed.shards.push((shard, before.map(|(_, part)| holder(&part))));
                changed.parts.push(stored);
            }
            (Key::Allocator, Record::Part(part)) => {
                let part = part.clone();
                changed.is_allocator_moved |= self.hear_allocator(holder(&part));
                self.parts.insert(Key::Allocator, (stored.clone(), part));
                changed.parts.push(stored);
            }
            (Key::Node(name), Record::Node(node)) => {
                changed.are_nodes_changed |= self.nodes.get(name) != Some(node);
                self.nodes.insert(name.clone(), node.clone());
            }
            (Key::Agent(id), Record::Agent(_)) => {
                self.agents.insert(id.clone(), stored.clone());
                changed.agents.push(stored);
            }
            (Key::Framework(id), Record::Framework(record)) => {
                self.hear_home(id, holder(&record.home));
                self.frameworks.insert(id.clone(), stored.clone());
                changed.frameworks.push(stored);
            }
            (Key::Tombstone(id), Record::Tombstone(_)) => {
                self.homes.remove(id);
                self.tombstones.insert(id.clone(), stored.clone());
                changed.frameworks.push(stored);
            }
            (Key::Role(role), Record::Role(_)) => {
                self.roles.insert(role.clone(), stored);
            }
            // The home counts framework ids up in it.
            (Key::Cluster, Record::Cluster(_)) => changed.frameworks.push(stored),
            // A shard's record that is none is the claims' to complain about.
            (Key::Shard(_) | Key::Allocator, _) => changed.parts.push(stored),
            (_, _) => {}
        }
    }

    fn delete(&mut self, key: &Key, changed: &mut Changes) {
        match key {
            Key::Node(name) => changed.are_nodes_changed |= self.nodes.remove(name).is_some(),
            Key::Agent(id) => {
                self.agents.remove(id);
            }
            // Its home is forgotten with the tombstone that takes the record's place: without one somebody else removed it,
            // and what is on its way to the home must not go astray.
            Key::Framework(id) => {
                self.frameworks.remove(id);
            }
            Key::Tombstone(id) => {
                self.tombstones.remove(id);
            }
            Key::Role(role) => {
                self.roles.remove(role);
            }
            // Nobody deletes these; whoever did would have to restore the store.
            Key::Shard(_) | Key::Allocator | Key::Cluster | Key::Authority | Key::Token(_) => {}
        }
    }

    /// Believes a newer holder of the allocator's part; says whether it is one.
    pub(crate) fn hear_allocator(&mut self, heard: Holder) -> bool {
        let is_newer = self.allocator.as_ref().is_none_or(|known| heard.fence > known.fence);
        if is_newer {
            self.allocator = Some(heard);
        }
        is_newer
    }

    /// Believes a newer home of a framework.
    pub(crate) fn hear_home(&mut self, id: &FrameworkId, heard: Holder) {
        match self.homes.get_mut(id) {
            Some(known) if known.fence >= heard.fence => {}
            Some(known) => *known = heard,
            None => {
                self.homes.insert(id.clone(), heard);
            }
        }
    }

    /// The store's revision that all of this is of.
    pub(crate) const fn revision(&self) -> u64 {
        self.revision
    }

    /// Who owns a shard, as the store has it.
    pub(crate) fn shard(&self, shard: ShardId) -> Option<&PartRecord> {
        self.parts.get(&Key::Shard(shard)).map(|(_, part)| part)
    }

    /// All shards with their records.
    pub(crate) fn shards(&self) -> impl Iterator<Item = (ShardId, &PartRecord)> {
        self.parts.iter().filter_map(|(key, (_, part))| match key {
            Key::Shard(shard) => Some((*shard, part)),
            _ => None,
        })
    }

    /// Records of shards and of the allocator.
    pub(crate) fn part_records(&self) -> Vec<Stored> {
        self.parts.values().map(|(stored, _)| stored.clone()).collect()
    }

    /// Nodes that own at least one shard.
    pub(crate) fn owners(&self) -> BTreeSet<NodeId> {
        self.shards().map(|(_, part)| part.node.clone()).collect()
    }

    /// The shards of a node.
    pub(crate) fn shards_of(&self, node: &NodeId) -> BTreeSet<ShardId> {
        self.shards().filter(|(_, part)| part.node == *node).map(|(shard, _)| shard).collect()
    }

    /// Who allocates.
    pub(crate) const fn allocator(&self) -> Option<&Holder> {
        self.allocator.as_ref()
    }

    /// A framework's home.
    pub(crate) fn home(&self, id: &FrameworkId) -> Option<&Holder> {
        self.homes.get(id)
    }

    /// Frameworks whose home a node is.
    pub(crate) fn frameworks_of(&self, node: &NodeId) -> BTreeSet<FrameworkId> {
        self.homes.iter().filter(|(_, home)| home.node == *node).map(|(id, _)| id.clone()).collect()
    }

    /// Nodes that are registered now.
    pub(crate) const fn nodes(&self) -> &BTreeMap<NodeId, NodeRecord> {
        &self.nodes
    }

    /// Records of the agents of some shards.
    pub(crate) fn agents_in(&self, shards: &BTreeSet<ShardId>, shard_count: u16) -> Vec<Stored> {
        let is_in = |id: &AgentId| shards.contains(&ShardId::of(id, shard_count));
        self.agents.iter().filter(|(id, _)| is_in(id)).map(|(_, stored)| stored.clone()).collect()
    }

    /// Frameworks that exist, with the fences of their homes.
    pub(crate) fn frameworks(&self) -> Vec<(FrameworkBrief, Fence)> {
        let known = self.frameworks.iter().filter_map(|(id, stored)| match &stored.record {
            Record::Framework(record) => {
                let heard = self.homes.get(id).map_or(record.home.fence, |home| home.fence);
                Some((record.info.brief(), heard.max(record.home.fence)))
            }
            _ => None,
        });
        known.collect()
    }

    /// Frameworks that were removed.
    pub(crate) fn removed(&self) -> Vec<FrameworkId> {
        self.tombstones.keys().cloned().collect()
    }

    /// Policies of roles.
    pub(crate) fn roles(&self) -> Vec<Stored> {
        self.roles.values().cloned().collect()
    }
}

pub(crate) fn holder(part: &PartRecord) -> Holder {
    Holder { node: part.node.clone(), fence: part.fence }
}
