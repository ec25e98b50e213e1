//! Decides which framework is offered which resources in one allocation cycle.
//!
//! Agents are looked at in random order. Each goes to the first framework, in the order of shares, that may have what is
//! free there: all of it that its role may use (coarse-grained, as in Mesos). What is given counts before the next agent is
//! looked at. Settled agents, at which all frameworks were looked at and nothing has changed, are left out.
//!
//! Pure: no clock, no IO. Start reading at [`plan_cycle`]. Invariant: a plan gives only what the tables say is free, and takes
//! it from them. Source: Ghodsi et al., "Dominant Resource Fairness", NSDI 2011, algorithm 1.

use crate::cluster::{Agent, Client, Cluster, PRELOAD_BATCH};
use crate::free::{Free, is_enough};
use crate::skip::{CycleStamp, Skip};
use crate::tree::Scope;
use alloc::vec::Vec;
use core::ops::Range;
use muster_model::resource::{ResourceName, Resources};
use muster_model::time::Now;
use muster_model::{Milli, Rng, Timestamp};

/// One offer to make.
#[derive(Default)]
pub(crate) struct NewGrant {
    pub(crate) agent: u32,
    pub(crate) client: u32,
    pub(crate) resources: Resources,
}

/// What one cycle decided. What was left out, and why, is in the clients' tallies.
pub(crate) struct Plan {
    /// In the order in which they were decided.
    grants: Vec<NewGrant>,
    /// For each agent that was looked at, in the order of their ids, which of `grants` are on it.
    by_agent: Vec<Range<usize>>,
    /// Pairs of agent and client that were looked at.
    pub(crate) work: u64,
}

impl Plan {
    /// How many grants there are.
    pub(crate) fn grant_count(&self) -> usize {
        self.grants.len()
    }

    /// The grants in the order of their agents' ids. Offers are made and numbered so: to touch agents in order is much
    /// faster than at random.
    pub(crate) fn into_grants(self) -> Vec<NewGrant> {
        let Self { mut grants, by_agent, .. } = self;
        by_agent.into_iter().flatten().map(|index| core::mem::take(&mut grants[index])).collect()
    }
}

/// What a client may have of an agent.
enum Taken {
    All,
    Part(Resources),
}

/// Plans one cycle and charges what it gives. Cost: O(listed agents × frameworks that refuse before one takes).
pub(crate) fn plan_cycle(cluster: &mut Cluster, now: Now, rng: &mut Rng) -> Plan {
    cluster.tree.settle();
    cluster.expire_refusals(now.mono);
    let fresh_clients = cluster.take_fresh_clients();
    let mut marks = Vec::new();
    for node in
        fresh_clients.iter().filter_map(|slot| cluster.client(*slot).map(|client| client.node)).collect::<Vec<_>>()
    {
        cluster.tree.mark_fresh(node, &mut marks);
    }
    let mut agents: Vec<(u32, u32)> = (0u32..).zip(candidates(cluster, !fresh_clients.is_empty())).collect();
    rng.shuffle(&mut agents);
    cluster.stamp = CycleStamp {
        cycle: cluster.stamp.cycle + 1,
        at: now.wall,
        agent_count: u32::try_from(agents.len()).unwrap_or(u32::MAX),
    };
    let mut plan =
        Plan { grants: Vec::with_capacity(agents.len()), by_agent: alloc::vec![0..0; agents.len()], work: 0 };
    for batch in agents.chunks(PRELOAD_BATCH) {
        cluster.preload_free(batch.iter().map(|(_, slot)| *slot));
        for agent in batch {
            plan_agent(cluster, *agent, now.mono, &mut marks, &mut plan);
        }
    }
    cluster.tree.unmark_fresh(&mut marks, 0);
    plan
}

/// The agents to look at, in the order of their ids, so that the plan does not depend on who reported first.
fn candidates(cluster: &mut Cluster, is_everywhere: bool) -> Vec<u32> {
    let listed = cluster.take_listed();
    let is_candidate = |agent: &Agent| agent.is_active && !agent.free.is_empty();
    let own_minimum_count = cluster.own_minimum_count;
    // What is less than the cluster's minimum is an offer for nobody, unless some framework has a minimum of its own.
    let is_worth = |agent: &Agent| own_minimum_count > 0 || agent.free.is_enough();
    let ordered = |keep: &dyn Fn(&Agent) -> bool| -> Vec<u32> {
        let mut slots: Vec<u32> = cluster.agent_order.values().copied().collect();
        slots.retain(|slot| cluster.agent(*slot).is_some_and(|agent| is_candidate(agent) && keep(agent)));
        slots
    };
    let mut chosen: Vec<u32> = if is_everywhere {
        ordered(&|agent| is_worth(agent))
    } else if listed.len() > cluster.agent_order.len() / 16 {
        ordered(&|agent| (agent.is_fresh || !agent.pairs.is_empty()) && is_worth(agent))
    } else {
        let keep = |slot: &u32| cluster.agent(*slot).is_some_and(|agent| is_candidate(agent) && is_worth(agent));
        let mut chosen: Vec<u32> = listed.iter().copied().filter(keep).collect();
        chosen.sort_unstable_by(|a, b| cluster.agent(*a).map(|it| &it.id).cmp(&cluster.agent(*b).map(|it| &it.id)));
        chosen
    };
    chosen.dedup();
    // Listed agents that are left out have nothing for anybody: they are settled without a look.
    for slot in listed {
        if let Some(agent) = cluster.agent_mut(slot)
            && !(is_candidate(agent) && is_worth(agent))
        {
            agent.is_fresh = false;
            agent.pairs.clear();
        }
    }
    chosen
}

fn plan_agent(cluster: &mut Cluster, (rank, slot): (u32, u32), now: Timestamp, marks: &mut Vec<u32>, plan: &mut Plan) {
    let minimum = cluster.minimum;
    let Some(agent) = cluster.agent_mut(slot) else { return };
    let is_fresh = core::mem::take(&mut agent.is_fresh);
    let pairs = core::mem::take(&mut agent.pairs);
    let mut free = core::mem::replace(&mut agent.free, Free::new(Resources::new(), minimum));
    let is_sliver = !free.is_enough();
    let mut last_amounts = None;
    let mark_count = marks.len();
    if !is_fresh {
        for pair in pairs.into_iter().filter(|pair| cluster.is_current(*pair)).collect::<Vec<_>>() {
            if let Some(node) = cluster.client(pair.0).map(|client| client.node) {
                cluster.tree.mark_fresh(node, marks);
            }
        }
    }
    let first = plan.grants.len();
    let stamp = cluster.stamp;
    let mut walk = core::mem::take(&mut cluster.walk);
    let mut tallies = core::mem::take(&mut cluster.tallies);
    walk.start(&cluster.tree, if is_fresh { Scope::All } else { Scope::Fresh });
    while let Some(client_slot) = walk.next(&cluster.tree) {
        let (Some(agent), Some(client)) = (cluster.agent(slot), cluster.client(client_slot)) else { continue };
        plan.work += 1;
        if is_sliver && client.minimum.is_none() {
            continue;
        }
        let tally = &mut tallies[client_slot as usize];
        match consider(cluster, (slot, agent), &free, (client_slot, client), now) {
            Err(skip) => tally.add_skip(skip, slot, stamp),
            Ok(taken) => {
                tally.add_offer(stamp);
                let (resources, rest) = match taken {
                    Taken::All => {
                        last_amounts = free.amounts();
                        (free.into_resources(), Resources::new())
                    }
                    Taken::Part(part) => {
                        let rest = free.resources().saturating_sub(&part);
                        (part, rest)
                    }
                };
                free = Free::new(rest, minimum);
                plan.grants.push(NewGrant { agent: slot, client: client_slot, resources });
                if free.is_empty() {
                    break;
                }
            }
        }
    }
    (cluster.walk, cluster.tallies) = (walk, tallies);
    if !free.is_empty()
        && let Some(agent) = cluster.agent_mut(slot)
    {
        agent.free = free;
    }
    cluster.tree.unmark_fresh(marks, mark_count);
    plan.by_agent[rank as usize] = first..plan.grants.len();
    let mut given = plan.grants[first..].iter();
    // Who took all the rest came last.
    let last = last_amounts.and_then(|amounts| Some((given.next_back()?.client, amounts)));
    for grant in given {
        cluster.charge_grant(grant.client, &grant.resources);
    }
    if let Some((client, amounts)) = last {
        cluster.charge_amounts(client, &amounts);
    }
}

/// What of `free` on an agent a client may be offered now.
fn consider(
    cluster: &Cluster,
    (agent_slot, agent): (u32, &Agent),
    free: &Free,
    (client_slot, client): (u32, &Client),
    now: Timestamp,
) -> Result<Taken, Skip> {
    if agent.has_gpus && !client.capabilities.gpu_resources {
        return Err(Skip::HasGpus);
    }
    let taken = if free.is_plain() { Taken::All } else { usable(free.resources(), client)? };
    // The limits of roles chop here, before the smallest offer is looked at.
    let offer = match &taken {
        Taken::All => free.resources(),
        Taken::Part(part) => part,
    };
    let is_large_enough = match &client.minimum {
        None if free.is_plain() => free.is_enough(),
        None => is_enough(cluster.minimum, offer),
        Some(minimum) => {
            let holds = |(name, amount): (&ResourceName, &Milli)| offer.scalar(name) >= *amount;
            minimum.is_empty() || minimum.iter().any(|needed| needed.iter().all(holds))
        }
    };
    if !is_large_enough {
        return Err(Skip::TooSmall);
    }
    let is_refused = !cluster.filters.is_empty()
        && cluster.filters.blocked_until(cluster.pair(client_slot, agent_slot), offer, now).is_some();
    if is_refused { Err(Skip::Refused) } else { Ok(taken) }
}

/// What of `free` the client's role and capabilities let it use.
fn usable(free: &Resources, client: &Client) -> Result<Taken, Skip> {
    let may_use = |key: &muster_model::resource::ResourceKey| {
        key.is_usable_by(&client.role)
            && (key.reservations.len() <= 1 || client.capabilities.reservation_refinement)
            && (!key.is_revocable || client.capabilities.revocable_resources)
    };
    let part = free.filtered(may_use);
    if !part.is_empty() {
        return Ok(if part.iter().len() == free.iter().len() { Taken::All } else { Taken::Part(part) });
    }
    let has_revocable =
        free.iter().any(|resource| resource.key.is_revocable && resource.key.is_usable_by(&client.role));
    Err(if has_revocable { Skip::OnlyRevocable } else { Skip::NothingUsable })
}

/// Why a client has no offer of an agent now, looked at for this client alone.
pub(crate) fn explain(cluster: &Cluster, client_slot: u32, agent_slot: u32, now: Timestamp) -> Option<Skip> {
    let (client, agent) = (cluster.client(client_slot)?, cluster.agent(agent_slot)?);
    let framework = cluster.framework(client.framework)?;
    let demand = framework.demand.as_ref().filter(|it| it.is_active && it.info.roles.contains(&client.role));
    let Some(demand) = demand else { return Some(Skip::FrameworkInactive) };
    if demand.suppressed.contains(&client.role) {
        return Some(Skip::Suppressed);
    }
    if !agent.is_active {
        return Some(Skip::AgentInactive);
    }
    if agent.free.is_empty() {
        return Some(Skip::NothingFree);
    }
    let considered = consider(cluster, (agent_slot, agent), &agent.free, (client_slot, client), now);
    Some(considered.err().unwrap_or(Skip::NotItsTurn))
}
