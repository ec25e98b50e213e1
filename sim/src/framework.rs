//! A simulated framework: launches, declines, kills and reconciles at random, and remembers what it was told.

use muster_home_engine::io::ConnectionId;
use muster_model::framework::{Capabilities, FrameworkInfo};
use muster_model::offer::Offer;
use muster_model::resource::Resources;
use muster_model::scheduler::{Accept, Event, FrameworkCall, LaunchTask, OfferRef, Operation, Subscribe};
use muster_model::status::TaskStatus;
use muster_model::task::{Command, Program, Task, TaskState};
use muster_model::{Duration, FrameworkId, Milli, OfferId, Rng, Role, TaskId, Uuid};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a framework knows of one of its tasks.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Every state that it was told, in order; repeated ones once.
    pub states: Vec<TaskState>,
    /// Uuids of updates that it has heard and acknowledges, each once, in the order of hearing.
    pub heard: Vec<Uuid>,
}

/// One framework.
pub struct Framework {
    /// Its name and what makes its task ids unique.
    pub name: String,
    /// The id it was given.
    pub id: Option<FrameworkId>,
    /// Its open stream.
    pub connection: Option<ConnectionId>,
    /// The node that its stream is at.
    pub node: usize,
    /// The stream's id.
    pub stream_id: Option<Uuid>,
    /// Offers it holds.
    pub offers: BTreeMap<OfferId, Arc<Offer>>,
    /// Its tasks.
    pub tasks: BTreeMap<TaskId, Known>,
    /// How many of its offers were taken back.
    pub rescinds: u64,
    /// How often it called UPDATE_FRAMEWORK.
    pub updates: u64,
    /// How often its connection broke before it knew its id: what became of these is not known to it.
    pub given_up: usize,
    /// Whether it launches more.
    pub is_busy: bool,
    next_task: u64,
    rng: Rng,
    partition_aware: bool,
}

impl Framework {
    /// A framework that has not subscribed yet.
    pub fn new(name: &str, rng: &Rng) -> Self {
        let mut rng = rng.fork(name);
        Self {
            name: name.to_owned(),
            id: None,
            connection: None,
            node: 0,
            stream_id: None,
            offers: BTreeMap::new(),
            tasks: BTreeMap::new(),
            rescinds: 0,
            updates: 0,
            given_up: 0,
            is_busy: true,
            next_task: 0,
            partition_aware: rng.below(2) == 0,
            rng,
        }
    }

    /// What it sends to subscribe, for the first time or again.
    pub fn subscribe(&self) -> Subscribe {
        Subscribe { framework_id: self.id.clone(), info: self.info(), suppressed_roles: Vec::new() }
    }

    fn info(&self) -> Result<FrameworkInfo, Arc<str>> {
        let role = Role::parse(&format!("role-{}", self.name)).unwrap_or_else(|_| Role::star());
        let placeholder = FrameworkId::parse("new").unwrap_or_else(|_| unreachable!("a valid id"));
        Ok(FrameworkInfo {
            id: self.id.clone().unwrap_or(placeholder),
            name: Arc::from(self.name.as_str()),
            user: Arc::from("root"),
            roles: [role].into(),
            capabilities: Capabilities {
                partition_aware: self.partition_aware,
                multi_role: true,
                task_killing_state: true,
                ..Capabilities::default()
            },
            failover_timeout: Duration::from_secs(1_000_000),
            is_checkpointing: true,
            principal: None,
            min_allocatable: BTreeMap::new(),
            spec: Arc::from(&b""[..]),
        })
    }

    /// Its connection broke, or the node behind it.
    pub fn cut_off(&mut self) {
        self.given_up += usize::from(self.id.is_none());
        self.disconnected();
    }

    /// Its stream is gone, from whichever side.
    pub fn disconnected(&mut self) {
        self.connection = None;
        self.stream_id = None;
        self.offers.clear();
    }

    /// Takes an event; returns the calls that it makes at once.
    pub fn take(&mut self, event: Event) -> Vec<FrameworkCall> {
        match event {
            Event::Subscribed { framework_id, .. } => {
                self.id = Some(framework_id);
                vec![FrameworkCall::Reconcile(Vec::new())]
            }
            Event::Offers(offers) => {
                for offer in offers {
                    let double = self.offers.insert(offer.grant.offer_id, offer);
                    assert!(double.is_none(), "an offer was made twice");
                }
                Vec::new()
            }
            Event::Rescind(offer_id) => {
                self.rescinds += 1;
                self.offers.remove(&offer_id);
                Vec::new()
            }
            Event::Update(status) => self.take_update(Arc::unwrap_or_clone(status)),
            Event::Error(_) => {
                self.disconnected();
                Vec::new()
            }
            Event::OperationFailed { .. }
            | Event::OperationUnknown { .. }
            | Event::TaskRefused { .. }
            | Event::Message { .. }
            | Event::Failure { .. }
            | Event::Heartbeat => Vec::new(),
        }
    }

    fn take_update(&mut self, status: TaskStatus) -> Vec<FrameworkCall> {
        let known = self.tasks.entry(status.task_id.clone()).or_default();
        // An update whose acknowledgement was lost comes again, perhaps after other words on the task: it is no news.
        let is_again = status.uuid.is_some_and(|uuid| known.heard.contains(&uuid));
        if !is_again && known.states.last() != Some(&status.state) {
            known.states.push(status.state);
        }
        let (Some(uuid), Some(agent_id)) = (status.uuid, status.agent_id) else { return Vec::new() };
        if !known.heard.contains(&uuid) {
            known.heard.push(uuid);
        }
        vec![FrameworkCall::Acknowledge { agent_id, task_id: status.task_id, uuid }]
    }

    /// What it does when it is its turn.
    pub fn act(&mut self) -> Option<FrameworkCall> {
        // Now and then something else comes first: where there are many agents, there is always an offer.
        if self.rng.below(4) > 0
            && let Some((_, offer)) = self.offers.pop_first()
        {
            let offers = vec![OfferRef::Ours(offer.grant.offer_id)];
            let refusal = [None, Some(Duration::from_millis(1500)), Some(Duration::from_secs(5))]
                [usize::try_from(self.rng.below(3)).unwrap_or(0)];
            if !self.is_busy || self.rng.below(4) == 0 {
                return Some(FrameworkCall::Decline { offers, refusal });
            }
            let operations = vec![Operation::Launch(self.launches(&offer))];
            return Some(FrameworkCall::Accept(Accept { offers, operations, refusal }));
        }
        match self.rng.below(10) {
            0 => Some(FrameworkCall::Reconcile(Vec::new())),
            1 | 2 => {
                let live: Vec<_> = self.live_tasks().cloned().collect();
                let index = usize::try_from(self.rng.below(live.len() as u64)).unwrap_or(0);
                let task_id = live.get(index)?.clone();
                Some(FrameworkCall::Kill { task_id, agent_id: None, grace: None })
            }
            3 => Some(FrameworkCall::Revive(Vec::new())),
            5 if self.is_busy => {
                self.partition_aware = !self.partition_aware;
                self.updates += 1;
                let info = self.info().map(Box::new);
                Some(FrameworkCall::UpdateFramework { info, suppressed_roles: Vec::new() })
            }
            // A call may have been lost with its stream: only asking tells whether a task was ever launched.
            4 => Some(FrameworkCall::Reconcile(self.live_tasks().map(|id| (id.clone(), None)).collect())),
            _ => None,
        }
    }

    /// A call that never left: tasks that it would have launched were not asked for.
    pub fn forget_unasked(&mut self, call: &FrameworkCall) {
        let FrameworkCall::Accept(accept) = call else { return };
        for operation in &accept.operations {
            let Operation::Launch(tasks) = operation else { continue };
            for task in tasks {
                if let LaunchTask::Task(task) = task {
                    self.tasks.remove(&task.id);
                }
            }
        }
    }

    /// Tasks that were launched and whose end it has not heard.
    pub fn live_tasks(&self) -> impl Iterator<Item = &TaskId> {
        let is_over = |state: &TaskState| state.is_terminal() || *state == TaskState::Unknown;
        let is_live = move |known: &Known| !known.states.iter().any(is_over);
        self.tasks.iter().filter(move |(_, known)| is_live(known)).map(|(id, _)| id)
    }

    fn launches(&mut self, offer: &Offer) -> Vec<LaunchTask> {
        let mut rest = offer.grant.resources.clone();
        let mut tasks = Vec::new();
        for _ in 0..=self.rng.below(3) {
            let needed =
                Resources::basic(Milli(100 + self.rng.below(900)), Milli::whole(32 + self.rng.below(64)), Milli::ZERO);
            if rest.subtract(&needed).is_err() {
                break;
            }
            self.next_task += 1;
            let id = format!("{}-{}", self.name, self.next_task);
            let (Ok(task_id), Some(framework_id)) = (TaskId::parse(&id), self.id.clone()) else { break };
            self.tasks.insert(task_id.clone(), Known::default());
            tasks.push(LaunchTask::Task(Arc::new(Task {
                id: task_id,
                name: Arc::from(id),
                framework_id,
                agent_id: offer.grant.agent_id.clone(),
                role: offer.grant.role.clone(),
                resources: needed,
                command: Command { program: Program::Shell(Arc::from("true")), environment: Vec::new(), user: None },
                kill_grace: None,
                completion_time_max: None,
                spec: Arc::from(&b""[..]),
            })));
        }
        tasks
    }
}
