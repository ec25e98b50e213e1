//! What an agent has, who holds it, and what is free. Every order is checked here.
//!
//! Invariant: free + held = total, as long as nothing is over-committed. Only recovery and a smaller total can
//! over-commit; then nothing more is given until enough came back.

use alloc::collections::BTreeMap;
use muster_model::ContainerId;
use muster_model::resource::Resources;

/// The ledger. Holders are containers: a task's id can come again while an old container still ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    total: Resources,
    free: Resources,
    held: BTreeMap<ContainerId, Resources>,
    is_overcommitted: bool,
}

impl Ledger {
    pub(crate) fn new(total: Resources) -> Self {
        Self { free: total.clone(), total, held: BTreeMap::new(), is_overcommitted: false }
    }

    pub(crate) fn free(&self) -> &Resources {
        &self.free
    }

    pub(crate) fn total(&self) -> &Resources {
        &self.total
    }

    /// Gives resources to a container. False: they are not free, and nothing has changed.
    pub(crate) fn take(&mut self, holder: &ContainerId, resources: &Resources) -> bool {
        if self.held.contains_key(holder) || self.free.subtract(resources).is_err() {
            return false;
        }
        self.held.insert(holder.clone(), resources.clone());
        true
    }

    /// Records what a found container holds, whether it is free or not.
    pub(crate) fn take_found(&mut self, holder: &ContainerId, resources: &Resources) {
        if self.held.contains_key(holder) || self.take(holder, resources) {
            return;
        }
        self.held.insert(holder.clone(), resources.clone());
        self.count_anew();
    }

    /// Takes back what a container held; nothing if it held nothing.
    pub(crate) fn release(&mut self, holder: &ContainerId) {
        let Some(resources) = self.held.remove(holder) else { return };
        // With over-commitment some of it was never free, so the sum is made anew.
        if self.is_overcommitted || self.free.add(&resources).is_err() {
            self.count_anew();
        }
    }

    /// Replaces the total: the machine was measured again.
    pub(crate) fn set_total(&mut self, total: Resources) {
        self.total = total;
        self.count_anew();
    }

    fn count_anew(&mut self) {
        self.free = self.total.clone();
        self.is_overcommitted = false;
        for resources in self.held.values() {
            if self.free.subtract(resources).is_err() {
                self.is_overcommitted = true;
                self.free = self.free.saturating_sub(resources);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use muster_model::Milli;

    fn some(cpus: u64) -> Resources {
        Resources::basic(Milli::whole(cpus), Milli::whole(cpus * 100), Milli::ZERO)
    }

    fn id(number: u64) -> ContainerId {
        ContainerId::parse(&format!("c{number}")).unwrap()
    }

    #[test]
    fn what_is_taken_comes_back() {
        let mut ledger = Ledger::new(some(4));
        assert!(ledger.take(&id(1), &some(3)));
        assert!(!ledger.take(&id(2), &some(2)), "only one is free");
        assert!(!ledger.take(&id(1), &some(1)), "a container takes once");
        assert_eq!(*ledger.free(), some(1));
        ledger.release(&id(1));
        ledger.release(&id(1));
        assert_eq!(*ledger.free(), some(4));
    }

    #[test]
    fn found_containers_may_overcommit_and_nothing_is_given_until_enough_is_back() {
        let mut ledger = Ledger::new(some(4));
        ledger.take_found(&id(1), &some(3));
        ledger.take_found(&id(2), &some(3));
        assert!(ledger.free().is_empty());
        ledger.release(&id(1));
        assert_eq!(*ledger.free(), some(1), "not three: two of them were never there");
        ledger.set_total(some(2));
        assert!(ledger.free().is_empty());
        ledger.release(&id(2));
        assert_eq!(*ledger.free(), some(2));
    }
}
