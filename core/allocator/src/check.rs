//! Checks the tables against each other, from scratch and slowly: for tests.

use crate::cluster::{Cluster, GrantState};
use crate::free::Free;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use muster_model::Role;
use muster_model::resource::{Resources, Value};

impl Cluster {
    /// Errors: which table does not agree with which.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut held: BTreeMap<u32, (u32, BTreeMap<usize, u128>)> = BTreeMap::new();
        for (slot, agent) in (0u32..).zip(&self.agents) {
            let Some(agent) = agent else { continue };
            let (mut all, mut is_over) = (agent.free.resources().clone(), false);
            let mut rows = agent.used.clone();
            for id in &agent.grants {
                let row = self.grants.get(id).ok_or_else(|| format!("offer {id} of agent {} has no row", agent.id))?;
                if row.agent != slot {
                    return Err(format!("offer {id} is listed at agent {}, which its row does not name", agent.id));
                }
                let grant = &row.offer.grant;
                if row.state != GrantState::Void {
                    let client = self.known_client(&grant.framework_id, &grant.role);
                    let client = client.ok_or_else(|| format!("nobody holds offer {id}"))?;
                    rows.push((client, grant.resources.clone()));
                }
            }
            for (client, amount) in &rows {
                is_over |= all.add(amount).is_err();
                let (refs, sums) = held.entry(*client).or_default();
                *refs += 1;
                self.sum(sums, amount);
            }
            let is_exact = !is_over && all == agent.info.total;
            if is_exact == agent.is_over {
                let total = &agent.info.total;
                return Err(format!("agent {}: free + used + granted is {all}, but it has {total}", agent.id));
            }
            let free = agent.free.resources();
            if agent.free != Free::new(free.clone(), self.minimum) {
                return Err(format!("agent {}: what is kept of {free} being free is wrong", agent.id));
            }
        }
        self.check_clients(&held)?;
        self.check_totals()
    }

    fn check_clients(&self, held: &BTreeMap<u32, (u32, BTreeMap<usize, u128>)>) -> Result<(), String> {
        for (slot, client) in (0u32..).zip(&self.clients) {
            let (refs, sums) = held.get(&slot).cloned().unwrap_or_default();
            let Some(client) = client else {
                if refs > 0 {
                    return Err(format!("{refs} amounts are held by client {slot}, which is not there"));
                }
                continue;
            };
            if self.is_held(slot) != (refs > 0) {
                return Err(format!(
                    "client {slot} of role {}: {refs} amounts held, but counted otherwise",
                    client.role
                ));
            }
            for (name, amount) in self.tree.held(client.node).iter().enumerate() {
                let expected = sums.get(&name).copied().unwrap_or(0);
                if *amount != expected {
                    let role: &Role = &client.role;
                    return Err(format!(
                        "client {slot} of role {role}: charged {amount} of name {name}, holds {expected}"
                    ));
                }
            }
        }
        self.tree.check()
    }

    fn check_totals(&self) -> Result<(), String> {
        let mut totals = BTreeMap::new();
        for agent in self.agents.iter().flatten() {
            self.sum(&mut totals, &agent.info.total);
        }
        for (name, total) in self.tree.totals().iter().enumerate() {
            let expected = totals.get(&name).copied().unwrap_or(0);
            if *total != expected {
                return Err(format!("the cluster has {expected} of name {name}, but the tree says {total}"));
            }
        }
        Ok(())
    }

    fn sum(&self, sums: &mut BTreeMap<usize, u128>, amount: &Resources) {
        for resource in amount {
            let name = self.names().iter().position(|name| *name == resource.key.name);
            if let (Value::Scalar(amount), Some(name)) = (&resource.value, name) {
                *sums.entry(name).or_default() += u128::from(amount.0);
            }
        }
    }
}
