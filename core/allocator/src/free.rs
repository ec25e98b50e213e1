//! What is free on one agent, with the answers to what a cycle asks of it.
//!
//! The resources lie elsewhere in memory, one agent's far from the next one's. The answers lie with the agent, so that a
//! cycle that gives all that is free on an agent does not look at the resources at all.

use crate::cluster::DefaultMinimum;
use crate::tree::Amount;
use muster_model::resource::{ResourceError, ResourceName, Resources, Value};

/// How many names of scalars are well known: cpus, mem, disk and gpus, which are the first ones of each cluster.
pub(crate) const WELL_KNOWN_NAMES: usize = 4;

/// What is neither used nor granted of an agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Free {
    resources: Resources,
    /// Its scalars by name index; without meaning if `is_flat` is false.
    scalars: [u64; WELL_KNOWN_NAMES],
    /// All its scalars are of well-known names, and their sums are no larger than a scalar can be.
    is_flat: bool,
    is_plain: bool,
    is_enough: bool,
}

impl Free {
    /// Of some resources, in a cluster with this smallest offer.
    pub(crate) fn new(resources: Resources, minimum: DefaultMinimum) -> Self {
        let mut free =
            Self { resources, scalars: [0; WELL_KNOWN_NAMES], is_flat: true, is_plain: true, is_enough: true };
        free.judge(minimum);
        free
    }

    pub(crate) const fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Whether nothing is free.
    pub(crate) const fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// Whether nothing of it is reserved or revocable: anybody may have all of it.
    pub(crate) const fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Whether it is an offer for frameworks that name no minimum of their own.
    pub(crate) const fn is_enough(&self) -> bool {
        self.is_enough
    }

    /// Its scalars as they are charged. None where the resources themselves are to be asked.
    pub(crate) fn amounts(&self) -> Option<[Amount; WELL_KNOWN_NAMES]> {
        let [cpus, mem, disk, gpus] = self.scalars;
        self.is_flat.then_some([(0, cpus), (1, mem), (2, disk), (3, gpus)])
    }

    /// Adds what was given back. Errors: it can't be added; then nothing has changed.
    pub(crate) fn add(&mut self, more: &Resources, minimum: DefaultMinimum) -> Result<(), ResourceError> {
        self.resources.add(more)?;
        self.judge(minimum);
        Ok(())
    }

    /// Takes something away. Errors: it is not there; then nothing has changed.
    pub(crate) fn subtract(&mut self, less: &Resources, minimum: DefaultMinimum) -> Result<(), ResourceError> {
        self.resources.subtract(less)?;
        self.judge(minimum);
        Ok(())
    }

    /// The resources alone.
    pub(crate) fn into_resources(self) -> Resources {
        self.resources
    }

    fn judge(&mut self, minimum: DefaultMinimum) {
        (self.is_plain, self.is_enough) = (is_plain(&self.resources), is_enough(minimum, &self.resources));
        let scalars = scalars(&self.resources);
        (self.is_flat, self.scalars) = (scalars.is_some(), scalars.unwrap_or_default());
    }
}

/// Whether nothing of it is reserved or revocable.
fn is_plain(resources: &Resources) -> bool {
    resources.iter().all(|resource| resource.key.reservations.is_empty() && !resource.key.is_revocable)
}

/// Whether an amount is an offer for a framework that names no minimum.
pub(crate) fn is_enough(minimum: DefaultMinimum, offer: &Resources) -> bool {
    offer.scalar(&ResourceName::Cpus) >= minimum.cpus || offer.scalar(&ResourceName::Mem) >= minimum.mem
}

/// The index of a name that every cluster knows.
pub(crate) const fn well_known_index(name: &ResourceName) -> Option<usize> {
    match name {
        ResourceName::Cpus => Some(0),
        ResourceName::Mem => Some(1),
        ResourceName::Disk => Some(2),
        ResourceName::Gpus => Some(3),
        ResourceName::Ports | ResourceName::Other(_) => None,
    }
}

fn scalars(resources: &Resources) -> Option<[u64; WELL_KNOWN_NAMES]> {
    let mut scalars = [0u64; WELL_KNOWN_NAMES];
    for resource in resources {
        if let Value::Scalar(amount) = resource.value {
            let sum = scalars.get_mut(well_known_index(&resource.key.name)?)?;
            *sum = sum.checked_add(amount.0)?;
        }
    }
    Some(scalars)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use muster_model::resource::{Ranges, Reservation, ReservationKind, Resource, ResourceKey};
    use muster_model::{Milli, Role};

    #[test]
    fn the_answers_are_those_of_the_resources() {
        let minimum = DefaultMinimum { cpus: Milli(10), mem: Milli::whole(32) };
        let scalar = |name, amount| (name, Value::Scalar(Milli(amount)));
        let ports = || (ResourceName::Ports, Value::Ranges(Ranges::new([(31_000, 32_000)]).unwrap()));
        let role = Role::parse("ads").unwrap();
        let reserved = || {
            alloc::vec![Reservation {
                kind: ReservationKind::Static,
                role: role.clone(),
                principal: None,
                labels: Vec::new()
            }]
        };
        for (name, entries, reserved_entries, is_plain, is_enough, expected) in [
            ("nothing", Vec::new(), Vec::new(), true, false, Some([0; 4])),
            (
                "plain",
                alloc::vec![scalar(ResourceName::Cpus, 2000), scalar(ResourceName::Disk, 7), ports()],
                Vec::new(),
                true,
                true,
                Some([2000, 0, 7, 0]),
            ),
            (
                "partly reserved: both count",
                alloc::vec![scalar(ResourceName::Mem, 5), scalar(ResourceName::Gpus, 1000)],
                alloc::vec![scalar(ResourceName::Mem, 3)],
                false,
                false,
                Some([0, 8, 0, 1000]),
            ),
            (
                "a name of its own",
                alloc::vec![scalar(ResourceName::Other(Arc::from("fpgas")), 1)],
                Vec::new(),
                true,
                false,
                None,
            ),
            (
                "more than a scalar can be",
                alloc::vec![scalar(ResourceName::Disk, u64::MAX)],
                alloc::vec![scalar(ResourceName::Disk, 1)],
                false,
                false,
                None,
            ),
        ] {
            let plain = entries.into_iter().map(|(name, value)| Resource { key: ResourceKey::unreserved(name), value });
            let reserved = reserved_entries.into_iter().map(|(name, value)| Resource {
                key: ResourceKey { reservations: reserved(), ..ResourceKey::unreserved(name) },
                value,
            });
            let resources = Resources::collect(plain.chain(reserved)).unwrap();
            let free = Free::new(resources.clone(), minimum);
            assert_eq!((free.is_plain(), free.is_enough()), (is_plain, is_enough), "case: {name}");
            assert_eq!(free.amounts().map(|amounts| amounts.map(|(_, amount)| amount)), expected, "case: {name}");
            let mut changed = Free::new(Resources::new(), minimum);
            changed.add(&resources, minimum).unwrap();
            assert_eq!(changed, free, "case: {name}, added");
            changed.subtract(&resources, minimum).unwrap();
            assert_eq!(changed, Free::new(Resources::new(), minimum), "case: {name}, taken away again");
        }
    }
}
