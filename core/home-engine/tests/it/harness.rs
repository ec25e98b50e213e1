//! A home with a store in memory, and its outputs as lines that tests compare.

use muster_home_engine::HomeEngine;
use muster_home_engine::io::{Answer, ConnectionId, HomeConfig, Input, Output, RequestId};
use muster_model::agent::AgentInfo;
use muster_model::fence::Fence;
use muster_model::framework::{Capabilities, FrameworkInfo};
use muster_model::node_message::{NodeMessage, Target, ToAllocator, ToHome, ToOwner};
use muster_model::offer::{Grant, Offer, Refusal};
use muster_model::record::{ClusterRecord, Record};
use muster_model::resource::Resources;
use muster_model::scheduler::{Accept, Event, FrameworkCall, LaunchTask, OfferRef, Operation, Subscribe};
use muster_model::store_op::{Key, PersistError, StoreOp, Stored, Write};
use muster_model::task::{Command, Program, Task};
use muster_model::time::Now;
use muster_model::{
    AgentId, Duration, FrameworkId, Milli, NodeId, OfferId, Rng, Role, ShardId, TaskId, Timestamp, Uuid, WallTime,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) const SECOND: u64 = 1_000_000_000;

/// The store as one map; every write gets the next revision.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) revision: u64,
    pub(crate) records: BTreeMap<Key, (u64, Record)>,
}

impl Store {
    pub(crate) fn perform(&mut self, op: &StoreOp) -> Result<u64, PersistError> {
        for compare in &op.compares {
            if self.records.get(&compare.key).map(|(revision, _)| *revision) != compare.revision {
                return Err(PersistError::Conflict { key: compare.key.path() });
            }
        }
        self.revision += 1;
        for write in &op.writes {
            match write {
                Write::Put(key, record) => {
                    self.records.insert(key.clone(), (self.revision, record.clone()));
                }
                Write::Delete(key) => {
                    self.records.remove(key);
                }
            }
        }
        Ok(self.revision)
    }

    pub(crate) fn read(&self, keys: &[Key]) -> Vec<Stored> {
        self.all().into_iter().filter(|stored| keys.contains(&stored.key)).collect()
    }

    pub(crate) fn all(&self) -> Vec<Stored> {
        let stored = |(key, (revision, record)): (&Key, &(u64, Record))| Stored {
            key: key.clone(),
            revision: *revision,
            record: record.clone(),
        };
        self.records.iter().map(stored).collect()
    }

    /// A store of a new cluster.
    pub(crate) fn of_new_cluster() -> Self {
        let cluster = ClusterRecord {
            id: cluster_id(),
            name: "test".into(),
            generation: 1,
            shard_count: 16,
            created: WallTime(0),
            next_agent: 0,
            next_framework: 0,
        };
        let mut store = Self { revision: 1, ..Self::default() };
        store.records.insert(Key::Cluster, (1, Record::Cluster(cluster)));
        store
    }
}

pub(crate) fn cluster_id() -> Uuid {
    Uuid::from_random([0xcc; 16])
}

/// A home whose writes are done at once, unless `is_store_manual`.
pub(crate) struct World {
    pub(crate) home: HomeEngine,
    pub(crate) store: Store,
    pub(crate) now: Now,
    pub(crate) is_store_manual: bool,
    /// Stream ids by connection, as text.
    pub(crate) streams: BTreeMap<u64, String>,
    next_request: u64,
}

pub(crate) fn config(node: &str, incarnation: u64) -> HomeConfig {
    HomeConfig {
        node: NodeId::parse(node).unwrap(),
        node_tag: 0x00aa,
        incarnation,
        heartbeat_interval: Duration::from_secs(15),
        offer_timeout: None,
        completed_frameworks_max: 50,
        fence_wait: Duration::from_secs(5),
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(config("n1", 1), Store::of_new_cluster())
    }

    pub(crate) fn with(config: HomeConfig, store: Store) -> Self {
        Self::start(config, store, Now { mono: Timestamp(1000 * SECOND), wall: WallTime(5_000_000_000) })
    }

    fn start(config: HomeConfig, store: Store, now: Now) -> Self {
        let mut home = HomeEngine::new(config, Rng::new(7));
        home.handle(Input::Loaded(store.all()), now);
        Self { home, store, now, is_store_manual: false, streams: BTreeMap::new(), next_request: 100 }
    }

    /// The same store under a new process.
    pub(crate) fn restarted(&self, config: HomeConfig) -> Self {
        Self::start(config, self.store.clone(), self.now)
    }

    pub(crate) fn give(&mut self, input: Input) -> Vec<String> {
        self.home.handle(input, self.now);
        self.lines()
    }

    /// Lets time pass in one step and wakes the home.
    pub(crate) fn pass(&mut self, secs: u64) -> Vec<String> {
        self.now.mono = self.now.mono.after(Duration::from_secs(secs));
        self.now.wall = self.now.wall.after(Duration::from_secs(secs));
        self.home.handle_deadline(self.now);
        self.lines()
    }

    /// What came out, with the store's part done.
    pub(crate) fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(output) = self.home.poll_output() {
            match &output {
                Output::Persist { seq, op } if !self.is_store_manual => {
                    let input = match self.store.perform(op) {
                        Ok(revision) => Input::Persisted { seq: *seq, revision },
                        Err(error) => Input::PersistFailed { seq: *seq, error },
                    };
                    self.home.handle(input, self.now);
                }
                Output::Read { seq, keys } if !self.is_store_manual => {
                    let found = self.store.read(keys);
                    self.home.handle(Input::Read { seq: *seq, found }, self.now);
                }
                Output::OpenStream { connection, stream_id } => {
                    self.streams.insert(connection.0, stream_id.to_string());
                    lines.push(format!("open #{}", connection.0));
                }
                _ => lines.extend(line(&output)),
            }
        }
        lines
    }

    pub(crate) fn subscribe(&mut self, connection: u64, id: Option<&str>, info: FrameworkInfo) -> Vec<String> {
        self.subscribe_suppressed(connection, id, info, &[])
    }

    pub(crate) fn subscribe_suppressed(
        &mut self,
        connection: u64,
        id: Option<&str>,
        info: FrameworkInfo,
        suppressed: &[&str],
    ) -> Vec<String> {
        let call = Subscribe {
            framework_id: id.map(|id| FrameworkId::parse(id).unwrap()),
            info: Ok(info),
            suppressed_roles: suppressed.iter().map(|role| Arc::from(*role)).collect(),
        };
        self.give(Input::Subscribe { connection: ConnectionId(connection), call })
    }

    /// A call of framework `id` on its stream `connection`; answers are numbered from 100.
    pub(crate) fn call(&mut self, connection: u64, id: &str, call: FrameworkCall) -> Vec<String> {
        let stream_id = self.streams.get(&connection).map(|text| Arc::from(text.as_str()));
        self.call_with(stream_id, id, call)
    }

    pub(crate) fn call_with(&mut self, stream_id: Option<Arc<str>>, id: &str, call: FrameworkCall) -> Vec<String> {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let framework_id = FrameworkId::parse(id).unwrap();
        self.give(Input::Call { request, framework_id, stream_id, call })
    }

    pub(crate) fn close(&mut self, connection: u64) -> Vec<String> {
        self.give(Input::StreamClosed { connection: ConnectionId(connection) })
    }

    pub(crate) fn owners(&mut self, names: &[&str]) -> Vec<String> {
        let owners: BTreeSet<NodeId> = names.iter().map(|name| NodeId::parse(name).unwrap()).collect();
        self.give(Input::OwnersChanged(owners))
    }

    pub(crate) fn node_says(&mut self, message: ToHome) -> Vec<String> {
        self.give(Input::FromNode(message))
    }

    /// One batch under the framework's current fence and version.
    pub(crate) fn offer(&mut self, id: &str, epoch: u64, version: u64, offers: Vec<Arc<Offer>>) -> Vec<String> {
        let (framework_id, home_fence) = (FrameworkId::parse(id).unwrap(), fence(epoch));
        self.node_says(ToHome::Offers { framework_id, home_fence, session_version: version, offers })
    }
}

/// A home's fence within incarnation 1.
pub(crate) fn fence(epoch: u64) -> Fence {
    Fence { generation: 1, epoch, incarnation: 1 }
}

pub(crate) fn role(name: &str) -> Role {
    Role::parse(name).unwrap()
}

pub(crate) fn info(roles: &[&str]) -> FrameworkInfo {
    FrameworkInfo {
        id: FrameworkId::parse("placeholder").unwrap(),
        name: "test".into(),
        user: "alice".into(),
        roles: roles.iter().map(|name| role(name)).collect(),
        capabilities: Capabilities { multi_role: true, partition_aware: true, ..Capabilities::default() },
        failover_timeout: Duration::from_secs(60),
        is_checkpointing: false,
        principal: None,
        min_allocatable: BTreeMap::new(),
        spec: Arc::from(&b"spec"[..]),
    }
}

pub(crate) fn amount(cpus: u64, mem: u64) -> Resources {
    Resources::basic(Milli::whole(cpus), Milli::whole(mem), Milli::ZERO)
}

pub(crate) fn offer(number: u64, id: &str, agent: &str, role_name: &str, resources: Resources) -> Arc<Offer> {
    let grant = Grant {
        offer_id: OfferId { epoch: 1, number },
        agent_id: AgentId::parse(agent).unwrap(),
        framework_id: FrameworkId::parse(id).unwrap(),
        home_fence: fence(1),
        role: role(role_name),
        resources: resources.clone(),
    };
    let agent = AgentInfo {
        hostname: agent.into(),
        ip: "127.0.0.1".into(),
        port: 5051,
        total: resources,
        attributes: Vec::new(),
        version: "0".into(),
        missing_isolation: Vec::new(),
    };
    Arc::new(Offer { grant: Arc::new(grant), agent: Arc::new(agent) })
}

pub(crate) fn task(id: &str, agent: &str, role_name: &str, resources: Resources) -> LaunchTask {
    LaunchTask::Task(Arc::new(Task {
        id: TaskId::parse(id).unwrap(),
        name: id.into(),
        framework_id: FrameworkId::parse("placeholder").unwrap(),
        agent_id: AgentId::parse(agent).unwrap(),
        role: role(role_name),
        resources,
        command: Command { program: Program::Shell("true".into()), environment: Vec::new(), user: None },
        kill_grace: None,
        completion_time_max: None,
        spec: Arc::from(&b""[..]),
    }))
}

/// `1-O3` is ours, anything else is foreign.
pub(crate) fn offer_refs(texts: &[&str]) -> Vec<OfferRef> {
    texts
        .iter()
        .map(|text| OfferId::parse(text).map_or_else(|| OfferRef::Foreign(Arc::from(*text)), OfferRef::Ours))
        .collect()
}

pub(crate) fn accept(offers: &[&str], operations: Vec<Operation>) -> FrameworkCall {
    let refusal = Some(Duration::from_secs(5));
    FrameworkCall::Accept(Accept { offers: offer_refs(offers), operations, refusal })
}

/// Shorter: the cluster's id as `C`.
fn short(text: impl std::fmt::Display) -> String {
    text.to_string().replace(&cluster_id().to_string(), "C")
}

fn list<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(short).collect::<Vec<_>>().join(" ")
}

fn refusal_text(refusal: Refusal) -> String {
    refusal.map_or("none".into(), |length| format!("{}s", length.as_secs()))
}

pub(crate) fn answer_text(answer: &Answer) -> String {
    match answer {
        Answer::Accepted => "202".into(),
        Answer::Done => "200".into(),
        Answer::Bad(text) => short(format!("400 {text}")),
        Answer::Forbidden(text) => format!("403 {text}"),
        Answer::Unavailable { why, retry_after_secs } => format!("503 {why} ({retry_after_secs}s)"),
    }
}

/// One output as a line; notes have none.
pub(crate) fn line(output: &Output) -> Option<String> {
    Some(match output {
        Output::OpenStream { connection, .. } => format!("open #{}", connection.0),
        Output::RefuseStream { connection, answer } => format!("refuse #{} {}", connection.0, answer_text(answer)),
        Output::Event { connection, event, .. } => format!("#{} {}", connection.0, event_text(event)),
        Output::CloseStream { connection } => format!("close #{}", connection.0),
        Output::Answer { request, answer } => format!("={} {}", request.0, answer_text(answer)),
        Output::Send { to, message } => format!("{} {}", target_text(to), message_text(message)),
        Output::Persist { seq, op } => {
            format!(
                "persist {seq} {}",
                list(op.writes.iter().map(|write| match write {
                    Write::Put(key, _) => format!("put:{}", key.path()),
                    Write::Delete(key) => format!("delete:{}", key.path()),
                }))
            )
        }
        Output::Read { seq, keys } => format!("read {seq} {}", list(keys.iter().map(Key::path))),
        Output::Note { .. } => return None,
    })
}

fn event_text(event: &Event) -> String {
    match event {
        Event::Subscribed { framework_id, heartbeat_interval } => {
            short(format!("SUBSCRIBED {framework_id} {}s", heartbeat_interval.as_secs()))
        }
        Event::Offers(offers) => format!("OFFERS {}", list(offers.iter().map(|offer| offer.grant.offer_id))),
        Event::Rescind(offer_id) => format!("RESCIND {offer_id}"),
        Event::Update(status) => {
            let agent = status.agent_id.as_ref().map_or("-", AgentId::as_str);
            let reason = status.reason.map_or("-".into(), |reason| format!("{reason:?}"));
            let message = status.message.as_deref().unwrap_or("-");
            let uuid = if status.uuid.is_some() { " uuid" } else { "" };
            short(format!(
                "UPDATE {} {} {:?} {agent} {reason} '{message}'{uuid}",
                status.task_id,
                status.state.as_str(),
                status.source
            ))
        }
        Event::TaskRefused { task_id, agent_id, state, reason, message, .. } => {
            let agent = agent_id.as_ref().map_or("-", AgentId::as_str);
            format!("REFUSED '{task_id}' {} {agent} {reason:?} '{message}'", state.as_str())
        }
        Event::OperationFailed { operation_id, message } => format!("OPERATION_ERROR {operation_id} '{message}'"),
        Event::OperationUnknown { operation_id, agent_id } => {
            format!("OPERATION_UNKNOWN {operation_id} {}", agent_id.as_ref().map_or("-", AgentId::as_str))
        }
        Event::Message { .. } => "MESSAGE".into(),
        Event::Failure { agent_id, executor_id, .. } => format!("FAILURE {agent_id:?} {executor_id:?}"),
        Event::Error(text) => format!("ERROR {text}"),
        Event::Heartbeat => "HEARTBEAT".into(),
    }
}

fn target_text(to: &Target) -> String {
    match to {
        Target::OwnerOf(agent_id) => format!(">{agent_id}"),
        Target::AllOwners => ">owners".into(),
        Target::Owner(node) => format!(">owner {node}"),
        Target::HomeOf(id) => format!(">home of {id}"),
        Target::AllHomes => ">homes".into(),
        Target::Allocator => ">allocator".into(),
    }
}

fn fence_text(fence: &Fence) -> String {
    format!("{}.{}.{}", fence.generation, fence.epoch, fence.incarnation)
}

fn message_text(message: &NodeMessage) -> String {
    match message {
        NodeMessage::ToOwner(message) => owner_text(message),
        NodeMessage::ToHome(_) => "to a home".into(),
        NodeMessage::ToAllocator(message) => allocator_text(message),
    }
}

fn owner_text(message: &ToOwner) -> String {
    match message {
        ToOwner::Order(order) => {
            let task_text = |task: &Arc<Task>| format!("{}/{}", task.id, task.role);
            short(format!(
                "order {} {} no.{} [{}] tasks [{}] refuse {}",
                order.framework.id,
                fence_text(&order.home_fence),
                order.sequence,
                list(&order.offers),
                list(order.tasks.iter().map(task_text)),
                refusal_text(order.refusal)
            ))
        }
        ToOwner::Kill { framework_id, task_id, grace, .. } => {
            short(format!("kill {framework_id} {task_id} {}", refusal_text(*grace)))
        }
        ToOwner::Acknowledge { framework_id, task_id, .. } => short(format!("acknowledge {framework_id} {task_id}")),
        ToOwner::ReconcileAll { framework_id, .. } => short(format!("reconcile all {framework_id}")),
        ToOwner::ReconcileTask { framework, request, task_id, agent_id, .. } => {
            let agent = agent_id.as_ref().map_or("-", AgentId::as_str);
            short(format!("reconcile {} q{request} {task_id} {agent}", framework.id))
        }
        ToOwner::FenceFramework { framework, home_fence, .. } => {
            short(format!("fence {} {}", framework.id, fence_text(home_fence)))
        }
        ToOwner::VoidGrants { framework_id, home_fence, shards } => {
            let name = |shard: &ShardId| {
                let mut names = ["near", "far", "distant", "remote", "abroad", "yonder", "beyond", "away"].into_iter();
                let found = names.find(|name| ShardId::of(&AgentId::parse(name).unwrap(), 16) == *shard);
                found.map_or_else(|| shard.to_string(), str::to_owned)
            };
            let mut shards: Vec<String> = shards.iter().map(name).collect();
            shards.sort_by_key(|name| name != "near");
            short(format!("void {framework_id} {} [{}]", fence_text(home_fence), list(shards)))
        }
        ToOwner::Decide { framework_id, home_fence, tasks } => {
            let tasks = list(tasks.iter().map(|(task_id, agent_id)| format!("{task_id}@{agent_id}")));
            short(format!("decide {framework_id} {} [{tasks}]", fence_text(home_fence)))
        }
        ToOwner::RemoveFramework { framework_id, .. } => short(format!("remove {framework_id}")),
        ToOwner::Grants { .. } | ToOwner::Revoke { .. } | ToOwner::BookWanted { .. } => "not a home's to send".into(),
    }
}

fn allocator_text(message: &ToAllocator) -> String {
    match message {
        ToAllocator::Demand { info, home_fence, session_version, suppressed, is_active } => short(format!(
            "demand {} {} v{} [{}] suppressed [{}] {}",
            info.id,
            fence_text(home_fence),
            if *session_version == u64::MAX { "last".into() } else { session_version.to_string() },
            list(&info.roles),
            list(suppressed),
            if *is_active { "active" } else { "inactive" }
        )),
        ToAllocator::Revive { framework_id, roles, .. } => short(format!("revive {framework_id} [{}]", list(roles))),
        ToAllocator::HomeLost { framework_id, home_fence } => {
            short(format!("home lost {framework_id} {}", fence_text(home_fence)))
        }
        ToAllocator::FrameworkRemoved { framework_id } => short(format!("removed {framework_id}")),
        ToAllocator::Agent(_)
        | ToAllocator::AgentInactive { .. }
        | ToAllocator::AgentRemoved { .. }
        | ToAllocator::Closed(_)
        | ToAllocator::Freed { .. } => "not a home's to send".into(),
    }
}
