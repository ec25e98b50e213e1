//! Roles, and frameworks below them, as one tree in which siblings are kept in the order of their shares.
//!
//! Each role is a node; the frameworks of a role hang below its *own leaf*, which competes with the role's sub-roles as
//! Mesos's virtual leaf `.` does (behaviour "role that is client and parent"). Only nodes with an active framework below
//! stand in an order; the others keep what they hold, which counts for the nodes above them.
//! Invariant: between [`Tree::settle`] and the next change of totals or members, each order is sorted by [`Key`].

use crate::share::Key;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;
use muster_model::{FrameworkId, Milli, Role};

/// The root's index.
pub(crate) const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;
/// Up to so many fresh children are sorted by themselves; for more it is quicker to pick them from the whole order.
const FRESH_SORTED_MAX: usize = 8;

/// An amount of one scalar: index of its name, thousandths.
pub(crate) type Amount = (u16, u64);

enum Name {
    Root,
    Role(Role),
    Own,
    Framework(FrameworkId),
}

impl Name {
    fn as_str(&self) -> &str {
        match self {
            Self::Root => "",
            Self::Role(role) => role.as_str().rsplit_once('/').map_or(role.as_str(), |(_, last)| last),
            Self::Own => ".",
            Self::Framework(id) => id.as_str(),
        }
    }
}

/// A child in its parent's order.
#[derive(Clone, Copy)]
struct Place {
    /// [`Key::rounded`]: it lies here so that a search seldom has to look at the keys themselves.
    rounded: u64,
    node: u32,
    /// Its client's slot; none for role nodes.
    client: u32,
}

/// What each charge asks of a node that is charged; it shares a cache line.
#[repr(align(64))]
struct Standing {
    key: Key,
    parent: u32,
    /// The client's slot; none for role nodes.
    client: u32,
}

// What each charge and each walk asks of a node as a parent stands first and shares a cache line.
#[repr(C, align(64))]
struct Node {
    /// Active children, by key.
    order: Vec<Place>,
    active_below: u32,
    is_fresh: bool,
    is_unsorted: bool,
    /// Children that are to be looked at although their agent was settled; see [`Scope::Fresh`].
    fresh: Vec<u32>,
    name: Name,
    child_count: u32,
    own_leaf: u32,
}

/// Which frameworks a walk visits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// All active ones.
    All,
    /// Only those marked by [`Tree::mark_fresh`].
    Fresh,
}

/// The tree with its flat tables.
pub(crate) struct Tree {
    nodes: Vec<Node>,
    standings: Vec<Standing>,
    /// What each node holds: one row per node, one column per name.
    held: Vec<u128>,
    columns: usize,
    totals: Vec<u128>,
    /// Per name, the total as 64 bits and by how many bits it was shifted for that; made by [`Tree::settle`].
    scales: Vec<(u64, u32)>,
    unused: Vec<u32>,
    roles: BTreeMap<Role, u32>,
    weights: BTreeMap<Role, Milli>,
    unsorted: Vec<u32>,
    is_total_changed: bool,
}

impl Tree {
    pub(crate) fn new(weights: BTreeMap<Role, Milli>) -> Self {
        let mut tree = Self {
            nodes: Vec::new(),
            standings: Vec::new(),
            held: Vec::new(),
            columns: 4,
            totals: alloc::vec![0; 4],
            scales: Vec::new(),
            unused: Vec::new(),
            roles: BTreeMap::new(),
            weights,
            unsorted: Vec::new(),
            is_total_changed: false,
        };
        tree.add_node(NONE, Name::Root, NONE, 1000);
        tree
    }

    pub(crate) fn weights(&self) -> &BTreeMap<Role, Milli> {
        &self.weights
    }

    pub(crate) fn has_active(&self) -> bool {
        self.nodes[ROOT as usize].active_below > 0
    }

    /// The node's share in millionths of the cluster, not divided by its weight.
    pub(crate) fn share_ppm(&self, node: u32) -> u64 {
        let total = |name: usize| self.totals.get(name).copied().unwrap_or(0);
        let row = &self.held[node as usize * self.columns..][..self.columns];
        let shares = row
            .iter()
            .enumerate()
            .filter(|(name, _)| total(*name) > 0)
            .map(|(name, held)| u64::try_from(held.saturating_mul(1_000_000) / total(name)).unwrap_or(u64::MAX));
        shares.max().unwrap_or(0)
    }

    /// What a node holds, by name index: for checks.
    pub(crate) fn held(&self, node: u32) -> &[u128] {
        &self.held[node as usize * self.columns..][..self.columns]
    }

    /// The cluster's totals, by name index.
    pub(crate) fn totals(&self) -> &[u128] {
        &self.totals
    }

    /// Changes the cluster's total of some names.
    pub(crate) fn change_totals(&mut self, less: &[Amount], more: &[Amount]) {
        self.widen(less);
        self.widen(more);
        for (name, amount) in less {
            let total = &mut self.totals[usize::from(*name)];
            *total = total.saturating_sub(u128::from(*amount));
        }
        for (name, amount) in more {
            self.totals[usize::from(*name)] += u128::from(*amount);
        }
        self.is_total_changed = true;
    }

    /// Adds a framework below a role's own leaf, inactive and holding nothing; makes the role's nodes as needed.
    pub(crate) fn add_client(&mut self, role: &Role, framework_id: &FrameworkId, client: u32) -> u32 {
        let role_node = self.role_node(role);
        let mut leaf = self.nodes[role_node as usize].own_leaf;
        if leaf == NONE {
            leaf = self.add_node(role_node, Name::Own, NONE, 1000);
            self.nodes[role_node as usize].own_leaf = leaf;
        }
        self.add_node(leaf, Name::Framework(framework_id.clone()), client, 1000)
    }

    /// Removes a framework that is inactive and holds nothing, and the roles above it that have no other member.
    pub(crate) fn remove_client(&mut self, node: u32) {
        self.set_active(node, false);
        let mut gone = node;
        while gone != ROOT && self.nodes[gone as usize].child_count == 0 {
            let parent = self.standings[gone as usize].parent;
            match core::mem::replace(&mut self.nodes[gone as usize].name, Name::Root) {
                Name::Role(role) => drop(self.roles.remove(&role)),
                Name::Own => self.nodes[parent as usize].own_leaf = NONE,
                Name::Root | Name::Framework(_) => {}
            }
            self.nodes[parent as usize].child_count -= 1;
            self.unused.push(gone);
            gone = parent;
        }
    }

    /// Lets a framework take part in the order, or not.
    pub(crate) fn set_active(&mut self, client_node: u32, is_active: bool) {
        if (self.nodes[client_node as usize].active_below > 0) == is_active {
            return;
        }
        let mut node = client_node;
        loop {
            let below = &mut self.nodes[node as usize].active_below;
            let was_listed = *below > 0;
            *below = if is_active { *below + 1 } else { *below - 1 };
            let is_listed = *below > 0;
            if node == ROOT {
                return;
            }
            let parent = self.standings[node as usize].parent;
            let client = self.standings[node as usize].client;
            let list = &mut self.nodes[parent as usize];
            if is_listed && !was_listed {
                list.order.push(Place { rounded: 0, node, client });
                self.mark_unsorted(parent);
            } else if was_listed && !is_listed {
                list.order.retain(|child| child.node != node);
            }
            node = parent;
        }
    }

    /// The node and all above it hold more; `is_allocation` when it was given, not found.
    pub(crate) fn charge(&mut self, node: u32, amounts: &[Amount], is_allocation: bool) {
        self.widen(amounts);
        self.climb(node, is_allocation, |row| {
            for (name, amount) in amounts {
                row[usize::from(*name)] += u128::from(*amount);
            }
        });
    }

    /// The node and all above it hold less.
    pub(crate) fn discharge(&mut self, node: u32, amounts: &[Amount]) {
        self.widen(amounts);
        self.climb(node, false, |row| {
            for (name, amount) in amounts {
                let held = &mut row[usize::from(*name)];
                debug_assert!(*held >= u128::from(*amount), "a node gives back only what it was charged");
                *held = held.saturating_sub(u128::from(*amount));
            }
        });
    }

    /// Sorts what changes of totals or members left unsorted. Cost: nothing where nothing changed.
    pub(crate) fn settle(&mut self) {
        if self.is_total_changed {
            self.is_total_changed = false;
            self.scales.clear();
            self.scales.extend(self.totals.iter().map(|total| {
                // Totals above 2^64 thousandths are beyond any cluster; there the low bits are let go.
                let shift = 64u32.saturating_sub(total.leading_zeros());
                (u64::try_from(total >> shift).unwrap_or(u64::MAX), shift)
            }));
            for node in 0..self.nodes.len() {
                if !self.nodes[node].order.is_empty() {
                    self.mark_unsorted(u32::try_from(node).unwrap_or(ROOT));
                }
            }
        }
        while let Some(parent) = self.unsorted.pop() {
            self.nodes[parent as usize].is_unsorted = false;
            let mut order = core::mem::take(&mut self.nodes[parent as usize].order);
            let name = |place: &Place| self.nodes[place.node as usize].name.as_str();
            order.sort_unstable_by(|a, b| name(a).cmp(name(b)));
            for (rank, place) in (0u32..).zip(&mut order) {
                self.standings[place.node as usize].key.rank = rank;
                place.rounded = self.refresh_share(place.node as usize);
            }
            order.sort_unstable_by(|a, b| self.compare(a.node, b.node));
            self.nodes[parent as usize].order = order;
        }
    }

    /// Marks a framework, and the nodes above it, for walks of [`Scope::Fresh`]. Marks what it changed in `undo`.
    pub(crate) fn mark_fresh(&mut self, client_node: u32, undo: &mut Vec<u32>) {
        let mut node = client_node;
        while node != ROOT && !self.nodes[node as usize].is_fresh {
            self.nodes[node as usize].is_fresh = true;
            undo.push(node);
            let parent = self.standings[node as usize].parent;
            self.nodes[parent as usize].fresh.push(node);
            node = parent;
        }
    }

    /// Takes back the newest marks down to a length of `undo`.
    pub(crate) fn unmark_fresh(&mut self, undo: &mut Vec<u32>, len: usize) {
        for node in undo.drain(len..).rev() {
            self.nodes[node as usize].is_fresh = false;
            let parent = self.standings[node as usize].parent;
            self.nodes[parent as usize].fresh.pop();
        }
    }

    /// Checks that each node holds what its children hold and that settled orders are sorted: for tests.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut sums: Vec<u128> = alloc::vec![0; self.held.len()];
        for slot in (0..self.nodes.len()).filter(|slot| !self.is_unused(*slot)) {
            let parent = self.standings[slot].parent;
            if parent == NONE || parent == ROOT {
                continue;
            }
            let parent = parent as usize;
            for column in 0..self.columns {
                sums[parent * self.columns + column] += self.held[slot * self.columns + column];
            }
        }
        for (slot, node) in self.nodes.iter().enumerate().filter(|(slot, _)| !self.is_unused(*slot)) {
            let row = slot * self.columns..(slot + 1) * self.columns;
            let Standing { parent, client, .. } = self.standings[slot];
            if client == NONE && parent != NONE && self.held[row.clone()] != sums[row] {
                return Err(format!("role node {} holds another amount than its members", node.name.as_str()));
            }
            if node.is_unsorted || self.is_total_changed || node.order.len() < 2 {
                continue;
            }
            if !node.order.is_sorted_by(|a, b| self.compare(a.node, b.node).is_lt()) {
                return Err(format!("the order below {} is not sorted", node.name.as_str()));
            }
            if node.order.iter().any(|place| place.rounded != self.standings[place.node as usize].key.rounded()) {
                return Err(format!("the order below {} keeps another share than a key", node.name.as_str()));
            }
        }
        Ok(())
    }

    fn is_unused(&self, slot: usize) -> bool {
        self.unused.iter().any(|unused| *unused as usize == slot)
    }

    fn role_node(&mut self, role: &Role) -> u32 {
        if let Some(node) = self.roles.get(role) {
            return *node;
        }
        // From the nearest role above that exists downwards; a loop, since a name may have any depth.
        let mut missing = alloc::vec![role.clone()];
        let mut parent = ROOT;
        let mut above = role.parent();
        while let Some(role) = above {
            if let Some(node) = self.roles.get(&role) {
                parent = *node;
                break;
            }
            above = role.parent();
            missing.push(role);
        }
        while let Some(role) = missing.pop() {
            let weight = self.weights.get(&role).map_or(1000, |weight| weight.0.max(1));
            parent = self.add_node(parent, Name::Role(role.clone()), NONE, weight);
            self.roles.insert(role, parent);
        }
        parent
    }

    fn add_node(&mut self, parent: u32, name: Name, client: u32, weight: u64) -> u32 {
        let standing = Standing { key: Key::empty(weight), parent, client };
        let node = Node {
            name,
            order: Vec::new(),
            fresh: Vec::new(),
            is_fresh: false,
            is_unsorted: false,
            active_below: 0,
            child_count: 0,
            own_leaf: NONE,
        };
        if parent != NONE {
            self.nodes[parent as usize].child_count += 1;
        }
        match self.unused.pop() {
            Some(slot) => {
                let row = slot as usize * self.columns;
                self.held[row..row + self.columns].fill(0);
                self.nodes[slot as usize] = node;
                self.standings[slot as usize] = standing;
                slot
            }
            None => {
                let slot = u32::try_from(self.nodes.len()).unwrap_or(NONE);
                assert!(slot != NONE, "fewer than 2^32 roles and frameworks");
                self.nodes.push(node);
                self.standings.push(standing);
                self.held.resize(self.nodes.len() * self.columns, 0);
                slot
            }
        }
    }

    fn mark_unsorted(&mut self, parent: u32) {
        let node = &mut self.nodes[parent as usize];
        if !node.is_unsorted {
            node.is_unsorted = true;
            self.unsorted.push(parent);
        }
    }

    fn widen(&mut self, amounts: &[Amount]) {
        let needed = amounts.iter().map(|(name, _)| usize::from(*name) + 1).max().unwrap_or(0);
        if needed <= self.columns {
            return;
        }
        let mut wider = alloc::vec![0; self.nodes.len() * needed];
        for (from, to) in self.held.chunks_exact(self.columns).zip(wider.chunks_exact_mut(needed)) {
            to[..self.columns].copy_from_slice(from);
        }
        self.held = wider;
        self.columns = needed;
        self.totals.resize(needed, 0);
    }

    fn climb(&mut self, client_node: u32, is_allocation: bool, change: impl Fn(&mut [u128])) {
        let mut node = client_node;
        while node != ROOT {
            let row = node as usize * self.columns;
            change(&mut self.held[row..row + self.columns]);
            let parent = self.standings[node as usize].parent;
            let position = self.position(node, parent);
            if is_allocation {
                self.standings[node as usize].key.count += 1;
            }
            // Where there is no order to keep, `settle` refreshes the share before there is one.
            if let Some(position) = position {
                self.refresh_share(node as usize);
                self.reposition(node, parent, position);
            }
            node = parent;
        }
    }

    /// Works out a node's share anew. Gives it rounded.
    fn refresh_share(&mut self, node: usize) -> u64 {
        let row = &self.held[node * self.columns..][..self.columns];
        let (mut best_held, mut best_total) = (0u64, 1u64);
        for (held, (total, shift)) in row.iter().zip(&self.scales) {
            if *held == 0 || *total == 0 {
                continue;
            }
            let held = match shift {
                0 => u64::try_from(*held).unwrap_or(u64::MAX),
                shift => u64::try_from(held >> shift).unwrap_or(u64::MAX),
            };
            if u128::from(held) * u128::from(best_total) > u128::from(best_held) * u128::from(*total) {
                (best_held, best_total) = (held, *total);
            }
        }
        let key = &mut self.standings[node].key;
        key.set_share(best_held, best_total);
        key.rounded()
    }

    fn compare(&self, a: u32, b: u32) -> Ordering {
        self.standings[a as usize].key.compare(&self.standings[b as usize].key)
    }

    /// Where a node stands in its parent's order; none if it is not there or the order is to be sorted anyway.
    fn position(&self, node: u32, parent: u32) -> Option<usize> {
        let parent = &self.nodes[parent as usize];
        if parent.is_unsorted || self.is_total_changed || parent.order.len() < 2 {
            return None;
        }
        // Who was given something stood first, as a rule.
        if parent.order.first().is_some_and(|first| first.node == node) {
            return Some(0);
        }
        if self.nodes[node as usize].active_below == 0 {
            return None;
        }
        let position = count_before(&self.standings, &parent.order, &self.standings[node as usize].key);
        assert!(parent.order.get(position).is_some_and(|place| place.node == node), "an order is sorted by its keys");
        Some(position)
    }

    fn reposition(&mut self, node: u32, parent: u32, from: usize) {
        let (standings, order) = (&self.standings, &mut self.nodes[parent as usize].order);
        let Standing { key, client, .. } = &standings[node as usize];
        let steps = count_before(standings, &order[from + 1..], key);
        let to = if steps > 0 { from + steps } else { count_before(standings, &order[..from], key) };
        if to < from {
            order.copy_within(to..from, to + 1);
        } else {
            order.copy_within(from + 1..=to, from);
        }
        order[to] = Place { rounded: key.rounded(), node, client: *client };
    }
}

/// How many of these siblings come before a key.
fn count_before(standings: &[Standing], siblings: &[Place], key: &Key) -> usize {
    let before = siblings.partition_point(|place| place.rounded < key.rounded());
    let rest = &siblings[before..];
    if rest.first().is_none_or(|place| place.rounded > key.rounded()) {
        return before;
    }
    let alike = &rest[..rest.partition_point(|place| place.rounded == key.rounded())];
    before + alike.partition_point(|place| standings[place.node as usize].key.compare(key).is_lt())
}

struct Frame {
    node: u32,
    position: usize,
    /// Where the sorted fresh children stand in the scratch list; none when the node's order is used.
    sorted: Option<(usize, usize)>,
}

/// A walk over frameworks in the order of shares; reusable, so that it allocates only the first time.
#[derive(Default)]
pub(crate) struct Walk {
    frames: Vec<Frame>,
    /// Nodes with their clients.
    scratch: Vec<(u32, u32)>,
    is_fresh_only: bool,
}

impl Walk {
    pub(crate) fn start(&mut self, tree: &Tree, scope: Scope) {
        self.frames.clear();
        self.scratch.clear();
        self.is_fresh_only = scope == Scope::Fresh;
        self.enter(tree, ROOT);
    }

    /// The next framework's client. The tree must not change between the calls of one walk.
    pub(crate) fn next(&mut self, tree: &Tree) -> Option<u32> {
        loop {
            let frame = self.frames.last_mut()?;
            let child = match frame.sorted {
                Some((start, end)) => self.scratch[start..end].get(frame.position).copied(),
                None => {
                    let place = tree.nodes[frame.node as usize].order.get(frame.position);
                    place.map(|place| (place.node, place.client))
                }
            };
            frame.position += 1;
            match child {
                None => {
                    if let Some(Frame { sorted: Some((start, _)), .. }) = self.frames.pop() {
                        self.scratch.truncate(start);
                    }
                }
                Some((child, client)) => {
                    if self.is_fresh_only && !tree.nodes[child as usize].is_fresh {
                        continue;
                    }
                    if client != NONE {
                        return Some(client);
                    }
                    self.enter(tree, child);
                }
            }
        }
    }

    fn enter(&mut self, tree: &Tree, node: u32) {
        let fresh = &tree.nodes[node as usize].fresh;
        let sorted = (self.is_fresh_only && fresh.len() <= FRESH_SORTED_MAX).then(|| {
            let start = self.scratch.len();
            let active = fresh.iter().filter(|child| tree.nodes[**child as usize].active_below > 0);
            self.scratch.extend(active.map(|child| (*child, tree.standings[*child as usize].client)));
            self.scratch[start..].sort_unstable_by(|(a, _), (b, _)| tree.compare(*a, *b));
            (start, self.scratch.len())
        });
        self.frames.push(Frame { node, position: 0, sorted });
    }
}
