//! Which nodes live, and what this one does for frameworks whose home is dead.
//!
//! One node carries the failover timers of dead homes. If two believe that they do, the removal's compare lets one win.

use crate::engine::{HomeEngine, unavailable};
use crate::framework::{Framework, Session};
use crate::io::Answer;
use crate::stream_id::node_tag_of;
use crate::timers::Timer;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;
use muster_model::node_message::ToAllocator;
use muster_model::time::Now;
use muster_model::{FrameworkId, NodeId};

/// The nodes as this home was last told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Nodes {
    live: BTreeSet<NodeId>,
    carries_dead_homes: bool,
}

impl HomeEngine {
    pub(crate) fn nodes_changed(&mut self, live: BTreeSet<NodeId>, carries_dead_homes: bool, now: Now) {
        let nodes = Some(Nodes { live, carries_dead_homes });
        if self.nodes == nodes {
            return;
        }
        self.nodes = nodes;
        let ids: Vec<FrameworkId> = self.frameworks.keys().cloned().collect();
        for id in ids {
            self.carry(&id, now);
        }
    }

    /// Whether this node acts for dead homes.
    pub(crate) fn carries_dead_homes(&self) -> bool {
        self.nodes.as_ref().is_some_and(|nodes| nodes.carries_dead_homes)
    }

    /// Whether the framework's home is known to be dead.
    fn is_home_dead(&self, framework: &Framework) -> bool {
        let home = &framework.record.home.node;
        *home != self.config.node && self.nodes.as_ref().is_some_and(|nodes| !nodes.live.contains(home))
    }

    /// Begins or ends to act for the framework's home, by what is known now. A home that died without having seen its
    /// client leave leaves no deadline, so there is no timer.
    pub(crate) fn carry(&mut self, id: &FrameworkId, now: Now) {
        let Some(framework) = self.frameworks.get(id) else { return };
        if framework.record.home.node == self.config.node {
            self.carried.remove(id);
            return;
        }
        let is_carried = self.carries_dead_homes() && self.is_home_dead(framework);
        let home_fence = framework.fence();
        let removal_due = match framework.record.failover_deadline {
            Some(deadline) if is_carried => Some(now.mono.after(deadline.since(now.wall))),
            Some(_) | None => None,
        };
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.session = Session::Recovered { removal_due };
        }
        match removal_due {
            Some(due) => self.timers.set(Timer::Removal(id.clone()), due),
            None => self.timers.cancel(&Timer::Removal(id.clone())),
        }
        if !is_carried {
            self.carried.remove(id);
        } else if self.carried.insert(id.clone(), home_fence) != Some(home_fence) {
            self.send_to_allocator(ToAllocator::HomeLost { framework_id: id.clone(), home_fence });
        }
        self.touch(id);
    }

    /// The answer to a call of a framework without a stream here. Mesos's, unless another living node has the framework
    /// and the call does not say that it was subscribed here.
    pub(crate) fn not_subscribed(&self, framework: &Framework, stream_id: Option<&str>) -> Answer {
        let home = &framework.record.home.node;
        let is_ours = stream_id.and_then(node_tag_of) == Some(self.config.node_tag);
        if *home == self.config.node || is_ours || self.is_home_dead(framework) {
            return Answer::Forbidden("Framework is not subscribed".into());
        }
        let id = &framework.info().id;
        unavailable(format!("framework {id} is at node {home}; call that node, or subscribe here"))
    }
}
