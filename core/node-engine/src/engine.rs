//! The node as one machine: what each input means for its parts, and what is exchanged anew after a loss.

use crate::directory::{Changes, Directory};
use crate::io::{Input, LinkId, NodeConfig, Note, Output, Part};
use crate::limits::{CLOCK_SKEW_MAX_MS, LINK_GRACE, STANDBY_SESSIONS_MAX};
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
use muster_model::view::{ClusterView, NodeView, ShardView};
use muster_model::{AgentId, NodeId, Rng, ShardId, Timestamp};
use muster_owner_engine::OwnerEngine;
use muster_owner_engine::io::{self as owner, NoteLevel, SessionId, TakenShard, Whereabouts};
use muster_sharding::fence::{ClaimConfig, Claims, Input as Claim, Output as Claimed, OwnedShard};
use muster_sharding::live::Live;
use muster_sharding::membership::{Input as Probed, Membership, Noted, Output as Watched};
use muster_sharding::rendezvous::{Part as SharedPart, standby_of};

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
    claims: Claims,
    membership: Membership,
    live: Live,
    /// Shards that were won, until the directory has all that was written before.
    won: Vec<OwnedShard>,
    /// The same for the allocator's part.
    won_allocator: Option<(Fence, u64)>,
    is_allocator: bool,
    is_loaded: bool,
    link_nodes: BTreeMap<LinkId, NodeId>,
    /// Nodes whose link went down, and when it counts as lost.
    down: BTreeMap<NodeId, Timestamp>,
    sessions: BTreeMap<SessionId, ShardId>,
    standbys: BTreeMap<SessionId, (ShardId, AgentId)>,
    between: VecDeque<(Target, NodeMessage)>,
    /// Nodes that counted as lost and live, while this one allocates: their homes' frameworks are obeyed again.
    returned: BTreeSet<NodeId>,
    /// How far other nodes' clocks are ahead of this one's, in milliseconds.
    clocks: BTreeMap<NodeId, i64>,
    /// The nodes that the shell was told to keep connections with.
    told_peers: Vec<NodeRecord>,
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
            standbys: BTreeMap::new(),
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
                for (_, message) in messages {
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
            Input::StandBy { session, agent_id } => self.stand_by(session, agent_id),
            Input::PeerUp { link, node } => self.peer_up(link, node, now),
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
    }

    /// What readers see of this node and of who plays which part.
    pub fn view(&mut self) -> ClusterView {
        let home = self.home.view();
        let framework_count = home.frameworks.len() as u64;
        ClusterView {
            owner: self.owner.view(),
            home,
            allocator: self.allocator.view(),
            nodes: self.shown_nodes(framework_count).into(),
            shards: self.shown_shards().into(),
        }
    }

    /// The other nodes that can be reached now.
    pub fn links(&self) -> &BTreeMap<NodeId, LinkId> {
        &self.links
    }

    /// Nodes that are registered, and lost ones that still have shards to their names.
    fn shown_nodes(&self, framework_count: u64) -> Vec<NodeView> {
        let allocating = self.directory.allocator().map(|holder| &holder.node);
        let shown = self.membership.view().into_iter().map(|(id, standing)| {
            let record = self.directory.nodes().get(&id);
            NodeView {
                http: record.map_or_else(|| Arc::from(""), |record| Arc::from(format!("http://{}", record.http))),
                quic: record.map_or_else(|| Arc::from(""), |record| record.quic.clone()),
                liveness: standing.state,
                since: standing.since,
                is_allocator: allocating == Some(&id),
                framework_count: if id == self.config.record.name { framework_count } else { 0 },
                clock_skew_ms: self.clocks.get(&id).copied().unwrap_or(0),
                id,
            }
        });
        shown.collect()
    }

    fn shown_shards(&self) -> Vec<ShardView> {
        let shown = self.directory.shards().map(|(shard, part)| ShardView {
            shard,
            owner: Some(part.node.clone()),
            fence: part.fence,
            since: part.since,
            why: part.why.clone(),
        });
        shown.collect()
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

    /// Sessions of agents of other nodes' shards are sent there; all else is the owner's.
    fn hear_agent(&mut self, input: owner::Input, now: Now) {
        match &input {
            owner::Input::SessionOpened { session, agent_id, .. } => {
                let shard = self.shard_of(agent_id);
                self.standbys.remove(session);
                if !self.owned.contains(&shard) {
                    return self.refer(*session, shard);
                }
                self.sessions.insert(*session, shard);
            }
            owner::Input::SessionClosed { session, .. } => {
                self.sessions.remove(session);
                if self.standbys.remove(session).is_some() {
                    return;
                }
            }
            owner::Input::AgentAdmitted(_)
            | owner::Input::ShardsTaken { .. }
            | owner::Input::ShardLost { .. }
            | owner::Input::Drain { .. }
            | owner::Input::Undrain { .. }
            | owner::Input::PeerMoved { .. }
            | owner::Input::FromAgent { .. }
            | owner::Input::FromNode(_)
            | owner::Input::Persisted { .. }
            | owner::Input::PersistFailed { .. } => {}
        }
        self.owner.handle(input, now);
    }

    fn refer(&mut self, session: SessionId, shard: ShardId) {
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
    fn whereabouts(&self, shard: ShardId) -> Option<Whereabouts> {
        let part = self.directory.shard(shard)?;
        if part.node == self.config.record.name {
            return None;
        }
        let node = self.directory.nodes().get(&part.node)?;
        Some(Whereabouts { fence: part.fence, address: node.quic.clone() })
    }

    fn stand_by(&mut self, session: SessionId, agent_id: AgentId) {
        let shard = self.shard_of(&agent_id);
        if self.standbys.len() >= STANDBY_SESSIONS_MAX {
            let why = Arc::from("too many standby connections");
            self.outputs.push_back(Output::CloseSession { session, why });
            return;
        }
        self.standbys.insert(session, (shard, agent_id));
        if self.owned.contains(&shard) {
            self.call_standbys(&BTreeSet::from([shard]));
        }
    }

    /// Tells agents that stand by that this node owns their shards now: they say hello on the connection they have.
    fn call_standbys(&mut self, shards: &BTreeSet<ShardId>) {
        for (session, (shard, _)) in &self.standbys {
            if shards.contains(shard)
                && let Some(fence) = self.claims.fence_of(SharedPart::Shard(*shard))
            {
                let address = self.config.record.quic.clone();
                self.outputs
                    .push_back(Output::ToAgent { session: *session, message: ToAgent::Referral { fence, address } });
            }
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
                let lost = allocator::Input::ShardsLost { shards: shards.clone(), reason: RescindReason::OwnerLost };
                self.allocator.handle(lost, now);
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

    fn reset_owner(&mut self, owner: NodeId, shards: BTreeSet<ShardId>, why: &str, now: Now) {
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
            self.call_standbys(&shards);
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

    /// Connections are kept with nodes that are not known to be gone. A record that has vanished is none: after an outage of
    /// the store all nodes' are gone for a moment, and whoever answers goes on.
    fn tell_peers(&mut self) {
        let live = self.membership.live();
        let told = |name: &NodeId| self.told_peers.iter().find(|record| record.name == *name);
        let others = live.nodes.keys().filter(|name| **name != self.config.record.name);
        let others = others.filter_map(|name| self.directory.nodes().get(name).or_else(|| told(name)));
        let others: Vec<NodeRecord> = others.cloned().collect();
        if self.told_peers != others {
            self.clocks.retain(|node, _| others.iter().any(|record| record.name == *node));
            self.told_peers.clone_from(&others);
            self.outputs.push_back(Output::Peers(others));
        }
    }

    fn tell_home_who_lives(&mut self, now: Now) {
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
                return;
            }
        }
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
            Claimed::Owned { shards } => {
                self.won.extend(shards);
                self.take_won(now);
            }
            Claimed::Allocating { fence, revision } => {
                self.won_allocator = Some((fence, revision));
                self.take_won(now);
            }
            Claimed::Lost { part: SharedPart::Shard(shard), .. } => self.lose_shard(shard, now),
            Claimed::Lost { part: SharedPart::Allocator, .. } => {
                self.won_allocator = None;
                if core::mem::take(&mut self.is_allocator) {
                    self.allocator.handle(allocator::Input::Lost, now);
                    self.tell_home_who_lives(now);
                }
            }
            Claimed::HandOver { shard, .. } => self.owner.handle(owner::Input::Drain { shard }, now),
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

    /// The address of the node that is next in line for a shard of this one.
    fn standby_address(&self, shard: ShardId) -> Option<Arc<str>> {
        let live = self.live.capacities();
        let next = standby_of(SharedPart::Shard(shard), &self.config.record.name, &live)?;
        self.directory.nodes().get(next).map(|node| node.quic.clone())
    }

    /// A link stands: whatever was said on an earlier one is exchanged again, from both sides.
    fn peer_up(&mut self, link: LinkId, node: NodeId, now: Now) {
        if let Some(old) = self.links.insert(node.clone(), link) {
            self.link_nodes.remove(&old);
        }
        self.link_nodes.insert(link, node.clone());
        self.down.remove(&node);
        let shards = self.shards_of_peer(&node);
        let frameworks = self.directory.frameworks_of(&node);
        self.reset_owner(node.clone(), shards.clone(), "the connection with the agent's owner was renewed", now);
        if self.directory.allocator().is_some_and(|holder| holder.node == node) {
            self.home.handle(home::Input::AllocatorReset, now);
        }
        if self.is_allocator {
            // Grants, revocations and offers on their way are lost; the books that follow say which grants there are.
            let lost = allocator::Input::ShardsLost { shards, reason: RescindReason::OwnerLost };
            self.allocator.handle(lost, now);
            self.allocator.handle(allocator::Input::OwnerBack(node), now);
            self.allocator.handle(allocator::Input::HomesRelinked(frameworks), now);
        }
    }

    fn peer_down(&mut self, link: LinkId, now: Now) {
        let Some(node) = self.link_nodes.remove(&link) else { return };
        self.links.remove(&node);
        self.down.insert(node, now.mono.after(LINK_GRACE));
    }

    /// Links that stayed down: the offers on the other side can't be used.
    fn give_up_links(&mut self, now: Now) {
        let due: Vec<NodeId> =
            self.down.iter().filter(|(_, at)| **at <= now.mono).map(|(node, _)| node.clone()).collect();
        for node in due {
            self.down.remove(&node);
            let shards = self.shards_of_peer(&node);
            if self.is_allocator && !shards.is_empty() {
                let lost = allocator::Input::ShardsLost { shards: shards.clone(), reason: RescindReason::OwnerLost };
                self.allocator.handle(lost, now);
            }
            self.reset_owner(node, shards, "the connection with the agent's owner is down", now);
        }
    }

    /// A node that was lost lives: while it was lost, this node's home told the allocator that nobody speaks for its frameworks.
    fn home_back(&mut self, node: &NodeId, now: Now) {
        let frameworks = self.directory.frameworks_of(node);
        if self.is_allocator && self.live.nodes.contains_key(node) && !frameworks.is_empty() {
            self.allocator.handle(allocator::Input::HomesBack(frameworks), now);
        }
    }

    fn note(&mut self, level: NoteLevel, what: &'static str, detail: Arc<str>) {
        self.outputs.push_back(Output::Note(Note { level, agent_id: None, framework_id: None, what, detail }));
    }
}

fn in_words(what: Noted) -> (NoteLevel, &'static str, alloc::string::String) {
    match what {
        Noted::Came(_) => (NoteLevel::Info, "a node is there", "".into()),
        Noted::Suspected => (NoteLevel::Warn, "a node does not answer", "".into()),
        Noted::Cleared => (NoteLevel::Info, "a node answers again", "".into()),
        Noted::Lost(why) => (NoteLevel::Warn, "a node is lost; others take over what it had", format!(": {why}")),
        Noted::OtherRun { incarnation } => {
            let detail = format!(": run {incarnation:x} answered, the store names another");
            (NoteLevel::Warn, "an answer of another run of a node was ignored", detail)
        }
        Noted::OwnPresenceGone => {
            (NoteLevel::Warn, "this node's own record is not in the store; it is written anew", "".into())
        }
        Noted::OwnNameTaken { incarnation } => {
            let detail = format!(": run {incarnation:x}; stop one of the two, or give it another --node-name");
            (NoteLevel::Error, "another process has this node's name", detail)
        }
        Noted::TooMany => (NoteLevel::Error, "there are too many nodes; this one is ignored", "".into()),
    }
}
