//! The control-plane nodes of the world: processes over one store, with links, probes and leases between them.

use super::faults::{Moment, Sabotage};
use super::{Coming, Fault, ForNode, Path, SHARD_COUNT, World};
use muster_allocator::io::AllocatorConfig;
use muster_home_engine::io::{ConnectionId, HomeConfig};
use muster_model::fence::Fence;
use muster_model::record::{NodeRecord, Record};
use muster_model::store_op::{Key, KeyKind, PersistError, StoreOp, Stored, Write};
use muster_model::time::Now;
use muster_model::view::OwnerView;
use muster_model::{Duration, FrameworkId, Milli, NodeId, Rng, ShardId, WallTime};
use muster_node_engine::NodeEngine;
use muster_node_engine::io::{Input, LinkId, NodeConfig, Part, StoreChange};
use muster_node_wire::message as wire;
use muster_owner_engine::io::{OwnerConfig, SessionId};
use muster_sharding::membership;
use std::collections::BTreeMap;
use std::sync::Arc;

/// After so long without its process running, a node's record is gone from the store.
const LEASE: Duration = Duration::from_secs(2);

/// One node: its process may be there or not.
pub(super) struct SimNode {
    pub(super) name: NodeId,
    pub(super) engine: Option<NodeEngine>,
    /// Which run of it this is.
    pub(super) run: u64,
    pub(super) sessions: BTreeMap<SessionId, usize>,
    pub(super) connections: BTreeMap<ConnectionId, usize>,
    pub(super) links: BTreeMap<usize, LinkId>,
    /// It does not run before this moment.
    pub(super) paused_until: u64,
    /// How far its wall clock is ahead.
    pub(super) skew_micros: i64,
    is_watching: bool,
    suspects: Vec<NodeId>,
}

impl SimNode {
    pub(super) fn new(index: usize) -> Self {
        Self {
            name: NodeId::parse(&format!("n{index}")).unwrap_or_else(|error| panic!("a node's name: {error}")),
            engine: None,
            run: 0,
            sessions: BTreeMap::new(),
            connections: BTreeMap::new(),
            links: BTreeMap::new(),
            paused_until: 0,
            skew_micros: 0,
            is_watching: false,
            suspects: Vec::new(),
        }
    }

    pub(super) fn handle(&mut self, input: Input, now: Now) {
        if let Some(engine) = &mut self.engine {
            engine.handle(input, Self::local(self.skew_micros, now));
        }
    }

    /// The moment as a clock shows it that is so far ahead.
    pub(super) fn local(skew_micros: i64, now: Now) -> Now {
        Now { wall: WallTime(now.wall.0.saturating_add_signed(skew_micros)), ..now }
    }

    /// When it wants to run next; not before it wakes.
    pub(super) fn deadline(&self) -> Option<u64> {
        let at = self.engine.as_ref()?.deadline()?.0;
        Some(at.max(self.paused_until))
    }

    /// What a crash takes away.
    pub(super) fn crash(&mut self) {
        self.engine = None;
        self.sessions.clear();
        self.connections.clear();
        self.links.clear();
        self.is_watching = false;
        self.suspects.clear();
        self.paused_until = 0;
    }
}

impl World {
    fn record_of(&self, index: usize) -> Option<NodeRecord> {
        let node = self.nodes.get(index)?;
        Some(NodeRecord {
            name: node.name.clone(),
            http: Arc::from(node.name.as_str()),
            quic: Arc::from(node.name.as_str()),
            probe: Arc::from(node.name.as_str()),
            incarnation: node.run,
            node_tag: u16::try_from(index).unwrap_or(0),
            capacity: 1,
            started: WallTime(0),
        })
    }

    pub(super) fn start_node(&mut self, index: usize) {
        if self.nodes.get(index).is_none_or(|node| node.engine.is_some()) {
            return;
        }
        self.node_runs += 1;
        let run = self.node_runs;
        let rng = Rng::new(self.rng.next_u64());
        if let Some(node) = self.nodes.get_mut(index) {
            node.run = run;
        }
        let Some(record) = self.record_of(index) else { return };
        let name = record.name.clone();
        let config = NodeConfig {
            generation: 1,
            shard_count: SHARD_COUNT,
            keys_per_op_max: 3,
            owner: OwnerConfig {
                node: name.clone(),
                shard_count: SHARD_COUNT,
                agent_timeout: Duration::from_secs(75),
                agent_removal_interval: Duration::from_secs(1),
                report_interval: Duration::from_secs(10),
                completed_tasks_max: 100,
                unreachable_tasks_max: 100,
            },
            home: HomeConfig {
                node: name,
                node_tag: record.node_tag,
                incarnation: run,
                heartbeat_interval: Duration::from_secs(15),
                offer_timeout: Some(Duration::from_secs(60)),
                completed_frameworks_max: 50,
                fence_wait: Duration::from_secs(5),
            },
            allocator: AllocatorConfig {
                allocation_interval: Duration::from_secs(1),
                min_cpus: Milli(10),
                min_mem: Milli::whole(32),
            },
            record,
        };
        if let Some(node) = self.nodes.get_mut(index) {
            node.engine = Some(NodeEngine::new(config, &rng));
        }
        self.present(index);
        self.soon(50, Coming::ToRun { node: index, run, what: ForNode::Load });
        for other in 0..self.nodes.len() {
            self.link_later(index, other);
        }
    }

    /// The lease is taken and the record written, by a machinery that tries until it is done.
    pub(super) fn present(&mut self, index: usize) {
        if let Some(record) = self.record_of(index) {
            let put = Write::Put(Key::Node(record.name.clone()), Record::Node(record));
            let written = self.write(&StoreOp { compares: Vec::new(), writes: vec![put] });
            debug_assert!(written.is_ok(), "a write without conditions");
        }
    }

    pub(super) fn link_later(&mut self, one: usize, other: usize) {
        let (Some(a), Some(b)) = (self.nodes.get(one), self.nodes.get(other)) else { return };
        if one != other && a.engine.is_some() && b.engine.is_some() {
            let runs = (a.run, b.run);
            self.soon(800, Coming::LinkUp { nodes: (one, other), runs });
        }
    }

    pub(super) fn link_up(&mut self, (one, other): (usize, usize), runs: (u64, u64)) {
        let link = LinkId(self.number());
        let now = self.now();
        let is_current = |node: Option<&super::node::SimNode>, run| {
            node.is_some_and(|node| node.engine.is_some() && node.run == run && node.paused_until <= now.mono.0)
        };
        let are_current = is_current(self.nodes.get(one), runs.0) && is_current(self.nodes.get(other), runs.1);
        if !are_current || self.nodes.get(one).is_some_and(|node| node.links.contains_key(&other)) {
            return;
        }
        self.live_links.insert(link, (one, other));
        for (mine, theirs) in [(one, other), (other, one)] {
            let Some(name) = self.nodes.get(theirs).map(|node| node.name.clone()) else { continue };
            if let Some(node) = self.nodes.get_mut(mine) {
                node.links.insert(theirs, link);
                node.handle(Input::PeerUp { link, node: name }, now);
            }
        }
    }

    /// The link is gone; what was on its way is lost. Both ends notice in their own time.
    pub(super) fn break_link(&mut self, link: LinkId) {
        let Some((one, other)) = self.live_links.remove(&link) else { return };
        self.coming.retain(|_, coming| {
            !matches!(coming, Coming::ToRun { what: ForNode::FromPeer { link: of, .. }, .. } if *of == link)
        });
        for (mine, theirs) in [(one, other), (other, one)] {
            let Some(node) = self.nodes.get_mut(mine) else { continue };
            node.links.remove(&theirs);
            let run = node.run;
            self.soon(900, Coming::ToRun { node: mine, run, what: ForNode::Input(Input::PeerDown { link }) });
        }
        let runs = (self.nodes.get(one).map_or(0, |it| it.run), self.nodes.get(other).map_or(0, |it| it.run));
        let later = Duration::from_millis(1000 + self.rng.below(2000));
        self.after(later, Coming::LinkUp { nodes: (one, other), runs });
    }

    pub(super) fn lease_lost(&mut self, index: usize, run: u64) {
        let Some(node) = self.nodes.get(index) else { return };
        // It came back in time, or its record is a later run's.
        let is_asleep = node.engine.is_none() || node.paused_until > self.now;
        if node.run != run || !is_asleep {
            return;
        }
        let key = Key::Node(node.name.clone());
        let written = self.write(&StoreOp { compares: Vec::new(), writes: vec![Write::Delete(key)] });
        debug_assert!(written.is_ok(), "a write without conditions");
    }

    pub(super) fn expect_lease_loss(&mut self, index: usize) {
        let Some(node) = self.nodes.get(index) else { return };
        let run = node.run;
        self.after(LEASE, Coming::LeaseLost { node: index, run });
    }

    /// Performs an operation and lets every watcher hear of it, each in its own time and in order.
    pub(super) fn write(&mut self, op: &StoreOp) -> Result<u64, PersistError> {
        self.write_unseen_by(op, None)
    }

    /// The same, but one node never hears of it.
    fn write_unseen_by(&mut self, op: &StoreOp, blind: Option<usize>) -> Result<u64, PersistError> {
        let revision = self.store.perform(op)?;
        let is_part = |write: &&Write| matches!(write, Write::Put(Key::Shard(_) | Key::Allocator, _));
        self.takeovers += op.writes.iter().filter(is_part).count() as u64;
        for write in &op.writes {
            if let Write::Put(Key::Shard(shard), Record::Part(part)) = write {
                self.given.insert((*shard, part.fence));
            }
        }
        for index in 0..self.nodes.len() {
            let Some(node) = self.nodes.get(index).filter(|node| node.is_watching && blind != Some(index)) else {
                continue;
            };
            let run = node.run;
            let changes = op.writes.iter().filter_map(|write| match write {
                Write::Put(key, _) => self.store.get(key).map(StoreChange::Put),
                Write::Delete(key) => Some(StoreChange::Deleted { key: key.clone(), revision }),
            });
            let what = ForNode::Input(Input::Changed(changes.collect()));
            // News may come later than what others do because of it.
            let most_millis = if self.rng.below(20) == 0 { 1000 } else { 30 };
            self.in_order(Path::Watch(index), most_millis, Coming::ToRun { node: index, run, what });
        }
        Ok(revision)
    }

    pub(super) fn node_takes(&mut self, index: usize, run: u64, what: ForNode) {
        let now = self.now();
        let Some(node) = self.nodes.get_mut(index) else { return };
        let is_current = node.run == run && node.engine.is_some();
        if is_current && node.paused_until > now.mono.0 {
            // It sleeps: what comes waits in the kernel.
            let until = node.paused_until;
            if !matches!(what, ForNode::StoreDone { .. }) {
                return self.at(until, Coming::ToRun { node: index, run, what });
            }
        }
        let input = match what {
            ForNode::Input(input) => input,
            ForNode::FromPeer { link, bytes } => {
                let messages = wire::decode_messages(&bytes).unwrap_or_else(|error| panic!("our own bytes: {error}"));
                Input::FromPeer { link, messages }
            }
            ForNode::Load => {
                if is_current && self.is_store_away {
                    return self.soon(500, Coming::ToRun { node: index, run, what: ForNode::Load });
                }
                if let Some(node) = self.nodes.get_mut(index).filter(|_| is_current) {
                    node.is_watching = true;
                }
                Input::Loaded { records: self.store.range(KeyKind::All), revision: self.store.revision() }
            }
            ForNode::StoreDone { part, seq, op } => {
                let trap = match is_current {
                    true => self.traps.node_write.take(),
                    false => None,
                };
                if trap == Some(Moment::Before) {
                    return self.crash_node(index);
                }
                let is_invented = self.sabotage == Some(Sabotage::InventsSwaps) && part == Part::Claims;
                let is_lost = self.sabotage == Some(Sabotage::LosesSwaps)
                    && part == Part::Claims
                    && is_current
                    && self.rng.below(2) == 0;
                let result = match self.is_store_away {
                    // The answer was lost, and the shell guesses it.
                    _ if is_invented && self.rng.below(2) == 0 => Ok(self.store.revision()),
                    true => Err(PersistError::Unavailable { why: Arc::from("the store is away") }),
                    false if self.store_full_until > self.now => {
                        Err(PersistError::Full { why: Arc::from("no space left on device") })
                    }
                    // The store does it even if the node that asked is gone. Its answer may be lost.
                    false if self.rng.below(200) == 0 && self.faults.0.contains_key(&Fault::StoreOutage) => {
                        let lost = self.write(&op);
                        Err(PersistError::Unknown { why: Arc::from(format!("lost: {lost:?}")) })
                    }
                    false if is_lost => self.write_unseen_by(&op, Some(index)),
                    false => self.write(&op),
                };
                if trap == Some(Moment::After) {
                    return self.crash_node(index);
                }
                let result = match self.sabotage {
                    Some(Sabotage::DeniesWrites) if result.is_ok() => {
                        Err(PersistError::Unavailable { why: Arc::from("the shell lost the answer") })
                    }
                    Some(Sabotage::LosesSwaps) if is_lost => return,
                    Some(_) | None => result,
                };
                let what = ForNode::Input(Input::Stored { part, seq, result });
                // The answer itself is for the run that asked, whenever that wakes.
                return self.at(self.now, Coming::ToRun { node: index, run, what });
            }
            ForNode::StoreRead { part, seq, keys } => {
                let found = keys.iter().filter_map(|key| self.store.get(key)).collect();
                let result = match self.is_store_away {
                    true => Err(PersistError::Unavailable { why: Arc::from("the store is away") }),
                    false => Ok(found),
                };
                Input::Read { part, seq, result }
            }
            ForNode::AgentRead { agent_id } => {
                let shard = ShardId::of(&agent_id, SHARD_COUNT);
                if self.is_store_away {
                    let what = ForNode::AgentRead { agent_id };
                    return self.soon(500, Coming::ToRun { node: index, run, what });
                }
                let is_ours = matches!(
                    self.store.get(&Key::Shard(shard)).map(|stored| stored.record),
                    Some(Record::Part(part)) if part.fence.incarnation == run
                );
                let stored = self.store.get(&Key::Agent(agent_id)).filter(|_| is_ours);
                Input::AgentRead { shard, stored }
            }
        };
        if is_current {
            self.trace(&self.name_of(index), "<-", &input);
        }
        if let Some(node) = self.nodes.get_mut(index).filter(|_| is_current) {
            node.handle(input, now);
        }
    }

    /// Shards that the store gives to a process that runs and can read the store, with its picture of its agents.
    pub(crate) fn named_owners(&mut self) -> Vec<(ShardId, Fence, Arc<OwnerView>)> {
        let (now, is_store_away) = (self.now, self.is_store_away);
        let stored = self.store.range(KeyKind::Shards);
        let able = |node: &&mut SimNode| node.is_watching && node.paused_until <= now && !is_store_away;
        let mut owners = Vec::new();
        for node in self.nodes.iter_mut().filter(able) {
            let Some(view) = node.engine.as_mut().map(|engine| engine.view().owner) else { continue };
            for stored in &stored {
                if let (Key::Shard(shard), Record::Part(part)) = (&stored.key, &stored.record)
                    && part.node == node.name
                    && part.fence.incarnation == node.run
                {
                    owners.push((*shard, part.fence, view.clone()));
                }
            }
        }
        owners
    }

    /// Frameworks in the store, by the name of their client, with their ids.
    pub(crate) fn recorded_frameworks(&self) -> Vec<(Arc<str>, FrameworkId)> {
        let info = |stored: Stored| match stored.record {
            Record::Framework(record) => Some((record.info.name.clone(), record.info.id.clone())),
            _ => None,
        };
        self.store.range(KeyKind::Frameworks).into_iter().filter_map(info).collect()
    }

    pub(super) fn name_of(&self, index: usize) -> Option<NodeId> {
        self.nodes.get(index).map(|node| node.name.clone())
    }

    /// A probe: answered by a process that runs, refused where there is none.
    pub(super) fn probe(&mut self, from: usize, target: &NodeId) {
        let Some(index) = self.nodes.iter().position(|node| node.name == *target) else { return };
        let (Some(asking), Some(asked)) = (self.nodes.get(from), self.nodes.get(index)) else { return };
        let run = asking.run;
        let answer = match &asked.engine {
            None => membership::Input::Refused { node: target.clone() },
            Some(_) if asked.paused_until > self.now || !asking.links.contains_key(&index) => return,
            Some(_) => membership::Input::Answered {
                node: target.clone(),
                incarnation: asked.run,
                suspects: asked.suspects.clone(),
            },
        };
        self.soon(20, Coming::ToRun { node: from, run, what: ForNode::Input(Input::Probed(answer)) });
    }

    pub(super) fn set_suspects(&mut self, index: usize, suspects: Vec<NodeId>) {
        if let Some(node) = self.nodes.get_mut(index) {
            node.suspects = suspects;
        }
    }

    /// Asks the store for something, in the order of asking.
    pub(super) fn ask_store(&mut self, index: usize, what: ForNode) {
        let Some(node) = self.nodes.get(index) else { return };
        let run = node.run;
        self.in_order(Path::Store(index), 20, Coming::ToRun { node: index, run, what });
    }

    pub(super) fn store_back(&mut self) {
        self.is_store_away = false;
        for index in 0..self.nodes.len() {
            let Some(run) = self.nodes.get(index).map(|node| node.run) else { continue };
            let what = ForNode::Input(Input::StoreAway(false));
            self.at(self.now, Coming::ToRun { node: index, run, what });
        }
    }
}
