//! Agents' connections: those of this node's shards, of others', and those that stand by.

use crate::engine::NodeEngine;
use crate::io::Output;
use alloc::format;
use alloc::sync::Arc;
use muster_model::agent_message::{FromAgent, ToAgent};
use muster_model::time::Now;
use muster_model::{AgentId, ShardId};
use muster_owner_engine::io::{self as owner, SessionId, Whereabouts};
use muster_sharding::rendezvous::{Part as SharedPart, standby_of};

impl NodeEngine {
    /// Sessions of agents of other nodes' shards are sent there; all else is the owner's.
    pub(crate) fn hear_agent(&mut self, input: owner::Input, now: Now) {
        match &input {
            owner::Input::SessionOpened { session, agent_id, .. } => {
                let shard = self.shard_of(agent_id);
                self.standbys.greeted(*session);
                if !self.owned.contains(&shard) {
                    return self.refer(*session, shard);
                }
                self.sessions.insert(*session, shard);
            }
            owner::Input::SessionClosed { session, .. } => {
                self.sessions.remove(session);
                let stood_by = self.standbys.closed(*session);
                self.call_standbys(now);
                if stood_by {
                    return;
                }
            }
            owner::Input::FromAgent { session, message: FromAgent::Picture(_) } => {
                self.standbys.is_back(*session);
                self.call_standbys(now);
            }
            owner::Input::AgentAdmitted(_)
            | owner::Input::ShardsTaken { .. }
            | owner::Input::ShardLost { .. }
            | owner::Input::Drain { .. }
            | owner::Input::Undrain { .. }
            | owner::Input::SettleDoubt { .. }
            | owner::Input::PeerMoved { .. }
            | owner::Input::FromAgent { .. }
            | owner::Input::FromNode(_)
            | owner::Input::Persisted { .. }
            | owner::Input::PersistFailed { .. } => {}
        }
        self.owner.handle(input, now);
    }

    pub(crate) fn refer(&mut self, session: SessionId, shard: ShardId) {
        let message = match self.whereabouts(shard) {
            Some(Whereabouts { fence, address }) => ToAgent::Referral { fence, address },
            None => {
                let why = format!("shard {shard} has no owner at the moment; it is being taken over");
                ToAgent::Refused { why: Arc::from(why), may_retry: true }
            }
        };
        self.outputs.push_back(Output::ToAgent { session, message });
        let why = Arc::from(format!("this node does not own shard {shard}"));
        self.outputs.push_back(Output::CloseSession { session, why });
    }

    /// Where another live node owns the shard.
    pub(crate) fn whereabouts(&self, shard: ShardId) -> Option<Whereabouts> {
        let part = self.directory.shard(shard)?;
        if part.node == self.config.record.name {
            return None;
        }
        let node = self.directory.nodes().get(&part.node)?;
        Some(Whereabouts { fence: part.fence, address: node.quic.clone() })
    }

    pub(crate) fn stand_by(&mut self, session: SessionId, agent_id: &AgentId, now: Now) {
        let shard = self.shard_of(agent_id);
        if !self.standbys.add(session, shard) {
            let why = Arc::from("too many standby connections");
            self.outputs.push_back(Output::CloseSession { session, why });
        } else if self.owned.contains(&shard) {
            self.standbys.want_one(session);
            self.call_standbys(now);
        }
    }

    /// Tells agents that stand by that this node owns their shards now, as many as may be called at once: they say hello on
    /// the connection they have.
    pub(crate) fn call_standbys(&mut self, now: Now) {
        while let Some((session, shard)) = self.standbys.next(now.mono) {
            let fence = self.claims.fence_of(SharedPart::Shard(shard)).filter(|_| self.owned.contains(&shard));
            let Some(fence) = fence else {
                // Lost again before its turn: its next owner calls it.
                self.standbys.is_back(session);
                continue;
            };
            let address = self.config.record.quic.clone();
            self.outputs.push_back(Output::ToAgent { session, message: ToAgent::Referral { fence, address } });
        }
    }

    /// The address of the node that is next in line for a shard of this one.
    pub(crate) fn standby_address(&self, shard: ShardId) -> Option<Arc<str>> {
        let live = self.live.capacities();
        let next = standby_of(SharedPart::Shard(shard), &self.config.record.name, &live)?;
        self.directory.nodes().get(next).map(|node| node.quic.clone())
    }
}
