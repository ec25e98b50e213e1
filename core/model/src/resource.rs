//! Resources of an agent: what is offered, used and reserved, with exact arithmetic.
//!
//! Invariant: a [`Resources`] value is canonical: sorted by [`ResourceKey`], one entry per key, no empty entry. So two
//! equal amounts are equal values. Source of the merge rules: Mesos docs/attributes-resources.md and docs/reservation.md.

use crate::{Milli, Role};
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// The name of a resource. The well-known ones need no allocation and compare fast.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceName {
    /// Processor time, in cores.
    Cpus,
    /// Memory, in MiB.
    Mem,
    /// Disk space, in MiB.
    Disk,
    /// Whole graphics processors.
    Gpus,
    /// TCP and UDP ports, as ranges.
    Ports,
    /// Any other resource that an operator declared.
    Other(Arc<str>),
}

impl ResourceName {
    /// The name for a text, the well-known variant where there is one.
    pub fn new(text: &str) -> Self {
        match text {
            "cpus" => Self::Cpus,
            "mem" => Self::Mem,
            "disk" => Self::Disk,
            "gpus" => Self::Gpus,
            "ports" => Self::Ports,
            other => Self::Other(Arc::from(other)),
        }
    }

    /// The name as Mesos spells it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Cpus => "cpus",
            Self::Mem => "mem",
            Self::Disk => "disk",
            Self::Gpus => "gpus",
            Self::Ports => "ports",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a reservation stands in the agent's configuration or was made at run time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ReservationKind {
    /// From the agent's `--resources`; can't be undone while it runs.
    Static,
    /// Made by a framework or operator.
    Dynamic,
}

/// One level of a reservation stack; the last level's role may use the resource.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reservation {
    /// How it came to be.
    pub kind: ReservationKind,
    /// For whom it is set aside.
    pub role: Role,
    /// Who made it, where authentication told.
    pub principal: Option<Arc<str>>,
    /// Labels, in the order given.
    pub labels: Vec<(Arc<str>, Option<Arc<str>>)>,
}

/// What makes two amounts addable: everything of a resource but its value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ResourceKey {
    /// Its name.
    pub name: ResourceName,
    /// The reservation stack from root to leaf; empty for unreserved resources.
    pub reservations: Vec<Reservation>,
    /// Whether it may be taken back at any time (oversubscription).
    pub is_revocable: bool,
}

impl ResourceKey {
    /// An unreserved, non-revocable resource of this name.
    pub fn unreserved(name: ResourceName) -> Self {
        Self { name, reservations: Vec::new(), is_revocable: false }
    }

    /// The role that it is reserved for; none when unreserved.
    pub fn reserved_for(&self) -> Option<&Role> {
        self.reservations.last().map(|reservation| &reservation.role)
    }

    /// Whether frameworks of this role may be offered it: unreserved, or reserved for the role or one above it.
    pub fn is_usable_by(&self, role: &Role) -> bool {
        self.reserved_for().is_none_or(|reserved| role.is_within(reserved))
    }
}

/// Inclusive ranges of integers, sorted, neither touching nor overlapping.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Builds ranges out of `(begin, end)` pairs in any order. `None` if a pair's begin lies after its end.
    pub fn new(pairs: impl IntoIterator<Item = (u64, u64)>) -> Option<Self> {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        if pairs.iter().any(|(begin, end)| begin > end) {
            return None;
        }
        pairs.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(pairs.len());
        for (begin, end) in pairs {
            match merged.last_mut() {
                Some((_, last)) if begin <= last.saturating_add(1) => *last = (*last).max(end),
                _ => merged.push((begin, end)),
            }
        }
        Some(Self(merged))
    }

    /// The pairs, ascending.
    pub fn pairs(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// How many integers are in it; saturates.
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0, |sum: u64, (begin, end)| sum.saturating_add(end - begin).saturating_add(1))
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn union(&self, other: &Self) -> Self {
        Self::new(self.0.iter().chain(&other.0).copied()).unwrap_or_default()
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|(begin, end)| other.0.iter().any(|(from, to)| begin <= to && from <= end))
    }

    /// Whether every integer of `other` is in it.
    pub fn contains(&self, other: &Self) -> bool {
        other.0.iter().all(|(from, to)| self.0.iter().any(|(begin, end)| begin <= from && to <= end))
    }

    fn without(&self, other: &Self) -> Self {
        let mut rest = Vec::new();
        for &(begin, end) in &self.0 {
            let mut next = Some(begin);
            for &(from, to) in &other.0 {
                let Some(start) = next else { break };
                if to < start || from > end {
                    continue;
                }
                if from > start {
                    rest.push((start, from - 1));
                }
                next = to.checked_add(1).filter(|start| *start <= end);
            }
            if let Some(start) = next {
                rest.push((start, end));
            }
        }
        Self(rest)
    }
}

impl fmt::Display for Ranges {
    /// Writes `[31000-32000, 40000-40000]`, as Mesos does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, (begin, end)) in self.0.iter().enumerate() {
            write!(f, "{}{begin}-{end}", if index == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How much of a resource.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Value {
    /// An amount with three decimals.
    Scalar(Milli),
    /// Integers, such as port numbers.
    Ranges(Ranges),
    /// Named items.
    Set(BTreeSet<Arc<str>>),
}

impl Value {
    /// Whether it is an amount of nothing.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Scalar(amount) => *amount == Milli::ZERO,
            Self::Ranges(ranges) => ranges.is_empty(),
            Self::Set(items) => items.is_empty(),
        }
    }

    fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Scalar(mine), Self::Scalar(theirs)) => mine >= theirs,
            (Self::Ranges(mine), Self::Ranges(theirs)) => mine.contains(theirs),
            (Self::Set(mine), Self::Set(theirs)) => theirs.is_subset(mine),
            (Self::Scalar(_) | Self::Ranges(_) | Self::Set(_), _) => false,
        }
    }

    fn without(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Scalar(mine), Self::Scalar(theirs)) => mine.checked_sub(*theirs).map(Self::Scalar),
            (Self::Ranges(mine), Self::Ranges(theirs)) if mine.contains(theirs) => {
                Some(Self::Ranges(mine.without(theirs)))
            }
            (Self::Set(mine), Self::Set(theirs)) if theirs.is_subset(mine) => {
                Some(Self::Set(mine.difference(theirs).cloned().collect()))
            }
            (Self::Scalar(_) | Self::Ranges(_) | Self::Set(_), _) => None,
        }
    }

    fn joined(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Scalar(mine), Self::Scalar(theirs)) => Some(Self::Scalar(mine.plus(*theirs))),
            (Self::Ranges(mine), Self::Ranges(theirs)) if !mine.overlaps(theirs) => {
                Some(Self::Ranges(mine.union(theirs)))
            }
            (Self::Set(mine), Self::Set(theirs)) if mine.is_disjoint(theirs) => {
                Some(Self::Set(mine.union(theirs).cloned().collect()))
            }
            (Self::Scalar(_) | Self::Ranges(_) | Self::Set(_), _) => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(amount) => write!(f, "{amount}"),
            Self::Ranges(ranges) => write!(f, "{ranges}"),
            Self::Set(items) => {
                f.write_str("{")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
        }
    }
}

/// One entry of a [`Resources`] value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Resource {
    /// What it is.
    pub key: ResourceKey,
    /// How much.
    pub value: Value,
}

/// Why two amounts can't be combined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// The smaller amount lacks something.
    #[error("{needed} of {name} needed, but only {held} held")]
    NotEnough {
        /// Which resource.
        name: ResourceName,
        /// The amount asked for.
        needed: alloc::string::String,
        /// The amount there.
        held: alloc::string::String,
    },
    /// The same port or item is on both sides, or one side is a scalar and the other is not.
    #[error("{name}: {left} and {right} can't be added, they overlap or differ in type")]
    Overlap {
        /// Which resource.
        name: ResourceName,
        /// One amount.
        left: alloc::string::String,
        /// The other.
        right: alloc::string::String,
    },
}

/// An amount of several resources on one agent, canonical (see the module).
///
/// Clones share the entries: one amount is held by an agent's book, its grant, the offer and the pictures of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Resources(
    /// Never an empty list: nothing is `None`, and costs no memory.
    Option<Arc<[Resource]>>,
);

impl Resources {
    /// Nothing.
    pub const fn new() -> Self {
        Self(None)
    }

    /// Adds up entries in any order. Errors: the same port or item twice, or types that differ under one key.
    pub fn collect(entries: impl IntoIterator<Item = Resource>) -> Result<Self, ResourceError> {
        let mut sum = Vec::new();
        for entry in entries {
            join(&mut sum, entry)?;
        }
        Ok(Self::of(sum))
    }

    /// Of entries that are canonical.
    fn of(entries: Vec<Resource>) -> Self {
        Self(if entries.is_empty() { None } else { Some(entries.into()) })
    }

    fn entries(&self) -> &[Resource] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Unreserved cpus, mem and disk: for tests and examples.
    ///
    /// ```
    /// use muster_model::{Milli, resource::{ResourceName, Resources}};
    /// let some = Resources::basic(Milli(500), Milli::whole(32), Milli::ZERO);
    /// assert_eq!(some.scalar(&ResourceName::Cpus), Milli(500));
    /// assert_eq!(some.to_string(), "cpus:0.5; mem:32");
    /// ```
    pub fn basic(cpus: Milli, mem: Milli, disk: Milli) -> Self {
        let entry = |name, amount| Resource { key: ResourceKey::unreserved(name), value: Value::Scalar(amount) };
        let mut all = alloc::vec![
            entry(ResourceName::Cpus, cpus),
            entry(ResourceName::Mem, mem),
            entry(ResourceName::Disk, disk)
        ];
        all.retain(|resource| !resource.value.is_empty());
        Self::of(all)
    }

    /// The entries, in order of their keys.
    pub fn iter(&self) -> core::slice::Iter<'_, Resource> {
        self.entries().iter()
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The amount under one key.
    pub fn get(&self, key: &ResourceKey) -> Option<&Value> {
        let index = position(self.entries(), key).ok()?;
        self.entries().get(index).map(|resource| &resource.value)
    }

    /// The sum of all scalars of this name: reserved and unreserved, revocable or not.
    pub fn scalar(&self, name: &ResourceName) -> Milli {
        self.iter().filter(|resource| resource.key.name == *name).fold(Milli::ZERO, |sum, resource| {
            match resource.value {
                Value::Scalar(amount) => sum.plus(amount),
                Value::Ranges(_) | Value::Set(_) => sum,
            }
        })
    }

    /// Adds one entry. Errors: the same port or item twice, or types that differ; then nothing has changed.
    pub fn add_entry(&mut self, entry: Resource) -> Result<(), ResourceError> {
        let mut sum = self.entries().to_vec();
        join(&mut sum, entry)?;
        *self = Self::of(sum);
        Ok(())
    }

    /// Adds all of `other`. Errors as [`Self::add_entry`]; then nothing has changed.
    pub fn add(&mut self, other: &Self) -> Result<(), ResourceError> {
        if self.is_empty() {
            self.clone_from(other);
            return Ok(());
        }
        if self.change_scalars(other, |mine, theirs| Some(mine.plus(theirs))) {
            return Ok(());
        }
        let mut sum = self.entries().to_vec();
        for entry in other {
            join(&mut sum, entry.clone())?;
        }
        *self = Self::of(sum);
        Ok(())
    }

    /// Takes `other` away. Errors: something of it is not there; then nothing has changed.
    pub fn subtract(&mut self, other: &Self) -> Result<(), ResourceError> {
        let is_more = |mine: Milli, theirs| mine.checked_sub(theirs).filter(|rest| *rest > Milli::ZERO);
        if self.change_scalars(other, is_more) {
            return Ok(());
        }
        let mut rest = self.entries().to_vec();
        for entry in other {
            let not_enough = |held: alloc::string::String| ResourceError::NotEnough {
                name: entry.key.name.clone(),
                needed: alloc::format!("{}", entry.value),
                held,
            };
            let index = position(&rest, &entry.key).map_err(|_| not_enough("none".into()))?;
            let Some(mine) = rest.get_mut(index) else { continue };
            let value = mine.value.without(&entry.value).ok_or_else(|| not_enough(alloc::format!("{}", mine.value)))?;
            if value.is_empty() {
                rest.remove(index);
            } else {
                mine.value = value;
            }
        }
        *self = Self::of(rest);
        Ok(())
    }

    /// Changes the entries in place if nobody shares them, all of `other` are scalars that are here too, and `change` has
    /// an amount for each that is not nothing. Nothing has changed otherwise.
    fn change_scalars(&mut self, other: &Self, change: impl Fn(Milli, Milli) -> Option<Milli>) -> bool {
        let Some(entries) = self.0.as_mut().and_then(Arc::get_mut) else { return false };
        let changed = |entries: &[Resource], entry: &Resource| {
            let index = position(entries, &entry.key).ok()?;
            match (&entries.get(index)?.value, &entry.value) {
                (Value::Scalar(mine), Value::Scalar(theirs)) => Some((index, change(*mine, *theirs)?)),
                (Value::Scalar(_) | Value::Ranges(_) | Value::Set(_), _) => None,
            }
        };
        if !other.iter().all(|entry| changed(entries, entry).is_some()) {
            return false;
        }
        for entry in other {
            if let Some((index, amount)) = changed(entries, entry)
                && let Some(mine) = entries.get_mut(index)
            {
                mine.value = Value::Scalar(amount);
            }
        }
        true
    }

    /// Whether all of `other` is in it.
    pub fn contains(&self, other: &Self) -> bool {
        other.iter().all(|entry| self.get(&entry.key).is_some_and(|mine| mine.contains(&entry.value)))
    }

    /// Takes away as much of `other` as is there: for pictures that may be out of step, never for the ledger.
    #[must_use]
    pub fn saturating_sub(&self, other: &Self) -> Self {
        let mut rest = Vec::with_capacity(self.entries().len());
        for mine in self {
            let value = match (other.get(&mine.key), &mine.value) {
                (Some(Value::Scalar(theirs)), Value::Scalar(amount)) => Value::Scalar(amount.saturating_sub(*theirs)),
                (Some(Value::Ranges(theirs)), Value::Ranges(ranges)) => Value::Ranges(ranges.without(theirs)),
                (Some(Value::Set(theirs)), Value::Set(items)) => {
                    Value::Set(items.difference(theirs).cloned().collect())
                }
                (Some(Value::Scalar(_) | Value::Ranges(_) | Value::Set(_)) | None, value) => value.clone(),
            };
            if !value.is_empty() {
                rest.push(Resource { key: mine.key.clone(), value });
            }
        }
        Self::of(rest)
    }

    /// The entries for which `keep` holds.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(&ResourceKey) -> bool) -> Self {
        Self::of(self.iter().filter(|resource| keep(&resource.key)).cloned().collect())
    }
}

fn position(entries: &[Resource], key: &ResourceKey) -> Result<usize, usize> {
    entries.binary_search_by(|resource| resource.key.cmp(key))
}

/// Adds an entry to canonical ones. Errors: the same port or item twice, or types that differ; then nothing has changed.
fn join(entries: &mut Vec<Resource>, entry: Resource) -> Result<(), ResourceError> {
    if entry.value.is_empty() {
        return Ok(());
    }
    match position(entries, &entry.key) {
        Ok(index) => {
            let Some(mine) = entries.get_mut(index) else { return Ok(()) };
            match mine.value.joined(&entry.value) {
                Some(sum) => mine.value = sum,
                None => {
                    return Err(ResourceError::Overlap {
                        name: entry.key.name,
                        left: alloc::format!("{}", mine.value),
                        right: alloc::format!("{}", entry.value),
                    });
                }
            }
        }
        Err(index) => entries.insert(index, entry),
    }
    Ok(())
}

impl<'a> IntoIterator for &'a Resources {
    type Item = &'a Resource;
    type IntoIter = core::slice::Iter<'a, Resource>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Resources {
    /// Writes `cpus:4; mem(role):1024; ports:[31000-32000]`; `nothing` when empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing");
        }
        for (index, resource) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let revocable = if resource.key.is_revocable { "{REV}" } else { "" };
            match resource.key.reserved_for() {
                Some(role) => write!(f, "{separator}{}({role}){revocable}:{}", resource.key.name, resource.value)?,
                None => write!(f, "{separator}{}{revocable}:{}", resource.key.name, resource.value)?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
