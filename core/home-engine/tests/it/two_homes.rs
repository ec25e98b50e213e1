//! Random runs of two homes over one store, with news, writes and answers that come late: a fence is one home's alone,
//! nobody speaks under a fence that the store did not give it, a framework ends up at one home, and what was asked is
//! answered once.

use crate::harness::{SECOND, Store, amount, config, info, offer, task};
use muster_home_engine::HomeEngine;
use muster_home_engine::io::{ConnectionId, HomeConfig, Input, Output, RequestId};
use muster_model::fence::Fence;
use muster_model::node_message::{NodeMessage, ToAllocator, ToHome, ToOwner};
use muster_model::record::Record;
use muster_model::scheduler::{Accept, Event, FrameworkCall, OfferRef, Operation, Subscribe};
use muster_model::store_op::{Key, PersistError, StoreOp, Stored, Write};
use muster_model::time::Now;
use muster_model::{Duration, FrameworkId, NodeId, OfferId, Rng, ShardId, TaskId, Timestamp, WallTime};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

mod actions;
use actions::{Action, Outcome, actions};

enum Work {
    Persist(u64, StoreOp),
    Read(u64, Vec<Key>),
}

struct Node {
    home: HomeEngine,
    config: HomeConfig,
    work: VecDeque<Work>,
    answers: VecDeque<Input>,
    news: VecDeque<Stored>,
    streams: BTreeMap<u64, Stream>,
    /// Tasks of 202 ACCEPTs that have neither an order nor a status.
    unsettled: BTreeSet<(FrameworkId, TaskId)>,
    /// Fences that were sent to owners and not answered.
    fenced: Vec<(FrameworkId, Fence)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Stream {
    Asked,
    Open(Option<FrameworkId>),
    Closed,
}

#[derive(Clone, Default, Debug)]
struct Client {
    id: Option<FrameworkId>,
    place: Option<(usize, u64)>,
    stream_id: Option<Arc<str>>,
    fence: Fence,
    version: u64,
}

struct Model {
    store: Store,
    now: Now,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    /// All that the store ever held of frameworks: who was home under which fence.
    homes: BTreeMap<(FrameworkId, Fence), NodeId>,
    /// Everything that was ever news.
    past: Vec<Stored>,
    /// Requests without an answer: at which node, and what they launch.
    requests: BTreeMap<u64, (usize, Option<(FrameworkId, TaskId)>)>,
    consumed: BTreeSet<OfferId>,
    sequences: BTreeMap<(FrameworkId, Fence), u64>,
    next: u64,
}

fn node_config(index: usize, incarnation: u64) -> HomeConfig {
    HomeConfig { node_tag: u16::try_from(index).unwrap(), ..config(&format!("n{index}"), incarnation) }
}

fn node(index: usize) -> NodeId {
    NodeId::parse(&format!("n{index}")).unwrap()
}

type Checked = Result<(), TestCaseError>;

impl Model {
    fn new() -> Self {
        let store = Store::of_new_cluster();
        let now = Now { mono: Timestamp(1000 * SECOND), wall: WallTime(5_000_000_000) };
        let mut model = Self {
            nodes: Vec::new(),
            clients: vec![Client::default(); 2],
            homes: BTreeMap::new(),
            past: Vec::new(),
            requests: BTreeMap::new(),
            consumed: BTreeSet::new(),
            sequences: BTreeMap::new(),
            next: 10,
            store,
            now,
        };
        for index in 0..2 {
            let started = model.started(index);
            model.nodes.push(started);
        }
        model
    }

    /// A new process of a node, which reads the store at once.
    fn started(&mut self, index: usize) -> Node {
        let config = node_config(index, self.number());
        let mut home = HomeEngine::new(config.clone(), Rng::new(self.next));
        home.handle(Input::Loaded(self.store.all()), self.now);
        home.handle(Input::OwnersChanged([node(0), node(1)].into()), self.now);
        home.handle(Input::NodesChanged { live: [node(0), node(1)].into(), carries_dead_homes: index == 0 }, self.now);
        Node {
            home,
            config,
            work: VecDeque::new(),
            answers: VecDeque::new(),
            news: VecDeque::new(),
            streams: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            fenced: Vec::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn give(&mut self, at: usize, input: Input) -> Checked {
        self.nodes[at].home.handle(input, self.now);
        self.check_outputs(at)
    }

    fn check_outputs(&mut self, at: usize) -> Checked {
        while let Some(output) = self.nodes[at].home.poll_output() {
            self.check_output(at, output)?;
        }
        Ok(())
    }

    fn check_output(&mut self, at: usize, output: Output) -> Checked {
        let node = &mut self.nodes[at];
        match output {
            Output::Persist { seq, op } => node.work.push_back(Work::Persist(seq, op)),
            Output::Read { seq, keys } => node.work.push_back(Work::Read(seq, keys)),
            Output::OpenStream { connection, stream_id } => {
                let before = node.streams.insert(connection.0, Stream::Open(None));
                prop_assert_eq!(before, Some(Stream::Asked), "stream {} opened twice", connection.0);
                for client in &mut self.clients {
                    if client.place == Some((at, connection.0)) {
                        client.stream_id = Some(stream_id.to_string().into());
                    }
                }
            }
            Output::RefuseStream { connection, .. } => {
                let before = node.streams.insert(connection.0, Stream::Closed);
                prop_assert_eq!(before, Some(Stream::Asked));
            }
            Output::CloseStream { connection } => {
                let before = node.streams.insert(connection.0, Stream::Closed);
                prop_assert!(matches!(before, Some(Stream::Open(_))), "closed: {:?}", before);
            }
            Output::Event { connection, event, .. } => {
                let stream = node.streams.get_mut(&connection.0);
                let Some(Stream::Open(holder)) = stream else {
                    return Err(TestCaseError::fail(format!("event on {stream:?}: {event:?}")));
                };
                match event {
                    Event::Subscribed { framework_id, .. } => {
                        *holder = Some(framework_id.clone());
                        for client in &mut self.clients {
                            if client.place == Some((at, connection.0)) {
                                client.id = Some(framework_id.clone());
                            }
                        }
                    }
                    Event::Update(status) if status.state.is_terminal() => {
                        node.unsettled.remove(&(status.framework_id.clone(), status.task_id.clone()));
                    }
                    _ => {}
                }
            }
            Output::Answer { request, answer } => {
                let pending = self.requests.remove(&request.0);
                prop_assert!(pending.is_some(), "request {} answered twice", request.0);
                let Some((place, launched)) = pending else { return Ok(()) };
                prop_assert_eq!(place, at);
                if let (Some(launched), muster_home_engine::io::Answer::Accepted) = (launched, answer) {
                    node.unsettled.insert(launched);
                }
            }
            Output::Send { message, .. } => self.check_message(at, message)?,
            Output::Note { .. } => {}
        }
        Ok(())
    }

    /// The store gave this fence to this run of this node.
    fn check_fence(&self, at: usize, id: &FrameworkId, fence: Fence, what: &str) -> Checked {
        let holder = self.homes.get(&(id.clone(), fence));
        prop_assert_eq!(holder, Some(&self.nodes[at].config.node), "{} of {} under {}", what, id, fence);
        prop_assert_eq!(fence.incarnation, self.nodes[at].config.incarnation, "{} of {} under {}", what, id, fence);
        Ok(())
    }

    fn check_message(&mut self, at: usize, message: NodeMessage) -> Checked {
        match message {
            NodeMessage::ToOwner(ToOwner::Order(order)) => {
                let id = order.framework.id.clone();
                self.check_fence(at, &id, order.home_fence, "order")?;
                for offer_id in &order.offers {
                    prop_assert!(self.consumed.insert(*offer_id), "offer {} consumed twice", offer_id);
                }
                let last = self.sequences.entry((id.clone(), order.home_fence)).or_default();
                *last += 1;
                prop_assert_eq!(order.sequence, *last, "orders are numbered without gaps");
                for task in &order.tasks {
                    self.nodes[at].unsettled.remove(&(id.clone(), task.id.clone()));
                }
            }
            NodeMessage::ToOwner(ToOwner::FenceFramework { framework, home_fence, .. }) => {
                self.check_fence(at, &framework.id, home_fence, "fence")?;
                self.nodes[at].fenced.push((framework.id, home_fence));
            }
            NodeMessage::ToOwner(
                ToOwner::Decide { framework_id, home_fence, .. }
                | ToOwner::VoidGrants { framework_id, home_fence, .. }
                | ToOwner::Kill { framework_id, home_fence, .. },
            ) => self.check_fence(at, &framework_id, home_fence, "decide or kill")?,
            NodeMessage::ToOwner(ToOwner::RemoveFramework { framework_id, .. }) => {
                let key = Key::Tombstone(framework_id.clone());
                prop_assert!(self.store.records.contains_key(&key), "{} is not removed", framework_id);
                self.nodes[at].unsettled.retain(|(id, _)| *id != framework_id);
            }
            NodeMessage::ToAllocator(ToAllocator::Demand { info, home_fence, session_version, is_active, .. }) => {
                let holder = self.homes.get(&(info.id.clone(), home_fence));
                prop_assert_eq!(holder, Some(&self.nodes[at].config.node), "demand of {}", info.id);
                if is_active {
                    self.check_fence(at, &info.id, home_fence, "demand")?;
                    for client in &mut self.clients {
                        if client.id.as_ref() == Some(&info.id) && home_fence >= client.fence {
                            (client.fence, client.version) = (home_fence, session_version);
                        }
                    }
                }
            }
            NodeMessage::ToAllocator(ToAllocator::HomeLost { framework_id, home_fence }) => {
                let holder = self.homes.get(&(framework_id, home_fence));
                prop_assert!(holder.is_some_and(|holder| *holder != self.nodes[at].config.node));
            }
            NodeMessage::ToOwner(_) | NodeMessage::ToHome(_) | NodeMessage::ToAllocator(_) => {}
        }
        Ok(())
    }

    /// One transaction of the store, and the news of it for all nodes.
    fn write(&mut self, at: usize, op: &StoreOp) -> Result<Result<u64, PersistError>, TestCaseError> {
        let before = self.store.clone();
        let result = self.store.perform(op);
        let Ok(revision) = result else { return Ok(result) };
        for write in &op.writes {
            let Write::Put(key, record) = write else { continue };
            match (key, record) {
                (Key::Framework(id), Record::Framework(record)) => {
                    let (fence, home) = (record.home.fence, record.home.node.clone());
                    let known = self.homes.insert((id.clone(), fence), home.clone());
                    prop_assert!(known.is_none_or(|known| known == home), "two homes of {} under {}", id, fence);
                }
                (Key::Tombstone(id), Record::Tombstone(tombstone)) => {
                    let old = before.records.get(&Key::Framework(id.clone()));
                    let Some((_, Record::Framework(old))) = old else {
                        return Err(TestCaseError::fail(format!("{id} was removed without a record")));
                    };
                    if tombstone.why.contains("failover timeout") && old.home.node != self.nodes[at].config.node {
                        let is_due = old.failover_deadline.is_some_and(|deadline| deadline <= self.now.wall);
                        prop_assert!(is_due, "{} was removed before its deadline {:?}", id, old.failover_deadline);
                    }
                }
                _ => {}
            }
            let stored = Stored { key: key.clone(), revision, record: record.clone() };
            self.past.push(stored.clone());
            for node in &mut self.nodes {
                node.news.push_back(stored.clone());
            }
        }
        Ok(result)
    }

    fn perform(&mut self, at: usize, outcome: Outcome) -> Checked {
        let away = || PersistError::Unavailable { why: "away".into() };
        let answer = match self.nodes[at].work.pop_front() {
            None => return Ok(()),
            Some(Work::Read(seq, keys)) => match outcome {
                Outcome::Done => Input::Read { seq, found: self.store.read(&keys) },
                Outcome::Away | Outcome::Lost { .. } => Input::ReadFailed { seq, error: away() },
            },
            Some(Work::Persist(seq, op)) => {
                let result = match outcome {
                    Outcome::Done => self.write(at, &op)?,
                    Outcome::Away => Err(away()),
                    Outcome::Lost { is_written } => {
                        if is_written {
                            let _ = self.write(at, &op)?;
                        }
                        Err(PersistError::Unknown { why: "lost".into() })
                    }
                };
                match result {
                    Ok(revision) => Input::Persisted { seq, revision },
                    Err(error) => Input::PersistFailed { seq, error },
                }
            }
        };
        self.nodes[at].answers.push_back(answer);
        Ok(())
    }

    fn call(&mut self, client: usize, task: Option<TaskId>, call: FrameworkCall) -> Checked {
        let Client { id: Some(framework_id), place: Some((at, _)), stream_id, .. } = self.clients[client].clone()
        else {
            return Ok(());
        };
        let request = self.number();
        self.requests.insert(request, (at, task.map(|task_id| (framework_id.clone(), task_id))));
        self.give(at, Input::Call { request: RequestId(request), framework_id, stream_id, call })
    }

    fn act(&mut self, action: Action) -> Checked {
        match action {
            Action::Subscribe { node, client, is_new } => {
                let connection = self.number();
                let known = &mut self.clients[client];
                if is_new {
                    *known = Client::default();
                }
                known.place = Some((node, connection));
                let framework_id = known.id.clone();
                self.nodes[node].streams.insert(connection, Stream::Asked);
                let mut info = info(&["eng"]);
                info.failover_timeout = Duration::from_secs(30);
                let call = Subscribe { framework_id, info: Ok(info), suppressed_roles: Vec::new() };
                self.give(node, Input::Subscribe { connection: ConnectionId(connection), call })
            }
            Action::Race { node, client } => {
                self.act(Action::Subscribe { node, client, is_new: false })?;
                self.perform(node, Outcome::Done)?;
                let other = 1 - node;
                self.act(Action::Subscribe { node: other, client, is_new: false })?;
                for _ in 0..4 {
                    self.perform(other, Outcome::Done)?;
                    self.act(Action::Answer { node: other })?;
                }
                while !self.nodes[node].news.is_empty() {
                    self.act(Action::News { node, is_again: false })?;
                }
                Ok(())
            }
            Action::Close { client } => {
                let Some((at, connection)) = self.clients[client].place else { return Ok(()) };
                self.give(at, Input::StreamClosed { connection: ConnectionId(connection) })
            }
            Action::Launch { client, waits } => {
                let known = self.clients[client].clone();
                let (Some(framework_id), Some((at, _))) = (known.id, known.place) else { return Ok(()) };
                let number = self.number();
                let offers = vec![offer(number, framework_id.as_str(), "S0", "eng", amount(2, 64))];
                let (home_fence, session_version) = (known.fence, known.version);
                let batch = ToHome::Offers { framework_id, home_fence, session_version, offers };
                self.give(at, Input::FromNode(batch))?;
                if waits {
                    return Ok(());
                }
                let name = format!("t{number}");
                let launched = vec![task(&name, "S0", "eng", amount(1, 20))];
                let offers = vec![OfferRef::Ours(OfferId { epoch: 1, number })];
                let accept = Accept { offers, operations: vec![Operation::Launch(launched)], refusal: None };
                self.call(client, Some(TaskId::parse(&name).unwrap()), FrameworkCall::Accept(accept))
            }
            Action::Teardown { client, operator_at: None } => self.call(client, None, FrameworkCall::Teardown),
            Action::Teardown { client, operator_at: Some(at) } => {
                let Some(framework_id) = self.clients[client].id.clone() else { return Ok(()) };
                let request = self.number();
                self.requests.insert(request, (at, None));
                self.give(at, Input::OperatorTeardown { request: RequestId(request), framework_id })
            }
            Action::Change { client } => {
                let mut info = info(&["eng"]);
                info.name = format!("name {}", self.number()).into();
                info.failover_timeout = Duration::from_secs(30);
                let call = FrameworkCall::UpdateFramework { info: Ok(Box::new(info)), suppressed_roles: Vec::new() };
                self.call(client, None, call)
            }
            Action::Perform { node, outcome } => self.perform(node, outcome),
            Action::Answer { node } => match self.nodes[node].answers.pop_front() {
                Some(answer) => self.give(node, answer),
                None => Ok(()),
            },
            Action::News { node, is_again } => {
                let news = if is_again {
                    let back = usize::try_from(self.number()).unwrap() % (self.past.len() + 1);
                    self.past.get(back).filter(|old| is_past(&self.nodes[node].news, old)).cloned()
                } else {
                    self.nodes[node].news.pop_front()
                };
                match news {
                    Some(stored) => self.give(node, Input::RecordChanged(stored)),
                    None => Ok(()),
                }
            }
            Action::OwnersReset { node: at, shards } => {
                let shards = (0..16).filter(|number| shards & (1 << number) != 0).map(ShardId).collect();
                self.give(at, Input::OwnersReset { owner: node(1), shards, why: "it was lost".into() })
            }
            Action::Nodes { node: at, is_other_live, carries } => {
                let live = (0..2).filter(|index| *index == at || is_other_live).map(node).collect();
                self.give(at, Input::NodesChanged { live, carries_dead_homes: carries })
            }
            Action::OwnersSpeak { node: at } => self.owners_speak(at),
            Action::Pass { secs } => self.pass(u64::from(secs)),
            Action::Restart { node } => self.restart(node),
        }
    }

    fn owners_speak(&mut self, at: usize) -> Checked {
        for (framework_id, home_fence) in std::mem::take(&mut self.nodes[at].fenced) {
            for owner in [node(0), node(1)] {
                let (framework_id, tasks) = (framework_id.clone(), Vec::new());
                let answer = ToHome::FrameworkTasks { framework_id, home_fence, owner, tasks };
                self.give(at, Input::FromNode(answer))?;
            }
        }
        Ok(())
    }

    fn pass(&mut self, secs: u64) -> Checked {
        self.now.mono = self.now.mono.after(Duration::from_secs(secs));
        self.now.wall = self.now.wall.after(Duration::from_secs(secs));
        for at in 0..2 {
            self.nodes[at].home.handle_deadline(self.now);
            let due = self.nodes[at].home.deadline();
            prop_assert!(due.is_none_or(|(moment, _)| moment > self.now.mono), "a deadline stays due: {:?}", due);
            self.check_outputs(at)?;
        }
        Ok(())
    }

    /// kill -9 and a new process: the writes on their way arrive or not, by their number.
    fn restart(&mut self, at: usize) -> Checked {
        while let Some(work) = self.nodes[at].work.pop_front() {
            if let Work::Persist(seq, op) = work
                && seq % 2 == 0
            {
                let _ = self.write(at, &op)?;
            }
        }
        for client in &mut self.clients {
            if client.place.is_some_and(|(place, _)| place == at) {
                (client.place, client.stream_id) = (None, None);
            }
        }
        // Whoever called this node has lost the connection.
        self.requests.retain(|_, (place, _)| *place != at);
        self.nodes[at] = self.started(at);
        self.check_outputs(at)
    }

    /// Nothing fails any more: everything that was begun ends, and both homes agree.
    fn settle_all(&mut self) -> Checked {
        for at in 0..2 {
            let live = [node(0), node(1)].into();
            self.give(at, Input::NodesChanged { live, carries_dead_homes: at == 0 })?;
        }
        for _ in 0..20 {
            for at in 0..2 {
                while !(self.nodes[at].work.is_empty() && self.nodes[at].answers.is_empty()) {
                    self.perform(at, Outcome::Done)?;
                    self.act(Action::Answer { node: at })?;
                }
                while let Some(stored) = self.nodes[at].news.pop_front() {
                    self.give(at, Input::RecordChanged(stored))?;
                }
            }
            self.pass(6)?;
        }
        prop_assert!(self.requests.is_empty(), "never answered: {:?}", self.requests);
        let mut shown = Vec::new();
        let mut served = BTreeSet::new();
        for at in 0..2 {
            let view = self.nodes[at].home.view();
            shown.extend(view.frameworks.keys().cloned());
            let this = &self.nodes[at];
            prop_assert!(this.unsettled.is_empty(), "neither ordered nor told: {:?}", this.unsettled);
            for (connection, stream) in &this.streams {
                let Stream::Open(Some(id)) = stream else {
                    prop_assert_eq!(stream, &Stream::Closed, "stream {} at {}", connection, at);
                    continue;
                };
                let is_connected = view.frameworks.get(id).is_some_and(|framework| framework.is_connected);
                // A stream whose client has closed it is open no more to anybody but this model.
                if is_connected {
                    let is_home = matches!(self.store.records.get(&Key::Framework(id.clone())),
                        Some((_, Record::Framework(record))) if record.home.node == this.config.node
                            && record.home.fence.incarnation == this.config.incarnation);
                    prop_assert!(is_home, "{} is served by node {} that is not its home", id, at);
                    served.insert((id.clone(), at));
                }
            }
        }
        let homes: BTreeSet<&FrameworkId> = served.iter().map(|(id, _)| id).collect();
        prop_assert_eq!(homes.len(), served.len(), "two homes at once: {:?}", served);
        shown.sort();
        let stored = self.store.records.keys().filter_map(|key| match key {
            Key::Framework(id) => Some(id.clone()),
            _ => None,
        });
        prop_assert_eq!(shown, stored.collect::<Vec<_>>(), "each framework is shown once");
        Ok(())
    }
}

/// Whether the news was given before: nothing comes before its turn.
fn is_past(news: &VecDeque<Stored>, old: &Stored) -> bool {
    news.front().is_none_or(|first| old.revision < first.revision)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 6000, ..ProptestConfig::default() })]

    #[test]
    fn one_home_at_a_time_is_obeyed(actions in prop::collection::vec(actions(), 1..150)) {
        let mut model = Model::new();
        for at in 0..2 {
            model.check_outputs(at)?;
        }
        for action in actions {
            model.act(action)?;
        }
        model.settle_all()?;
    }
}
