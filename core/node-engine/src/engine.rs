//! The node as one machine: what each input means for its parts, and what is exchanged anew after a loss.

use crate::directory::{Changes, Directory};
use crate::io::{Input, LinkId, NodeConfig, Note, Output, Part};
use crate::limits::CLOCK_SKEW_MAX_MS;
use crate::shown::in_words;
use crate::standby::Standbys;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_allocator::AllocatorEngine;
use muster_allocator::io as allocator;
use muster_home_engine::HomeEngine;
use muster_home_engine::io as home;
use muster_model::agent_message::ToAgent;
use muster_model::fence::Fence;
use muster_model::node_message::{NodeMessage, Target};
use muster_model::offer::RescindReason;
use muster_model::record::NodeRecord;
use muster_model::store_op::PersistError;
use muster_model::time::Now;
use muster_model::{NodeId, Rng, ShardId, Timestamp};
use muster_owner_engine::OwnerEngine;
use muster_owner_engine::io::{self as owner, NoteLevel, SessionId, TakenShard};
use muster_sharding::fence::{ClaimConfig, Claims, Input as Claim, Output as Claimed, OwnedShard};
use muster_sharding::live::Live;
use muster_sharding::membership::{Input as Probed, Membership, Output as Watched};
use muster_sharding::rendezvous::Part as SharedPart;

/// One control-plane node. See the crate's documentation.
pub struct NodeEngine {
    pub(crate) config: NodeConfig,
    pub(crate) owner: OwnerEngine,
    pub(crate) home: HomeEngine,
    pub(crate) allocator: AllocatorEngine,
    pub(crate) directory: Directory,
    pub(crate) outputs: VecDeque<Output>,
    /// Shards that the owner acts for.
    pub(crate) owned: BTreeSet<ShardId>,
    pub(crate) links: BTreeMap<NodeId, LinkId>,
    /// Messages that were faster than the news of this node's own shards.
    pub(crate) early: VecDeque<(Timestamp, NodeId, NodeMessage)>,
    pub(crate) claims: Claims,
    pub(crate) membership: Membership,
    pub(crate) live: Live,
    /// Shards that were won, until the directory has all that was written before.
    pub(crate) won: Vec<OwnedShard>,
    /// The same for the allocator's part.
    pub(crate) won_allocator: Option<(Fence, u64)>,
    pub(crate) is_allocator: bool,
    pub(crate) is_loaded: bool,
    pub(crate) link_nodes: BTreeMap<LinkId, NodeId>,
    /// Nodes whose link went down, and when it counts as lost.
    pub(crate) down: BTreeMap<NodeId, Timestamp>,
    pub(crate) sessions: BTreeMap<SessionId, ShardId>,
    pub(crate) standbys: Standbys,
    pub(crate) between: VecDeque<(Target, NodeMessage)>,
    /// Nodes that counted as lost and live, while this one allocates: their homes' frameworks are obeyed again.
    pub(crate) returned: BTreeSet<NodeId>,
    /// How far other nodes' clocks are ahead of this one's, in milliseconds.
    pub(crate) clocks: BTreeMap<NodeId, i64>,
    /// The nodes that the shell was told to keep connections with.
    pub(crate) told_peers: Vec<NodeRecord>,
}

impl NodeEngine {
    /// Makes a node that plays no part yet: it waits for [`Input::Loaded`].
    pub fn new(config: NodeConfig, rng: &Rng) -> Self {
        let claims = Claims::new(ClaimConfig {
            node: config.record.name.clone(),
            incarnation: config.record.incarnation,
            generation: config.generation,
            shard_count: config.shard_count,
            keys_per_op_max: config.keys_per_op_max,
        });
        Self {
            owner: OwnerEngine::new(config.owner.clone(), rng.fork("owner")),
            home: HomeEngine::new(config.home.clone(), rng.fork("home")),
            allocator: AllocatorEngine::new(config.allocator.clone(), rng.fork("allocator")),
            membership: Membership::new(config.record.clone()),
            claims,
            directory: Directory::default(),
            outputs: VecDeque::new(),
            owned: BTreeSet::new(),
            links: BTreeMap::new(),
            early: VecDeque::new(),
            live: Live::default(),
            won: Vec::new(),
            won_allocator: None,
            is_allocator: false,
            is_loaded: false,
            link_nodes: BTreeMap::new(),
            down: BTreeMap::new(),
            sessions: BTreeMap::new(),
            standbys: Standbys::default(),
            between: VecDeque::new(),
            returned: BTreeSet::new(),
            clocks: BTreeMap::new(),
            told_peers: Vec::new(),
            config,
        }
    }

    /// Takes one input. What the parts say to each other because of it is carried by [`Self::settle`].
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Owner(input) => self.hear_agent(input, now),
            Input::Home(input) => self.home.handle(input, now),
            Input::FromPeer { link, messages } => {
                let Some(node) = self.link_nodes.get(&link).cloned() else { return };
                for message in messages {
                    self.hear_peer(&node, message, now);
                }
            }
            Input::Stored { part, seq, result } => self.stored(part, seq, result, now),
            Input::Read { part: Part::Home, seq, result: Ok(found) } => {
                self.home.handle(home::Input::Read { seq, found }, now);
            }
            Input::Read { part: Part::Home, seq, result: Err(error) } => {
                self.home.handle(home::Input::ReadFailed { seq, error }, now);
            }
            Input::Read { part: Part::Claims, seq, result: Ok(records) } => {
                self.claims.handle(Claim::Read { seq, records }, now);
            }
            Input::Read { part: Part::Claims, seq, result: Err(_) } => {
                self.claims.handle(Claim::ReadFailed { seq }, now);
            }
            // The owner asks by `ReadAgent` only.
            Input::Read { part: Part::Owner, .. } => {}
            Input::AgentRead { stored: Some(stored), .. } => {
                self.owner.handle(owner::Input::AgentAdmitted(stored), now)
            }
            Input::AgentRead { shard, stored: None } => self.lose_shard(shard, now),
            Input::Loaded { records, revision } => {
                if !self.is_loaded {
                    self.is_loaded = true;
                    self.home.handle(home::Input::Loaded(records.clone()), now);
                }
                let changes = self.directory.load(records, revision);
                self.apply(changes, now);
                self.claim_all(now);
            }
            Input::Changed(changes) => {
                let changes = self.directory.change(changes);
                self.apply(changes, now);
            }
            Input::StoreAway(is_away) => {
                let (probed, claim) = match is_away {
                    true => (Probed::StoreAway, Claim::StoreAway),
                    false => (Probed::StoreBack, Claim::StoreBack),
                };
                self.membership.handle(probed, now);
                self.claims.handle(claim, now);
            }
            Input::StandBy { session, agent_id } => self.stand_by(session, &agent_id, now),
            Input::PeerUp { link, node } => self.peer_up(link, node, now),
            Input::PeerStops { link } => {
                if let Some(node) = self.link_nodes.get(&link).cloned() {
                    self.membership.handle(Probed::Stopping { node }, now);
                }
            }
            Input::PeerDown { link } => self.peer_down(link, now),
            Input::Probed(input) => self.membership.handle(input, now),
            Input::ClockHeard { node, ahead_ms } => self.hear_clock(node, ahead_ms),
        }
    }

    /// Nothing is decided by another node's clock; people are warned, as times in answers and logs do not fit together.
    fn hear_clock(&mut self, node: NodeId, ahead_ms: i64) {
        let is_off = ahead_ms.unsigned_abs() > CLOCK_SKEW_MAX_MS;
        let was_off = self.clocks.get(&node).is_some_and(|before| before.unsigned_abs() > CLOCK_SKEW_MAX_MS);
        if is_off && !was_off {
            let detail = format!("{node} is {ahead_ms} ms ahead; let both follow a time server (NTP)");
            self.note(NoteLevel::Warn, "two nodes' clocks disagree", Arc::from(detail));
        }
        self.clocks.insert(node, ahead_ms);
    }

    /// Lets the parts talk to each other until nobody has anything more to say. Call it before the outputs are performed.
    pub fn settle(&mut self, now: Now) {
        loop {
            self.drain_placement(now);
            self.drain_owner(now);
            self.drain_home();
            while let Some(allocator::Output::Send { to, message }) = self.allocator.poll_output() {
                self.between.push_back((to, message));
            }
            if self.between.is_empty() {
                // What was said of their loss has been heard: now they are back.
                let returned = core::mem::take(&mut self.returned);
                if returned.is_empty() {
                    return;
                }
                returned.into_iter().for_each(|node| self.home_back(&node, now));
            }
            while let Some((to, message)) = self.between.pop_front() {
                self.route(to, message, now);
            }
        }
    }

    /// The next thing to do, in this order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_deadline`] is to be called.
    pub fn deadline(&self) -> Option<Timestamp> {
        [
            self.owner.deadline().map(|(at, _)| at),
            self.home.deadline().map(|(at, _)| at),
            self.allocator.deadline().map(|(at, _)| at),
            self.claims.deadline().map(|(at, _)| at),
            self.membership.deadline().map(|(at, _)| at),
            self.down.values().min().copied(),
            self.standbys.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due. Early, late and repeated calls are harmless.
    pub fn handle_deadline(&mut self, now: Now) {
        let is_due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now.mono);
        if is_due(self.owner.deadline().map(|(at, _)| at)) {
            self.owner.handle_deadline(now);
        }
        if is_due(self.home.deadline().map(|(at, _)| at)) {
            self.home.handle_deadline(now);
        }
        if is_due(self.allocator.deadline().map(|(at, _)| at)) {
            self.allocator.handle_deadline(now);
        }
        if is_due(self.claims.deadline().map(|(at, _)| at)) {
            self.claims.handle_deadline(now);
        }
        if is_due(self.membership.deadline().map(|(at, _)| at)) {
            self.membership.handle_deadline(now);
        }
        self.give_up_links(now);
        self.standbys.give_up(now.mono);
        self.call_standbys(now);
    }

    /// The other nodes that can be reached now.
    pub fn links(&self) -> &BTreeMap<NodeId, LinkId> {
        &self.links
    }

    fn stored(&mut self, part: Part, seq: u64, result: Result<u64, PersistError>, now: Now) {
        match (part, result) {
            (Part::Owner, Ok(revision)) => self.owner.handle(owner::Input::Persisted { seq, revision }, now),
            (Part::Owner, Err(error)) => self.owner.handle(owner::Input::PersistFailed { seq, error }, now),
            (Part::Home, Ok(revision)) => self.home.handle(home::Input::Persisted { seq, revision }, now),
            (Part::Home, Err(error)) => self.home.handle(home::Input::PersistFailed { seq, error }, now),
            (Part::Claims, Ok(revision)) => self.claims.handle(Claim::Persisted { seq, revision }, now),
            (Part::Claims, Err(error)) => self.claims.handle(Claim::PersistFailed { seq, error }, now),
        }
    }

    /// What changed in the store, told to whom it concerns.
    fn apply(&mut self, changes: Changes, now: Now) {
        let Changes { shards, is_allocator_moved, are_nodes_changed, agents, frameworks, parts } = changes;
        for stored in agents {
            if let muster_model::store_op::Key::Agent(id) = &stored.key
                && self.owned.contains(&self.shard_of(id))
            {
                self.owner.handle(owner::Input::AgentAdmitted(stored), now);
            }
        }
        for stored in frameworks {
            self.home.handle(home::Input::RecordChanged(stored), now);
        }
        for stored in parts {
            self.claims.handle(Claim::Changed(stored), now);
        }
        if are_nodes_changed {
            let nodes = self.directory.nodes().values().cloned().collect();
            self.membership.handle(Probed::Nodes(nodes), now);
            self.tell_peers();
        }
        let mut moved: BTreeMap<NodeId, BTreeSet<ShardId>> = BTreeMap::new();
        for (shard, before) in shards {
            let Some(part) = self.directory.shard(shard) else { continue };
            if before.is_none_or(|before| before.node != part.node || before.fence != part.fence) {
                moved.entry(part.node.clone()).or_default().insert(shard);
            }
        }
        if !moved.is_empty() {
            self.home.handle(home::Input::OwnersChanged(self.directory.owners()), now);
        }
        for (node, shards) in moved {
            if self.is_allocator {
                let is_told = |shard: &ShardId| {
                    let part = self.directory.shard(*shard);
                    part.is_some_and(|part| self.allocator.has_book_of(*shard, part.fence))
                };
                let has_spoken = shards.iter().any(is_told);
                self.void_grants(&shards, now);
                if has_spoken {
                    // The new owner was faster than the watch.
                    self.allocator.handle(allocator::Input::OwnerBack(node.clone()), now);
                }
            }
            // This node's own are met once they are taken.
            if node != self.config.record.name {
                self.drop_early(&shards);
                self.reset_owner(node, shards, "the agent's shard has a new owner", now);
            }
        }
        if is_allocator_moved {
            self.home.handle(home::Input::AllocatorReset, now);
        }
        self.take_won(now);
    }

    /// Has the allocator count grants on these shards' agents as void.
    pub(crate) fn void_grants(&mut self, shards: &BTreeSet<ShardId>, now: Now) {
        let lost = allocator::Input::ShardsLost { shards: shards.clone(), reason: RescindReason::OwnerLost };
        self.allocator.handle(lost, now);
    }

    pub(crate) fn reset_owner(&mut self, owner: NodeId, shards: BTreeSet<ShardId>, why: &str, now: Now) {
        if !shards.is_empty() {
            self.home.handle(home::Input::OwnersReset { owner, shards, why: Arc::from(why) }, now);
        }
    }

    fn claim_all(&mut self, now: Now) {
        self.live = self.membership.live();
        self.tell_home_who_lives(now);
        let records = self.directory.part_records();
        self.claims.handle(Claim::Loaded { records, live: self.live.clone() }, now);
    }

    /// Acts for what was won, as soon as the directory is past the swap: what was written before it is known then.
    fn take_won(&mut self, now: Now) {
        let known = self.directory.revision();
        let (ready, waiting): (Vec<_>, Vec<_>) =
            core::mem::take(&mut self.won).into_iter().partition(|won| won.revision <= known);
        self.won = waiting;
        if !ready.is_empty() {
            let shards: BTreeSet<ShardId> = ready.iter().map(|won| won.shard).collect();
            let taken = |it: OwnedShard| TakenShard { shard: it.shard, fence: it.fence, revision: it.revision };
            self.owner.handle(
                owner::Input::ShardsTaken {
                    shards: ready.into_iter().map(taken).collect(),
                    agents: self.directory.agents_in(&shards, self.config.shard_count),
                    removed_frameworks: self.directory.removed(),
                    frameworks: self.directory.frameworks(),
                },
                now,
            );
            self.owned.extend(shards.iter().copied());
            self.standbys.want(&shards);
            self.call_standbys(now);
            let me = self.config.record.name.clone();
            self.reset_owner(me, shards, "the agent's shard has a new owner", now);
            self.deliver_early(now);
        }
        if let Some((fence, revision)) = self.won_allocator
            && revision <= known
        {
            self.won_allocator = None;
            self.is_allocator = true;
            self.allocator.handle(allocator::Input::Took { fence, roles: self.directory.roles() }, now);
            self.tell_home_who_lives(now);
        }
    }

    fn lose_shard(&mut self, shard: ShardId, now: Now) {
        self.won.retain(|won| won.shard != shard);
        if self.owned.remove(&shard) {
            let now_at = self.whereabouts(shard);
            self.owner.handle(owner::Input::ShardLost { shard, now_at }, now);
        }
    }

    pub(crate) fn tell_home_who_lives(&mut self, now: Now) {
        let live = self.live.nodes.keys().cloned().collect();
        self.home.handle(home::Input::NodesChanged { live, carries_dead_homes: self.is_allocator }, now);
    }

    fn drain_placement(&mut self, now: Now) {
        loop {
            if let Some(output) = self.membership.poll_output() {
                self.watched(output, now);
            } else if let Some(output) = self.claims.poll_output() {
                self.claimed(output, now);
            } else {
                break;
            }
        }
        // Shards are told one at a time where the news came before the answer. To act for them costs time for each task of
        // the cluster, so it is done once for all.
        self.take_won(now);
    }

    fn watched(&mut self, output: Watched, now: Now) {
        match output {
            Watched::Probe { node, address, seq } => self.outputs.push_back(Output::Probe { node, address, seq }),
            Watched::SuspectsChanged(suspects) => self.outputs.push_back(Output::Suspects(suspects)),
            Watched::LiveChanged(live) => {
                let before = core::mem::replace(&mut self.live, live.clone());
                self.returned.extend(live.nodes.keys().filter(|node| !before.nodes.contains_key(*node)).cloned());
                self.tell_peers();
                if self.is_loaded {
                    self.tell_home_who_lives(now);
                    self.claims.handle(Claim::LiveChanged(live), now);
                }
            }
            Watched::Note { node, what } => {
                let (level, phrase, detail) = in_words(what);
                self.note(level, phrase, Arc::from(format!("{node}{detail}")));
            }
        }
    }

    fn claimed(&mut self, output: Claimed, now: Now) {
        match output {
            Claimed::Persist { seq, op } => self.outputs.push_back(Output::Persist { part: Part::Claims, seq, op }),
            Claimed::ReadBack { seq, keys } => self.outputs.push_back(Output::Read { part: Part::Claims, seq, keys }),
            Claimed::Owned { shards } => self.won.extend(shards),
            Claimed::Allocating { fence, revision } => self.won_allocator = Some((fence, revision)),
            Claimed::Lost { part: SharedPart::Shard(shard), .. } => self.lose_shard(shard, now),
            Claimed::Lost { part: SharedPart::Allocator, .. } => {
                self.won_allocator = None;
                if core::mem::take(&mut self.is_allocator) {
                    self.allocator.handle(allocator::Input::Lost, now);
                    self.tell_home_who_lives(now);
                }
            }
            Claimed::HandOver { shard, .. } => {
                self.take_won(now);
                self.owner.handle(owner::Input::Drain { shard }, now);
            }
            Claimed::HandOverCancelled { shard } => self.owner.handle(owner::Input::Undrain { shard }, now),
            Claimed::Damaged { part } => {
                let detail = format!("{part:?}: restore the store from a copy");
                self.note(NoteLevel::Error, "the record of a part cannot be read", Arc::from(detail));
            }
        }
    }

    fn drain_owner(&mut self, now: Now) {
        while let Some(output) = self.owner.poll_output() {
            match output {
                owner::Output::Send { to, message } => self.between.push_back((to, message)),
                owner::Output::ToAgent { session, message: ToAgent::Welcome(mut welcome) } => {
                    welcome.standby = self.sessions.get(&session).and_then(|shard| self.standby_address(*shard));
                    self.outputs.push_back(Output::ToAgent { session, message: ToAgent::Welcome(welcome) });
                }
                owner::Output::ToAgent { session, message } => {
                    self.outputs.push_back(Output::ToAgent { session, message });
                }
                owner::Output::CloseSession { session, why } => {
                    self.outputs.push_back(Output::CloseSession { session, why });
                }
                owner::Output::Persist { seq, op } => {
                    self.outputs.push_back(Output::Persist { part: Part::Owner, seq, op });
                }
                owner::Output::ReadAgent { agent_id } => self.outputs.push_back(Output::ReadAgent { agent_id }),
                owner::Output::Drained { shard } => self.claims.handle(Claim::Drained { shard }, now),
                owner::Output::Note(owner::Note { level, agent_id, what, detail }) => {
                    self.outputs.push_back(Output::Note(Note { level, agent_id, framework_id: None, what, detail }));
                }
            }
        }
    }

    fn drain_home(&mut self) {
        while let Some(output) = self.home.poll_output() {
            match output {
                home::Output::Send { to, message } => self.between.push_back((to, message)),
                home::Output::Persist { seq, op } => {
                    self.outputs.push_back(Output::Persist { part: Part::Home, seq, op });
                }
                home::Output::Read { seq, keys } => {
                    self.outputs.push_back(Output::Read { part: Part::Home, seq, keys })
                }
                home::Output::Note { framework_id, what, detail } => {
                    let level = NoteLevel::Info;
                    self.outputs.push_back(Output::Note(Note { level, agent_id: None, framework_id, what, detail }));
                }
                home::Output::OpenStream { .. }
                | home::Output::RefuseStream { .. }
                | home::Output::Event { .. }
                | home::Output::CloseStream { .. }
                | home::Output::Answer { .. } => self.outputs.push_back(Output::Client(output)),
            }
        }
    }

    pub(crate) fn note(&mut self, level: NoteLevel, what: &'static str, detail: Arc<str>) {
        self.outputs.push_back(Output::Note(Note { level, agent_id: None, framework_id: None, what, detail }));
    }
}

#[cfg(test)]
mod tests;
