//! Renders pictures of the tables for readers.

use crate::cluster::{Cluster, GrantState};
use crate::plan;
use crate::skip::Skip;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::resource::{Ranges, Resource, ResourceKey, ResourceName, Resources, Value};
use muster_model::time::Now;
use muster_model::view::{AllocatorView, DecisionView, RoleView, SkipView};
use muster_model::{FrameworkId, Milli, Role};

/// A sum over many agents, where the same port may occur more than once.
#[derive(Default)]
struct Sum(BTreeMap<(ResourceName, bool), Value>);

impl Sum {
    fn add(&mut self, resources: &Resources) {
        for Resource { key, value } in resources {
            let slot = self.0.entry((key.name.clone(), key.is_revocable));
            slot.and_modify(|sum| *sum = joined(sum, value)).or_insert_with(|| value.clone());
        }
    }

    fn finish(self) -> Resources {
        let entries = self.0.into_iter().map(|((name, is_revocable), value)| Resource {
            key: ResourceKey { is_revocable, ..ResourceKey::unreserved(name) },
            value,
        });
        // One entry per key: nothing can overlap.
        Resources::collect(entries).unwrap_or_default()
    }
}

fn joined(sum: &Value, more: &Value) -> Value {
    match (sum, more) {
        (Value::Scalar(sum), Value::Scalar(more)) => Value::Scalar(sum.plus(*more)),
        (Value::Ranges(sum), Value::Ranges(more)) => {
            Value::Ranges(Ranges::new(sum.pairs().iter().chain(more.pairs()).copied()).unwrap_or_default())
        }
        (Value::Set(sum), Value::Set(more)) => Value::Set(sum.union(more).cloned().collect()),
        // Two agents that declare one name with different types: the first one's type is shown.
        (Value::Scalar(_) | Value::Ranges(_) | Value::Set(_), _) => sum.clone(),
    }
}

#[derive(Default)]
struct RoleSums {
    allocated: Sum,
    offered: Sum,
    reserved: Sum,
    frameworks: Vec<FrameworkId>,
}

/// The picture of the allocator.
pub(crate) fn render(cluster: &Cluster, last_cycle_work: u64) -> AllocatorView {
    AllocatorView { roles: roles(cluster), decisions: decisions(cluster), cycles: cluster.stamp.cycle, last_cycle_work }
}

fn roles(cluster: &Cluster) -> BTreeMap<Role, RoleView> {
    let mut sums: BTreeMap<Role, RoleSums> = BTreeMap::new();
    let above = |role: &Role| core::iter::successors(Some(role.clone()), Role::parent).collect::<Vec<_>>();
    for agent in cluster.agents.iter().flatten() {
        for (client, amount) in &agent.used {
            let Some(client) = cluster.client(*client) else { continue };
            for role in above(&client.role) {
                sums.entry(role).or_default().allocated.add(amount);
            }
        }
        let rows = agent.grants.iter().filter_map(|id| cluster.grants.get(id));
        for grant in rows.filter(|row| row.state != GrantState::Void).map(|row| &row.offer.grant) {
            for role in above(&grant.role) {
                sums.entry(role).or_default().offered.add(&grant.resources);
            }
        }
        let reserved_for: BTreeSet<&Role> = agent.info.total.iter().filter_map(|it| it.key.reserved_for()).collect();
        for reserved in reserved_for {
            let amount = agent.info.total.filtered(|key| key.reserved_for() == Some(reserved));
            for role in above(reserved) {
                sums.entry(role).or_default().reserved.add(&amount);
            }
        }
    }
    for framework in cluster.framework_order.values().filter_map(|slot| cluster.framework(*slot)) {
        for role in framework.demand.iter().flat_map(|demand| &demand.info.roles) {
            sums.entry(role.clone()).or_default().frameworks.push(framework.id.clone());
        }
    }
    for role in cluster.tree.weights().keys() {
        sums.entry(role.clone()).or_default();
    }
    let weights = cluster.tree.weights();
    let rendered = sums.into_iter().map(|(role, sums)| {
        let view = RoleView {
            weight: weights.get(&role).copied().unwrap_or(Milli::whole(1)),
            has_weight: weights.contains_key(&role),
            frameworks: sums.frameworks,
            allocated: sums.allocated.finish(),
            offered: sums.offered.finish(),
            reserved: sums.reserved.finish(),
        };
        (role, view)
    });
    rendered.collect()
}

/// Agents that are no offer for anybody, with why; counted once for all clients.
fn agents_left_out(cluster: &Cluster) -> BTreeMap<Skip, (u64, u32)> {
    let mut left_out = BTreeMap::new();
    for slot in cluster.agent_order.values() {
        let Some(agent) = cluster.agent(*slot) else { continue };
        let skip = match agent {
            agent if !agent.is_active => Skip::AgentInactive,
            agent if agent.free.is_empty() => Skip::NothingFree,
            agent if !agent.free.is_enough() => Skip::TooSmall,
            _ => continue,
        };
        left_out.entry(skip).or_insert((0, *slot)).0 += 1;
    }
    left_out
}

fn decisions(cluster: &Cluster) -> BTreeMap<(FrameworkId, Role), DecisionView> {
    let left_out = agents_left_out(cluster);
    let mut decisions = BTreeMap::new();
    for framework in cluster.frameworks.iter().flatten() {
        let Some(demand) = &framework.demand else { continue };
        for role in &demand.info.roles {
            let Some((slot, client)) = framework.clients.get(role).and_then(|it| Some((*it, cluster.client(*it)?)))
            else {
                continue;
            };
            let tally = &cluster.tallies[slot as usize];
            let is_considered = tally.cycle() > 0;
            let mut counts: BTreeMap<Skip, (u64, Option<u32>)> = BTreeMap::new();
            if !client.is_live {
                let skip = if demand.is_active { Skip::Suppressed } else { Skip::FrameworkInactive };
                let agent_count = u64::try_from(cluster.agent_order.len()).unwrap_or(u64::MAX);
                counts.insert(skip, (agent_count, None));
            } else {
                if is_considered {
                    counts.extend(tally.skips().map(|(skip, count, example)| (skip, (u64::from(count), example))));
                } else if cluster.stamp.cycle > 0 && cluster.stamp.agent_count > 0 {
                    counts.insert(Skip::NotItsTurn, (u64::from(cluster.stamp.agent_count), None));
                }
                for (skip, (count, example)) in &left_out {
                    if *skip != Skip::TooSmall || client.minimum.is_none() {
                        counts.entry(*skip).or_insert((0, Some(*example))).0 += count;
                    }
                }
            }
            let decision = DecisionView {
                at: if is_considered { tally.at() } else { cluster.stamp.at },
                offer_count: u64::from(tally.offer_count()),
                share_ppm: cluster.tree.share_ppm(client.node),
                skips: skip_views(cluster, counts),
            };
            decisions.insert((framework.id.clone(), role.clone()), decision);
        }
    }
    decisions
}

/// Looks at every agent for one framework and role, as things stand now.
pub(crate) fn explain(cluster: &Cluster, framework_id: &FrameworkId, role: &Role, now: Now) -> Option<DecisionView> {
    let slot = cluster.known_client(framework_id, role)?;
    let client = cluster.client(slot)?;
    let mut counts: BTreeMap<Skip, (u64, Option<u32>)> = BTreeMap::new();
    for agent in cluster.agent_order.values() {
        if let Some(skip) = plan::explain(cluster, slot, *agent, now.mono) {
            counts.entry(skip).or_insert((0, Some(*agent))).0 += 1;
        }
    }
    Some(DecisionView {
        at: now.wall,
        offer_count: u64::from(cluster.tallies[slot as usize].offer_count()),
        share_ppm: cluster.tree.share_ppm(client.node),
        skips: skip_views(cluster, counts),
    })
}

fn skip_views(cluster: &Cluster, counts: BTreeMap<Skip, (u64, Option<u32>)>) -> Vec<SkipView> {
    let view = |(skip, (agent_count, example)): (Skip, (u64, Option<u32>))| SkipView {
        reason: Arc::from(skip.as_str()),
        agent_count,
        example: example.and_then(|slot| cluster.agent(slot)).map(|agent| agent.id.clone()),
    };
    counts.into_iter().map(view).collect()
}
