//! The book of one agent: what of its resources is used, what is granted, what is free.
//!
//! Invariant: held + granted + free = total, entry by entry, unless an agent reports more use than it has; then nothing
//! is free until it has less. Only an order or a picture makes use, only the allocator makes grants.

use crate::task::TaskKey;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::offer::Grant;
use muster_model::resource::Resources;
use muster_model::{FrameworkId, OfferId, Role};

/// What one task or order in flight holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) role: Role,
    pub(crate) resources: Resources,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Book {
    total: Resources,
    held: BTreeMap<TaskKey, Held>,
    grants: BTreeMap<OfferId, Arc<Grant>>,
    used: BTreeMap<(FrameworkId, Role), Resources>,
    free: Resources,
    /// Set while held and granted do not fit into the total: then every change counts everything again.
    is_overdrawn: bool,
}

impl Book {
    pub(crate) fn new(total: Resources) -> Self {
        Self {
            free: total.clone(),
            total,
            held: BTreeMap::new(),
            grants: BTreeMap::new(),
            used: BTreeMap::new(),
            is_overdrawn: false,
        }
    }

    pub(crate) fn free(&self) -> &Resources {
        &self.free
    }

    pub(crate) fn used(&self) -> &BTreeMap<(FrameworkId, Role), Resources> {
        &self.used
    }

    pub(crate) fn grants(&self) -> &BTreeMap<OfferId, Arc<Grant>> {
        &self.grants
    }

    /// Whether more is held and granted than there is.
    pub(crate) fn is_overdrawn(&self) -> bool {
        self.is_overdrawn
    }

    /// Replaces the total; grants are the caller's to close if it shrinks.
    pub(crate) fn set_total(&mut self, total: Resources) {
        self.total = total;
        self.count();
    }

    /// Enters a grant. Errors: its resources are not free, or the offer is there already; then nothing has changed.
    pub(crate) fn grant(&mut self, grant: Arc<Grant>) -> Result<(), Arc<Grant>> {
        if self.is_overdrawn
            || self.grants.contains_key(&grant.offer_id)
            || self.free.subtract(&grant.resources).is_err()
        {
            return Err(grant);
        }
        self.grants.insert(grant.offer_id, grant);
        debug_assert!(self.is_balanced());
        Ok(())
    }

    /// Takes a grant out; its resources are free.
    pub(crate) fn close(&mut self, offer_id: OfferId) -> Option<Arc<Grant>> {
        let grant = self.grants.remove(&offer_id)?;
        if self.is_overdrawn || self.free.add(&grant.resources).is_err() {
            self.count();
        }
        debug_assert!(self.is_balanced());
        Some(grant)
    }

    /// Takes all grants out.
    pub(crate) fn close_all(&mut self) -> Vec<Arc<Grant>> {
        let grants = core::mem::take(&mut self.grants).into_values().collect();
        self.count();
        grants
    }

    /// Charges a task, whether or not it fits: what runs, runs.
    pub(crate) fn hold(&mut self, key: TaskKey, role: Role, resources: Resources) {
        let owner = (key.0.clone(), role.clone());
        let is_new = !self.held.contains_key(&key);
        self.held.insert(key, Held { role, resources: resources.clone() });
        let fits = is_new
            && !self.is_overdrawn
            && self.free.contains(&resources)
            && self.used.entry(owner).or_default().add(&resources).is_ok();
        if !fits || self.free.subtract(&resources).is_err() {
            self.count();
        }
        debug_assert!(self.is_balanced());
    }

    /// What each task holds.
    pub(crate) fn held(&self) -> &BTreeMap<TaskKey, Held> {
        &self.held
    }

    /// Whether the task is charged.
    pub(crate) fn holds(&self, key: &TaskKey) -> bool {
        self.held.contains_key(key)
    }

    /// Lets go of a task's resources.
    pub(crate) fn release(&mut self, key: &TaskKey) -> Option<Held> {
        let held = self.held.remove(key)?;
        let owner = (key.0.clone(), held.role.clone());
        let used_is_less = match self.used.get_mut(&owner) {
            Some(used) => used.subtract(&held.resources).is_ok(),
            None => false,
        };
        if self.used.get(&owner).is_some_and(Resources::is_empty) {
            self.used.remove(&owner);
        }
        if self.is_overdrawn || !used_is_less || self.free.add(&held.resources).is_err() {
            self.count();
        }
        debug_assert!(self.is_balanced());
        Some(held)
    }

    /// Lets go of all tasks: a picture is about to say what runs.
    pub(crate) fn release_all(&mut self) {
        self.held.clear();
        self.count();
    }

    /// The law of the module, counted from scratch: for debug builds.
    fn is_balanced(&self) -> bool {
        let mut sum = self.free.clone();
        let mut used = Resources::new();
        let is_sum_whole = self.held.values().all(|held| sum.add(&held.resources).is_ok())
            && self.grants.values().all(|grant| sum.add(&grant.resources).is_ok());
        let is_used_whole = self.held.values().all(|held| used.add(&held.resources).is_ok());
        let mut by_owner = Resources::new();
        let is_split_whole = self.used.values().all(|used| by_owner.add(used).is_ok());
        self.is_overdrawn || (is_sum_whole && is_used_whole && is_split_whole && sum == self.total && used == by_owner)
    }

    /// Counts everything again from what is held and granted.
    fn count(&mut self) {
        self.used.clear();
        self.free = self.total.clone();
        self.is_overdrawn = false;
        for (key, held) in &self.held {
            let used = self.used.entry((key.0.clone(), held.role.clone())).or_default();
            for entry in &held.resources {
                // A port that two tasks claim counts once.
                if used.add_entry(entry.clone()).is_err() {
                    self.is_overdrawn = true;
                }
            }
            self.is_overdrawn |= self.free.subtract(&held.resources).is_err();
        }
        self.used.retain(|_, used| !used.is_empty());
        for grant in self.grants.values() {
            self.is_overdrawn |= self.free.subtract(&grant.resources).is_err();
        }
        if self.is_overdrawn {
            let mut free = self.total.clone();
            for amount in
                self.held.values().map(|held| &held.resources).chain(self.grants.values().map(|g| &g.resources))
            {
                free = free.saturating_sub(amount);
            }
            self.free = free;
        }
    }
}

/// As much of `wanted` as `held` has: the share of an order that one of its grants carries.
pub(crate) fn part_of(held: &Resources, wanted: &Resources) -> Resources {
    held.saturating_sub(&held.saturating_sub(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;
    use muster_model::fence::Fence;
    use muster_model::resource::{Ranges, Resource, ResourceKey, ResourceName, Value};
    use muster_model::{AgentId, Milli, TaskId};

    fn some(cpus: u64, mem: u64) -> Resources {
        Resources::basic(Milli(cpus), Milli(mem), Milli::ZERO)
    }

    fn key(task: &str) -> TaskKey {
        (FrameworkId::parse("f").unwrap(), TaskId::parse(task).unwrap())
    }

    fn grant(number: u64, resources: Resources) -> Arc<Grant> {
        Arc::new(Grant {
            offer_id: OfferId { epoch: 1, number },
            agent_id: AgentId::parse("a").unwrap(),
            framework_id: FrameworkId::parse("f").unwrap(),
            home_fence: Fence::default(),
            role: Role::star(),
            resources,
        })
    }

    #[test]
    fn what_is_granted_is_not_granted_again() {
        let mut book = Book::new(some(2000, 2000));
        book.grant(grant(1, some(1500, 500))).unwrap();
        assert!(book.grant(grant(2, some(600, 1))).is_err());
        assert!(book.grant(grant(1, some(1, 1))).is_err(), "the same offer twice");
        assert_eq!(book.free(), &some(500, 1500));
        book.close(OfferId { epoch: 1, number: 1 }).unwrap();
        assert_eq!(book.free(), &some(2000, 2000));
        assert_eq!(book.close(OfferId { epoch: 1, number: 1 }), None);
    }

    #[test]
    fn use_is_counted_per_framework_and_role_and_goes_away() {
        let mut book = Book::new(some(2000, 2000));
        book.hold(key("t1"), Role::star(), some(500, 500));
        book.hold(key("t2"), Role::star(), some(500, 100));
        let owner = (FrameworkId::parse("f").unwrap(), Role::star());
        assert_eq!(book.used().get(&owner), Some(&some(1000, 600)));
        assert!(book.release(&key("t1")).is_some());
        assert!(book.release(&key("t1")).is_none());
        assert!(book.release(&key("t2")).is_some());
        assert!(book.used().is_empty());
        assert_eq!(book.free(), &some(2000, 2000));
    }

    #[test]
    fn an_overdrawn_agent_offers_nothing_until_it_has_less() {
        let mut book = Book::new(some(1000, 1000));
        book.hold(key("t1"), Role::star(), some(800, 100));
        book.hold(key("t2"), Role::star(), some(800, 100));
        assert_eq!(book.free(), &some(0, 800));
        assert!(book.grant(grant(1, some(0, 1))).is_err());
        book.release(&key("t1"));
        assert_eq!(book.free(), &some(200, 900));
        book.grant(grant(1, some(200, 900))).unwrap();
        book.set_total(some(900, 1000));
        assert!(book.free().is_empty());
    }

    #[test]
    fn a_port_that_two_tasks_claim_counts_once() {
        let port = |n| {
            Resources::collect([Resource {
                key: ResourceKey::unreserved(ResourceName::Ports),
                value: Value::Ranges(Ranges::new([(n, n)]).unwrap()),
            }])
            .unwrap()
        };
        let mut total = port(1);
        total.add(&port(2)).unwrap();
        let mut book = Book::new(total);
        book.hold(key("t1"), Role::star(), port(1));
        book.hold(key("t2"), Role::star(), port(1));
        assert_eq!(book.free().to_string(), "ports:[2-2]");
        book.release(&key("t1"));
        assert_eq!(book.free().to_string(), "ports:[2-2]");
        book.release(&key("t2"));
        assert_eq!(book.free().to_string(), "ports:[1-2]");
    }

    #[test]
    fn an_order_is_split_over_its_grants() {
        let grants = vec![some(500, 1000), some(1500, 0)];
        let mut rest = some(1200, 300);
        let mut parts = Vec::new();
        for held in &grants {
            let part = part_of(held, &rest);
            rest = rest.saturating_sub(&part);
            parts.push(part);
        }
        assert_eq!(parts, [some(500, 300), some(700, 0)]);
        assert!(rest.is_empty());
    }
}
