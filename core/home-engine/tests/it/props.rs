//! Random calls and messages in any order, with a store that fails, against the laws of the crate's documentation:
//! an offer is consumed at most once, every task of a 202 ACCEPT goes into an order or gets a status, every request is
//! answered once, nothing is visible before it is written, orders are numbered without gaps.

use crate::harness::{Store, World, amount, config, info, offer, task};
use muster_home_engine::io::{Answer, ConnectionId, Input, Output, RequestId};
use muster_model::fence::Fence;
use muster_model::node_message::{NodeMessage, Reconciled, ToHome, ToOwner};
use muster_model::offer::RescindReason;
use muster_model::record::{Record, TombstoneRecord};
use muster_model::scheduler::{Accept, Event, FrameworkCall, OfferRef, Operation, Subscribe};
use muster_model::status::{Source, TaskStatus};
use muster_model::store_op::{Compare, Key, PersistError, StoreOp, Write};
use muster_model::task::TaskState;
use muster_model::{AgentId, Duration, FrameworkId, NodeId, OfferId, ShardId, TaskId, Uuid};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

mod actions;
use actions::{Action, Outcome, actions};

/// What one client knows.
#[derive(Clone, Debug, Default)]
struct Client {
    id: Option<FrameworkId>,
    connection: u64,
    stream_id: Option<Arc<str>>,
    fence: Fence,
    version: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stream {
    Asked,
    Open,
    Closed,
}

/// What a request will have to be when it is answered.
#[derive(Clone, Debug)]
enum Pending {
    Any,
    Teardown(FrameworkId),
    Change(FrameworkId, Arc<str>),
    Accept(FrameworkId, Vec<TaskId>),
}

enum StoreWork {
    Persist(u64, StoreOp),
    Read(u64, Vec<Key>),
}

struct Model {
    world: World,
    clients: Vec<Client>,
    streams: BTreeMap<u64, Stream>,
    requests: BTreeMap<u64, Pending>,
    store_work: VecDeque<StoreWork>,
    offers: Vec<OfferId>,
    consumed: BTreeSet<OfferId>,
    /// Tasks of 202 ACCEPTs that have neither an order nor a status.
    unsettled: BTreeMap<(FrameworkId, TaskId), i64>,
    sequences: BTreeMap<(FrameworkId, Fence), u64>,
    tasks: Vec<TaskId>,
    questions: Vec<(FrameworkId, u64)>,
    next: u64,
    incarnation: u64,
}

impl Model {
    fn new() -> Self {
        let mut world = World::with(config("n1", 1), Store::of_new_cluster());
        world.home.handle(Input::OwnersChanged([NodeId::parse("n1").unwrap()].into()), world.now);
        Self {
            world,
            clients: vec![Client::default(); 3],
            streams: BTreeMap::new(),
            requests: BTreeMap::new(),
            store_work: VecDeque::new(),
            offers: Vec::new(),
            consumed: BTreeSet::new(),
            unsettled: BTreeMap::new(),
            sequences: BTreeMap::new(),
            tasks: Vec::new(),
            questions: Vec::new(),
            next: 0,
            incarnation: 1,
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn give(&mut self, input: Input) -> Result<(), TestCaseError> {
        self.world.home.handle(input, self.world.now);
        self.check_outputs()
    }

    fn check_outputs(&mut self) -> Result<(), TestCaseError> {
        while let Some(output) = self.world.home.poll_output() {
            self.check_output(output)?;
        }
        Ok(())
    }

    fn check_output(&mut self, output: Output) -> Result<(), TestCaseError> {
        match output {
            Output::Persist { seq, op } => self.store_work.push_back(StoreWork::Persist(seq, op)),
            Output::Read { seq, keys } => self.store_work.push_back(StoreWork::Read(seq, keys)),
            Output::OpenStream { connection, stream_id } => {
                let before = self.streams.insert(connection.0, Stream::Open);
                prop_assert_eq!(before, Some(Stream::Asked), "stream {} opened twice", connection.0);
                if let Some(client) = self.clients.iter_mut().find(|client| client.connection == connection.0) {
                    client.stream_id = Some(stream_id.to_string().into());
                }
            }
            Output::RefuseStream { connection, .. } => {
                let before = self.streams.insert(connection.0, Stream::Closed);
                prop_assert_eq!(before, Some(Stream::Asked));
            }
            Output::CloseStream { connection } => {
                let before = self.streams.insert(connection.0, Stream::Closed);
                prop_assert_eq!(before, Some(Stream::Open));
            }
            Output::Event { connection, event, .. } => {
                prop_assert_eq!(
                    self.streams.get(&connection.0),
                    Some(&Stream::Open),
                    "event on no stream: {:?}",
                    event
                );
                self.check_event(connection.0, event)?;
            }
            Output::Answer { request, answer } => {
                let pending = self.requests.remove(&request.0);
                prop_assert!(pending.is_some(), "request {} answered twice", request.0);
                self.check_answer(pending.unwrap(), &answer)?;
            }
            Output::Send { message, .. } => self.check_message(message)?,
            Output::Note { .. } => {}
        }
        Ok(())
    }

    fn check_event(&mut self, connection: u64, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Subscribed { framework_id, .. } => {
                let Some((_, Record::Framework(record))) =
                    self.world.store.records.get(&Key::Framework(framework_id.clone()))
                else {
                    return Err(TestCaseError::fail(format!("{framework_id} is visible but not stored")));
                };
                prop_assert_eq!(record.home.fence.incarnation, self.incarnation, "visible before the swap");
                for client in &mut self.clients {
                    if client.connection == connection {
                        client.id = Some(framework_id.clone());
                        client.fence = record.home.fence;
                    }
                }
            }
            Event::Update(status) => {
                let id = self.clients.iter().find(|client| client.connection == connection);
                prop_assert!(id.is_none_or(|client| client.id.as_ref() == Some(&status.framework_id)));
                if status.uuid.is_none() && status.state.is_terminal() {
                    self.settle(&status.framework_id, &status.task_id);
                }
            }
            Event::Offers(_)
            | Event::Rescind(_)
            | Event::TaskRefused { .. }
            | Event::OperationFailed { .. }
            | Event::OperationUnknown { .. }
            | Event::Message { .. }
            | Event::Failure { .. }
            | Event::Error(_)
            | Event::Heartbeat => {}
        }
        Ok(())
    }

    fn check_answer(&mut self, pending: Pending, answer: &Answer) -> Result<(), TestCaseError> {
        let is_success = matches!(answer, Answer::Accepted | Answer::Done);
        match pending {
            Pending::Any => {}
            Pending::Teardown(id) => {
                let is_buried = self.world.store.records.contains_key(&Key::Tombstone(id.clone()));
                prop_assert!(!is_success || is_buried, "{} removed without a tombstone", id);
                if is_success {
                    self.unsettled.retain(|(framework_id, _), _| *framework_id != id);
                }
            }
            Pending::Change(id, name) => {
                let stored = self.world.store.records.get(&Key::Framework(id));
                let is_stored = matches!(stored, Some((_, Record::Framework(record))) if record.info.name == name);
                prop_assert!(!is_success || is_stored, "update answered before it is stored");
            }
            Pending::Accept(id, tasks) => {
                if is_success {
                    for task_id in tasks {
                        *self.unsettled.entry((id.clone(), task_id)).or_default() += 1;
                    }
                }
            }
        }
        Ok(())
    }

    fn settle(&mut self, id: &FrameworkId, task_id: &TaskId) {
        let key = (id.clone(), task_id.clone());
        if let Some(count) = self.unsettled.get_mut(&key) {
            *count -= 1;
            if *count <= 0 {
                self.unsettled.remove(&key);
            }
        }
    }

    fn check_message(&mut self, message: NodeMessage) -> Result<(), TestCaseError> {
        match message {
            NodeMessage::ToOwner(ToOwner::Order(order)) => {
                for offer_id in &order.offers {
                    prop_assert!(self.consumed.insert(*offer_id), "offer {} consumed twice", offer_id);
                }
                let last = self.sequences.entry((order.framework.id.clone(), order.home_fence)).or_default();
                *last += 1;
                prop_assert_eq!(order.sequence, *last, "orders are numbered without gaps");
                for task in &order.tasks {
                    prop_assert_eq!(&task.framework_id, &order.framework.id);
                    prop_assert_eq!(&task.agent_id, &order.agent_id);
                    self.settle(&order.framework.id, &task.id);
                }
            }
            NodeMessage::ToOwner(ToOwner::ReconcileTask { framework, request, .. }) => {
                self.questions.push((framework.id, request));
            }
            NodeMessage::ToOwner(ToOwner::RemoveFramework { framework_id, .. }) => {
                self.unsettled.retain(|(id, _), _| *id != framework_id);
            }
            NodeMessage::ToAllocator(muster_model::node_message::ToAllocator::Demand {
                info, session_version, ..
            }) => {
                for client in &mut self.clients {
                    if client.id.as_ref() == Some(&info.id) {
                        client.version = session_version;
                    }
                }
            }
            NodeMessage::ToOwner(_) | NodeMessage::ToHome(_) | NodeMessage::ToAllocator(_) => {}
        }
        Ok(())
    }

    fn call(&mut self, slot: usize, pending: Pending, call: FrameworkCall) -> Result<(), TestCaseError> {
        let client = self.clients[slot].clone();
        let Some(framework_id) = client.id else { return Ok(()) };
        let request = self.number();
        self.requests.insert(request, pending);
        self.give(Input::Call { request: RequestId(request), framework_id, stream_id: client.stream_id, call })
    }

    fn pick(&self, picks: &[usize]) -> Vec<OfferRef> {
        // Mostly the newest, so that they are open.
        let newest = |pick: &usize| self.offers.iter().rev().nth(pick / 5).copied();
        picks.iter().filter_map(newest).map(OfferRef::Ours).collect()
    }

    fn act(&mut self, action: Action) -> Result<(), TestCaseError> {
        match action {
            Action::Subscribe { slot, has_id, is_bad } => {
                let connection = self.number();
                let old = self.clients[slot].clone();
                let framework_id = if has_id { old.id.clone() } else { None };
                self.clients[slot] = Client { id: framework_id.clone(), connection, ..old };
                self.streams.insert(connection, Stream::Asked);
                let mut info = info(&["eng"]);
                info.failover_timeout = Duration::from_secs(if slot == 0 { 0 } else { 30 });
                let call = Subscribe {
                    framework_id,
                    info: if is_bad { Err("bad".into()) } else { Ok(info) },
                    suppressed_roles: Vec::new(),
                };
                self.give(Input::Subscribe { connection: ConnectionId(connection), call })
            }
            Action::Close { slot } => {
                let connection = ConnectionId(self.clients[slot].connection);
                self.give(Input::StreamClosed { connection })
            }
            Action::Offers { slot, agent, count, is_stale } => {
                let client = self.clients[slot].clone();
                let Some(framework_id) = client.id else { return Ok(()) };
                let agent = format!("S{agent}");
                let mut offers = Vec::new();
                for _ in 0..count {
                    let number = self.number();
                    offers.push(offer(number, framework_id.as_str(), &agent, "eng", amount(2, 64)));
                    self.offers.push(OfferId { epoch: 1, number });
                }
                let session_version = if is_stale { 0 } else { client.version };
                let home_fence = client.fence;
                self.give(Input::FromNode(ToHome::Offers { framework_id, home_fence, session_version, offers }))
            }
            Action::Accept { slot, picks, tasks, is_foreign } => {
                let Some(id) = self.clients[slot].id.clone() else { return Ok(()) };
                let mut offers = self.pick(&picks);
                if is_foreign {
                    offers.push(OfferRef::Foreign("x".into()));
                }
                let mut launched = Vec::new();
                let mut ids = Vec::new();
                for index in 0..tasks {
                    // Now and then an id of before, so that duplicates happen.
                    let name = if index == 3 { "again".into() } else { format!("t{}", self.number()) };
                    launched.push(task(&name, "S0", "eng", amount(1, 20)));
                    ids.push(TaskId::parse(&name).unwrap());
                }
                self.tasks.extend(ids.iter().cloned());
                let operations = vec![Operation::Launch(launched)];
                let accept = Accept { offers, operations, refusal: None };
                self.call(slot, Pending::Accept(id, ids), FrameworkCall::Accept(accept))
            }
            Action::Decline { slot, picks } => {
                let offers = self.pick(&picks);
                self.call(slot, Pending::Any, FrameworkCall::Decline { offers, refusal: Some(Duration::from_secs(5)) })
            }
            Action::Call { slot, which } => {
                let task_id = self.tasks.last().cloned().unwrap_or_else(|| TaskId::parse("none").unwrap());
                let agent_id = AgentId::parse("S0").unwrap();
                let call = match which {
                    0 => FrameworkCall::Suppress(Vec::new()),
                    1 => FrameworkCall::Revive(Vec::new()),
                    2 => FrameworkCall::Kill { task_id, agent_id: None, grace: None },
                    3 => FrameworkCall::Reconcile(vec![(task_id.clone(), None), (task_id, Some(agent_id))]),
                    4 => FrameworkCall::Reconcile(Vec::new()),
                    5 => FrameworkCall::Acknowledge { agent_id, task_id, uuid: Uuid::from_random([1; 16]) },
                    _ => FrameworkCall::Request,
                };
                self.call(slot, Pending::Any, call)
            }
            Action::Change { slot } => {
                let Some(id) = self.clients[slot].id.clone() else { return Ok(()) };
                let mut info = info(&["eng", "web"]);
                let name: Arc<str> = format!("name {}", self.number()).into();
                info.name = name.clone();
                let call = FrameworkCall::UpdateFramework { info: Ok(Box::new(info)), suppressed_roles: Vec::new() };
                self.call(slot, Pending::Change(id, name), call)
            }
            Action::Teardown { slot, is_operator } => {
                let Some(id) = self.clients[slot].id.clone() else { return Ok(()) };
                if !is_operator {
                    return self.call(slot, Pending::Teardown(id), FrameworkCall::Teardown);
                }
                let request = self.number();
                self.requests.insert(request, Pending::Teardown(id.clone()));
                self.give(Input::OperatorTeardown { request: RequestId(request), framework_id: id })
            }
            Action::Store(outcome) => self.store_answers(&outcome),
            Action::OwnerSpeaks { slot, owner } => {
                let owner = NodeId::parse(&format!("n{owner}")).unwrap();
                if let Some((framework_id, request)) = self.questions.pop() {
                    let outcome = if request % 2 == 0 { Reconciled::NotHere } else { Reconciled::Undecided };
                    let owner = owner.clone();
                    self.give(Input::FromNode(ToHome::Reconciled { framework_id, owner, request, outcome }))?;
                }
                let client = self.clients[slot].clone();
                let Some(framework_id) = client.id else { return Ok(()) };
                let home_fence = client.fence;
                self.give(Input::FromNode(ToHome::FrameworkTasks {
                    framework_id,
                    home_fence,
                    owner,
                    tasks: Vec::new(),
                }))
            }
            Action::Owners { mask } => {
                let owners = (0..3u8).filter(|bit| mask & (1 << bit) != 0);
                let owners = owners.map(|bit| NodeId::parse(&format!("n{bit}")).unwrap()).collect();
                self.give(Input::OwnersChanged(owners))
            }
            Action::Rescind { slot, picks } => {
                let Some(framework_id) = self.clients[slot].id.clone() else { return Ok(()) };
                let ours = self.pick(&picks).into_iter().filter_map(|offer| match offer {
                    OfferRef::Ours(id) => Some((id, RescindReason::OwnerLost)),
                    OfferRef::Foreign(_) => None,
                });
                let offers = ours.collect();
                self.give(Input::FromNode(ToHome::Rescinded { framework_id, offers }))
            }
            Action::AgentSpeaks { slot, pick, is_end } => {
                let Some(framework_id) = self.clients[slot].id.clone() else { return Ok(()) };
                let Some(task_id) = self.tasks.iter().rev().nth(pick).cloned() else { return Ok(()) };
                if is_end {
                    return self.give(Input::FromNode(ToHome::TaskRemoved { framework_id, task_id }));
                }
                let mut status =
                    TaskStatus::new(framework_id, task_id, TaskState::Running, Source::Agent, self.world.now.wall);
                status.uuid = Some(Uuid::from_random([4; 16]));
                self.give(Input::FromNode(ToHome::Update(Arc::new(status))))
            }
            Action::Rush { slot, leaves } => {
                self.act(Action::Subscribe { slot, has_id: true, is_bad: false })?;
                self.act(Action::Store(Outcome::Done))?;
                self.act(Action::Offers { slot, agent: 0, count: 1, is_stale: false })?;
                self.act(Action::Accept { slot, picks: vec![0], tasks: 2, is_foreign: false })?;
                if leaves { self.act(Action::Close { slot }) } else { Ok(()) }
            }
            Action::OwnersReset { owner, shards } => {
                let owner = NodeId::parse(&format!("n{owner}")).unwrap();
                let shards = (0..16).filter(|number| shards & (1 << number) != 0).map(ShardId).collect();
                self.give(Input::OwnersReset { owner, shards, why: "it was lost".into() })
            }
            Action::Elsewhere { slot, is_removal, is_told } => {
                let Some(id) = self.clients[slot].id.clone() else { return Ok(()) };
                self.write_elsewhere(&id, is_removal);
                if is_told { self.news_of(&id) } else { Ok(()) }
            }
            Action::News { slot } => match self.clients[slot].id.clone() {
                Some(id) => self.news_of(&id),
                None => Ok(()),
            },
            Action::Nodes { mask, carries } => {
                let live = (0..3u8).filter(|bit| *bit == 1 || mask & (1 << bit) != 0);
                let live = live.map(|bit| NodeId::parse(&format!("n{bit}")).unwrap()).collect();
                self.give(Input::NodesChanged { live, carries_dead_homes: carries })
            }
            Action::AllocatorReset => self.give(Input::AllocatorReset),
            Action::DemandWanted => {
                self.give(Input::FromNode(ToHome::DemandWanted { allocator_fence: Fence::default() }))
            }
            Action::Pass { secs } => self.pass(u64::from(secs)),
            Action::Restart { is_written } => self.restart(is_written),
        }
    }

    /// Another node writes the framework's record, or its tombstone.
    fn write_elsewhere(&mut self, id: &FrameworkId, is_removal: bool) {
        let key = Key::Framework(id.clone());
        let Some((revision, Record::Framework(record))) = self.world.store.records.get(&key).cloned() else { return };
        let compares = vec![Compare { key: key.clone(), revision: Some(revision) }];
        let writes = if is_removal {
            let (info, registered) = (record.info.clone(), record.registered);
            let tombstone = TombstoneRecord { info, registered, removed: self.world.now.wall, why: "test".into() };
            vec![Write::Delete(key), Write::Put(Key::Tombstone(id.clone()), Record::Tombstone(tombstone))]
        } else {
            let mut record = record;
            record.home.node = NodeId::parse("n2").unwrap();
            record.home.fence = Fence { epoch: record.home.fence.epoch + 1, incarnation: 9000, ..record.home.fence };
            vec![Write::Put(key, Record::Framework(record))]
        };
        self.world.store.perform(&StoreOp { compares, writes }).unwrap();
    }

    fn news_of(&mut self, id: &FrameworkId) -> Result<(), TestCaseError> {
        for stored in self.world.store.read(&[Key::Framework(id.clone()), Key::Tombstone(id.clone())]) {
            self.give(Input::RecordChanged(stored))?;
        }
        Ok(())
    }

    fn pass(&mut self, secs: u64) -> Result<(), TestCaseError> {
        self.world.now.mono = self.world.now.mono.after(Duration::from_secs(secs));
        self.world.now.wall = self.world.now.wall.after(Duration::from_secs(secs));
        self.world.home.handle_deadline(self.world.now);
        let due = self.world.home.deadline();
        prop_assert!(due.is_none_or(|(at, _)| at > self.world.now.mono), "a deadline stays due: {:?}", due);
        self.check_outputs()
    }

    fn store_answers(&mut self, outcome: &Outcome) -> Result<(), TestCaseError> {
        let input = match self.store_work.pop_front() {
            None => return Ok(()),
            Some(StoreWork::Read(seq, keys)) => match outcome {
                Outcome::Done | Outcome::Overtaken => Input::Read { seq, found: self.world.store.read(&keys) },
                Outcome::Unavailable | Outcome::Lost { .. } => {
                    Input::ReadFailed { seq, error: PersistError::Unavailable { why: "away".into() } }
                }
            },
            Some(StoreWork::Persist(seq, op)) => {
                let performed = match outcome {
                    Outcome::Done => self.world.store.perform(&op),
                    Outcome::Unavailable => Err(PersistError::Unavailable { why: "away".into() }),
                    Outcome::Lost { is_written } => {
                        if *is_written {
                            let _ = self.world.store.perform(&op);
                        }
                        Err(PersistError::Unknown { why: "lost".into() })
                    }
                    Outcome::Overtaken => {
                        self.world.store.revision += 1;
                        let revision = self.world.store.revision;
                        if let Some((at, Record::Cluster(cluster))) = self.world.store.records.get_mut(&Key::Cluster) {
                            *at = revision;
                            cluster.next_agent += 1;
                        }
                        self.world.store.perform(&op)
                    }
                };
                match performed {
                    Ok(revision) => Input::Persisted { seq, revision },
                    Err(error) => Input::PersistFailed { seq, error },
                }
            }
        };
        self.give(input)
    }

    /// kill -9: what was on its way to the store arrived or not; everything else is gone.
    fn restart(&mut self, is_written: bool) -> Result<(), TestCaseError> {
        while let Some(work) = self.store_work.pop_front() {
            if let StoreWork::Persist(_, op) = work
                && is_written
            {
                let _ = self.world.store.perform(&op);
            }
        }
        self.incarnation += 1;
        self.world = self.world.restarted(config("n1", self.incarnation));
        self.streams.clear();
        self.requests.clear();
        self.unsettled.clear();
        self.questions.clear();
        for client in &mut self.clients {
            client.connection = 0;
            client.stream_id = None;
        }
        self.check_outputs()
    }

    /// The store is well and time passes: everything that was begun ends.
    fn settle_all(&mut self) -> Result<(), TestCaseError> {
        for stored in self.world.store.all() {
            self.give(Input::RecordChanged(stored))?;
        }
        let live = BTreeSet::from([NodeId::parse("n1").unwrap()]);
        self.give(Input::NodesChanged { live, carries_dead_homes: true })?;
        for _ in 0..20 {
            while !self.store_work.is_empty() {
                self.store_answers(&Outcome::Done)?;
            }
            self.pass(6)?;
        }
        prop_assert!(self.requests.is_empty(), "never answered: {:?}", self.requests);
        prop_assert!(!self.streams.values().any(|stream| *stream == Stream::Asked), "never opened: {:?}", self.streams);
        prop_assert!(self.unsettled.is_empty(), "neither ordered nor told: {:?}", self.unsettled);
        let stored = self.world.store.records.keys().filter_map(|key| match key {
            Key::Framework(id) => Some(id.clone()),
            _ => None,
        });
        let stored: BTreeSet<_> = stored.collect();
        let view = self.world.home.view();
        let known: BTreeSet<_> = view.frameworks.keys().cloned().collect();
        prop_assert_eq!(known, stored, "home and store know the same frameworks");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_laws_hold_in_any_order_of_inputs(actions in prop::collection::vec(actions(), 1..120)) {
        let mut model = Model::new();
        for action in actions {
            model.act(action)?;
        }
        model.settle_all()?;
    }
}
