//! Hierarchical DRF written down plainly, with fractions, from scratch for every agent: what the planner must equal.

use crate::world::*;
use muster_model::framework::FrameworkInfo;
use muster_model::resource::{Resources, Value};
use muster_model::{Rng, Role};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
pub(crate) struct NaiveAgent {
    pub(crate) id: String,
    pub(crate) total: Resources,
    pub(crate) free: Resources,
    pub(crate) is_new: bool,
}

/// A cluster in which nothing is ever refused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Naive {
    pub(crate) agents: BTreeMap<String, NaiveAgent>,
    pub(crate) frameworks: BTreeMap<String, FrameworkInfo>,
    pub(crate) weights: BTreeMap<String, u128>,
    /// (role, framework, amount) of all that is used or offered, and whether this allocator gave it.
    pub(crate) held: Vec<(String, String, Resources, bool)>,
}

struct Rank {
    share: (u128, u128),
    weight: u128,
    count: usize,
    name: String,
}

impl Rank {
    fn compare(&self, other: &Self) -> Ordering {
        let left = self.share.0 * other.share.1 * other.weight;
        let right = other.share.0 * self.share.1 * self.weight;
        left.cmp(&right).then(self.count.cmp(&other.count)).then(self.name.cmp(&other.name))
    }
}

impl Naive {
    /// One cycle over new agents: who gets what, in order.
    pub(crate) fn cycle(&mut self, rng: &mut Rng) -> Vec<(String, String, String, String)> {
        let small = |free: &Resources| {
            free.scalar(&muster_model::resource::ResourceName::Cpus).0 < 10
                && free.scalar(&muster_model::resource::ResourceName::Mem).0 < 32_000
        };
        let keep = |agent: &&NaiveAgent| agent.is_new && !agent.free.is_empty() && !small(&agent.free);
        let mut order: Vec<String> = self.agents.values().filter(keep).map(|agent| agent.id.clone()).collect();
        rng.shuffle(&mut order);
        let mut offers = Vec::new();
        for id in order {
            let mut free = self.agents[&id].free.clone();
            let mut given = Vec::new();
            for (role, framework) in self.sorted_clients() {
                let usable = free.filtered(|key| key.is_usable_by(&Role::parse(&role).unwrap()));
                if usable.is_empty() || small(&usable) {
                    continue;
                }
                free.subtract(&usable).unwrap();
                offers.push((framework.clone(), id.clone(), role.clone(), usable.to_string()));
                given.push((role, framework, usable, true));
            }
            self.held.extend(given);
            self.agents.get_mut(&id).unwrap().free = free;
        }
        self.agents.values_mut().for_each(|agent| agent.is_new = false);
        // Offers are numbered by agent.
        offers.sort_by(|a, b| a.1.cmp(&b.1));
        offers
    }

    fn sorted_clients(&self) -> Vec<(String, String)> {
        let mut clients = Vec::new();
        let mut roles: BTreeSet<String> = BTreeSet::new();
        for info in self.frameworks.values() {
            for role in &info.roles {
                roles.insert(role.as_str().into());
            }
        }
        self.visit("", &roles, &mut clients);
        clients
    }

    /// Pre-order walk below `path`: sub-roles and the role itself (`.`) compete.
    fn visit(&self, path: &str, roles: &BTreeSet<String>, clients: &mut Vec<(String, String)>) {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let mut children: Vec<Rank> = Vec::new();
        let below = roles.iter().filter_map(|role| role.strip_prefix(prefix.as_str()));
        let names: BTreeSet<&str> = below.map(|rest| rest.split('/').next().unwrap()).collect();
        for name in names {
            let child = format!("{prefix}{name}");
            let within = |role: &str| role == child || role.starts_with(&format!("{child}/"));
            children.push(Rank {
                share: self.share(|role, _| within(role)),
                weight: self.weights.get(&child).copied().unwrap_or(1000),
                count: self.count(|role, _| within(role)),
                name: name.to_owned(),
            });
        }
        if roles.contains(path) {
            let mine = |role: &str, _: &str| role == path;
            children.push(Rank { share: self.share(mine), weight: 1000, count: self.count(mine), name: ".".into() });
        }
        children.sort_by(Rank::compare);
        for child in children {
            if child.name == "." {
                self.members(path, clients);
            } else {
                self.visit(&format!("{prefix}{}", child.name), roles, clients);
            }
        }
    }

    fn members(&self, of: &str, clients: &mut Vec<(String, String)>) {
        let members = self.frameworks.iter().filter(|(_, info)| info.roles.contains(&role(of)));
        let mut members: Vec<Rank> = members
            .map(|(id, _)| {
                let mine = |role: &str, framework: &str| role == of && framework == id;
                Rank { share: self.share(mine), weight: 1000, count: self.count(mine), name: id.clone() }
            })
            .collect();
        members.sort_by(Rank::compare);
        clients.extend(members.into_iter().map(|rank| (of.to_owned(), rank.name)));
    }

    fn count(&self, of: impl Fn(&str, &str) -> bool) -> usize {
        self.held.iter().filter(|(role, framework, _, is_given)| *is_given && of(role, framework)).count()
    }

    fn share(&self, of: impl Fn(&str, &str) -> bool) -> (u128, u128) {
        let totals = sum(self.agents.values().map(|agent| &agent.total));
        let mine = sum(self.held.iter().filter(|(role, framework, ..)| of(role, framework)).map(|held| &held.2));
        let shares = mine.into_iter().filter_map(|(name, amount)| Some((amount, *totals.get(&name)?)));
        shares.max_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1))).unwrap_or((0, 1))
    }
}

fn sum<'a>(all: impl Iterator<Item = &'a Resources>) -> BTreeMap<String, u128> {
    let mut sums = BTreeMap::new();
    for resource in all.flatten() {
        if let Value::Scalar(amount) = resource.value {
            *sums.entry(resource.key.name.to_string()).or_default() += u128::from(amount.0);
        }
    }
    sums
}
