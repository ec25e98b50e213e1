//! What owners say of agents: books, endings of grants, resources that are free again.
//!
//! The owner's book is the truth. A grant that a book does not hold is void: it may still be on its way to the owner, so the
//! owner is asked to take it out again before the resources can be given anew (messages to one owner keep their order),
//! and its row is kept until the owner says how it ended, should an order have consumed it in between.

use crate::cluster::{GrantRow, GrantState};
use crate::engine::AllocatorEngine;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::node_message::{AgentBook, ClosedGrant};
use muster_model::offer::{Offer, RescindReason};
use muster_model::resource::Resources;
use muster_model::{AgentId, FrameworkId, OfferId, Role, ShardId, Timestamp};

/// Replaces what is known of one agent.
pub(crate) fn replace(engine: &mut AllocatorEngine, book: AgentBook, now: Timestamp) {
    let cluster = &mut engine.cluster;
    let newest = cluster.shard_fences.entry(book.shard.0).or_default();
    if book.shard.1 < *newest {
        // A deposed owner's.
        return;
    }
    *newest = book.shard.1;
    let known = cluster.agent_slot(&book.agent_id);
    let is_other_owner = known
        .and_then(|slot| cluster.agent(slot))
        .is_some_and(|agent| agent.is_owner_lost || agent.shard != book.shard);
    let reason = match (is_other_owner, book.is_active) {
        (true, _) => RescindReason::OwnerLost,
        (false, true) => RescindReason::NotFree,
        (false, false) => RescindReason::AgentDisconnected,
    };
    let slot = known.unwrap_or_else(|| cluster.add_agent(book.agent_id.clone(), book.info.clone(), book.shard));
    let Some(agent) = cluster.agent_mut(slot) else { return };
    let is_news = !agent.is_active || *agent.info != *book.info;
    let free_before = agent.free.resources().clone();
    agent.shard = book.shard;
    agent.is_active = book.is_active;
    agent.is_owner_lost = false;
    if *agent.info != *book.info {
        cluster.set_info(slot, book.info.clone());
    }
    let used = book
        .used
        .iter()
        .filter(|(.., amount)| !amount.is_empty())
        .map(|(framework_id, role, amount)| (cluster.intern_client(framework_id, role), amount.clone()));
    let used: Vec<(u32, Resources)> = used.collect();
    cluster.replace_used(slot, used);
    replace_grants(engine, slot, &book, reason);
    if is_other_owner {
        drop_void(engine, slot);
    }
    engine.cluster.recompute_free(slot);
    if engine.cluster.agent(slot).is_some_and(|agent| agent.is_over) {
        revoke_open(engine, slot, RescindReason::AgentChanged);
    }
    let Some(agent) = engine.cluster.agent(slot) else { return };
    if is_news && book.is_active {
        engine.cluster.freshen_agent(slot);
        engine.trigger(now);
    } else if *agent.free.resources() != free_before {
        engine.freshen_agent(slot, now);
    }
}

fn replace_grants(engine: &mut AllocatorEngine, slot: u32, book: &AgentBook, reason: RescindReason) {
    let Some(agent) = engine.cluster.agent(slot) else { return };
    for offer_id in agent.grants.clone() {
        let Some(row) = engine.cluster.grants.get(&offer_id) else { continue };
        let is_in_book = book.grants.iter().any(|grant| grant.offer_id == offer_id);
        let framework_id = row.offer.grant.framework_id.clone();
        match (row.state, is_in_book) {
            (GrantState::Open | GrantState::Revoking, true) => {}
            (GrantState::Void, true) => {
                engine.cluster.hold_again(offer_id);
                engine.revoke(offer_id);
            }
            (GrantState::Open, false) => {
                engine.cluster.free_grant(offer_id, true);
                engine.revoke(offer_id);
                engine.rescind(&framework_id, offer_id, reason);
            }
            (GrantState::Revoking, false) => drop(engine.cluster.free_grant(offer_id, true)),
            // Not even this book may tell: the grant may come to the owner after it, and be used. Its end will be said.
            (GrantState::Void, false) => {}
        }
    }
    engine.cluster.trim_void_grants(slot);
    for grant in &book.grants {
        let known = engine.cluster.grants.get(&grant.offer_id).map(|row| (row.agent, &row.offer.grant.agent_id));
        let is_orphan = known.is_some_and(|(row_agent, id)| row_agent != slot && *id == book.agent_id);
        if grant.agent_id != book.agent_id || (known.is_some() && !is_orphan) {
            continue;
        }
        // Another allocator made it, or this one before the agent was away: it is void, but not free before the owner has taken it out.
        let client = engine.cluster.intern_client(&grant.framework_id, &grant.role);
        let offer = Arc::new(Offer { grant: grant.clone(), agent: book.info.clone() });
        engine.cluster.add_grant(client, GrantRow { offer, agent: slot, state: GrantState::Revoking });
        engine.revoke(grant.offer_id);
    }
}

/// Forgets the void grants of an agent whose owner is another one, or was out of reach: its book has what became of them.
/// One that is on its way there all the same is taken out again, and its end changes nothing.
fn drop_void(engine: &mut AllocatorEngine, slot: u32) {
    let Some(agent) = engine.cluster.agent(slot) else { return };
    for offer_id in agent.grants.clone() {
        if engine.cluster.grants.get(&offer_id).is_some_and(|row| row.state == GrantState::Void) {
            engine.revoke(offer_id);
            engine.cluster.free_grant(offer_id, false);
        }
    }
}

/// Gives nothing on the agents of these shards until an owner has sent their books; their grants are void.
pub(crate) fn lose_shards(engine: &mut AllocatorEngine, shards: &BTreeSet<ShardId>, reason: RescindReason) {
    let is_lost = |slot: &u32| engine.cluster.agent(*slot).is_some_and(|agent| shards.contains(&agent.shard.0));
    let lost: Vec<u32> = engine.cluster.agent_order.values().copied().filter(is_lost).collect();
    for slot in lost {
        let Some(agent) = engine.cluster.agent_mut(slot) else { continue };
        agent.is_active = false;
        agent.is_owner_lost = true;
        for offer_id in agent.grants.clone() {
            let Some((offer, state)) = engine.cluster.free_grant(offer_id, true) else { continue };
            if state == GrantState::Open {
                engine.rescind(&offer.grant.framework_id, offer_id, reason);
            }
        }
        engine.cluster.trim_void_grants(slot);
    }
}

/// Gives nothing on an agent until its next book; its grants are void.
pub(crate) fn deactivate(engine: &mut AllocatorEngine, agent_id: &AgentId, reason: RescindReason) {
    let Some(slot) = engine.cluster.agent_slot(agent_id) else { return };
    if let Some(agent) = engine.cluster.agent_mut(slot) {
        agent.is_active = false;
    }
    void_all(engine, slot, reason);
}

/// Forgets an agent, with its grants and all that is used on it.
pub(crate) fn remove(engine: &mut AllocatorEngine, agent_id: &AgentId) {
    let Some(slot) = engine.cluster.agent_slot(agent_id) else { return };
    void_all(engine, slot, RescindReason::AgentRemoved);
    engine.cluster.orphan_grants(slot);
    engine.cluster.replace_used(slot, Vec::new());
    engine.cluster.remove_agent(slot);
}

/// Enters how a grant ended. What is not used is free, and refused for as long as the framework said.
pub(crate) fn close(engine: &mut AllocatorEngine, closed: ClosedGrant, now: Timestamp) {
    let Some(row) = engine.cluster.grants.get(&closed.offer_id) else { return };
    if row.offer.grant.agent_id != closed.agent_id {
        return;
    }
    let Some((offer, state)) = engine.cluster.free_grant(closed.offer_id, false) else { return };
    let Some(slot) = engine.cluster.agent_slot(&closed.agent_id) else { return };
    let grant = &offer.grant;
    if !closed.used.is_empty() {
        let client = engine.cluster.intern_client(&grant.framework_id, &grant.role);
        engine.cluster.add_used(slot, client, &closed.used);
    }
    if state == GrantState::Void {
        return;
    }
    if let (GrantState::Open, Some(reason)) = (state, closed.reason) {
        engine.rescind(&grant.framework_id, grant.offer_id, reason);
    }
    if let Some(length) = closed.refusal {
        let rest = grant.resources.saturating_sub(&closed.used);
        let until = now.after(length.max(engine.interval()));
        if let Some(client) = engine.cluster.refusing_client(&grant.framework_id, &grant.role)
            && !rest.is_empty()
        {
            let pair = engine.cluster.pair(client, slot);
            engine.cluster.filters.add(pair, rest, until);
        }
    }
    engine.freshen_agent(slot, now);
}

/// Enters that resources are used no longer.
pub(crate) fn free(
    engine: &mut AllocatorEngine,
    agent_id: &AgentId,
    framework_id: &FrameworkId,
    role: &Role,
    resources: &Resources,
    now: Timestamp,
) {
    let Some(slot) = engine.cluster.agent_slot(agent_id) else { return };
    let Some(client) = engine.cluster.known_client(framework_id, role) else { return };
    engine.cluster.remove_used(slot, client, resources);
    engine.freshen_agent(slot, now);
}

fn void_all(engine: &mut AllocatorEngine, slot: u32, reason: RescindReason) {
    let Some(agent) = engine.cluster.agent(slot) else { return };
    for offer_id in agent.grants.clone() {
        let is_open = engine.cluster.grants.get(&offer_id).is_some_and(|row| row.state == GrantState::Open);
        if is_open {
            // The owner has dropped it, unless it is still on its way: the agent may be back when it comes.
            engine.revoke(offer_id);
        }
        let Some((offer, ..)) = engine.cluster.free_grant(offer_id, true) else { continue };
        if is_open {
            engine.rescind(&offer.grant.framework_id, offer_id, reason);
        }
    }
    engine.cluster.trim_void_grants(slot);
}

fn revoke_open(engine: &mut AllocatorEngine, slot: u32, reason: RescindReason) {
    let Some(agent) = engine.cluster.agent(slot) else { return };
    let open =
        agent.grants.iter().filter_map(|id| engine.cluster.grants.get(id)).filter(|row| row.state == GrantState::Open);
    let open: Vec<(OfferId, FrameworkId)> =
        open.map(|row| (row.offer.grant.offer_id, row.offer.grant.framework_id.clone())).collect();
    for (offer_id, framework_id) in open {
        engine.revoke(offer_id);
        engine.rescind(&framework_id, offer_id, reason);
    }
}
