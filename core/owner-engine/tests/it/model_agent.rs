//! An agent as simple as can be that obeys: fences, floors, ledger, streams. It survives lost connections.

use crate::world::*;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use muster_model::agent_message::*;
use muster_model::fence::Fence;
use muster_model::resource::Resources;
use muster_model::status::{Source, TaskStatus};
use muster_model::task::{Task, TaskState};
use muster_model::*;
use muster_owner_engine::io::SessionId;

pub(crate) type TaskKey = (FrameworkId, TaskId);

pub(crate) struct ModelTask {
    task: Arc<Task>,
    state: TaskState,
    stream: VecDeque<TaskStatus>,
    acknowledged: Vec<TaskStatus>,
}

/// An agent that obeys: fences, floors, ledger, streams. What it knows survives a lost connection.
pub(crate) struct ModelAgent {
    pub(crate) id: AgentId,
    pub(crate) tasks: BTreeMap<TaskKey, ModelTask>,
    pub(crate) highest: Fence,
    floor: u64,
    seen: BTreeMap<(Fence, u64), OrderKind>,
    pub(crate) token: Option<Uuid>,
    pub(crate) journal: u64,
    uuids: u64,
    pub(crate) link: Option<(SessionId, VecDeque<FromAgent>, VecDeque<ToAgent>)>,
}

impl ModelAgent {
    pub(crate) fn new(id: AgentId) -> Self {
        Self {
            id,
            tasks: BTreeMap::new(),
            highest: Fence::default(),
            floor: 0,
            seen: BTreeMap::new(),
            token: None,
            journal: 0,
            uuids: 0,
            link: None,
        }
    }

    pub(crate) fn in_use(&self) -> Resources {
        let mut sum = Resources::new();
        for task in self.tasks.values().filter(|task| !task.state.is_terminal()) {
            sum.add(&task.task.resources).unwrap();
        }
        sum
    }

    /// Whether nothing is left to be acknowledged.
    pub(crate) fn all_told(&self) -> bool {
        self.tasks.values().all(|task| task.stream.is_empty())
    }

    /// The acknowledged updates of the tasks that are still here, in order.
    pub(crate) fn told(&self) -> Vec<(TaskKey, Vec<Uuid>)> {
        self.tasks
            .iter()
            .map(|(key, task)| (key.clone(), task.acknowledged.iter().filter_map(|status| status.uuid).collect()))
            .collect()
    }

    fn say(&mut self, message: FromAgent) {
        if let Some((_, up, _)) = &mut self.link {
            up.push_back(message);
        }
    }

    pub(crate) fn send_heads(&mut self) {
        let updates: Vec<_> = self
            .tasks
            .values()
            .filter_map(|task| {
                task.stream.front().map(|status| StatusUpdate { status: status.clone(), latest: task.state })
            })
            .collect();
        self.say(FromAgent::Updates(updates));
    }

    fn picture(&self) -> Picture {
        let tasks = self
            .tasks
            .values()
            .map(|task| PictureTask {
                task: task.task.clone(),
                latest: task.state,
                pending: task.stream.front().cloned(),
                acknowledged: task.acknowledged.clone(),
            })
            .collect();
        Picture {
            fence: self.highest,
            version: self.journal,
            frameworks: vec![brief("f0", true), brief("f1", false)],
            tasks,
        }
    }

    /// Moves a task on and makes the update for it. Returns the update's name.
    pub(crate) fn advance(&mut self, key: &TaskKey, state: TaskState) -> Option<Uuid> {
        self.uuids += 1;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.uuids.to_be_bytes());
        bytes[8..].copy_from_slice(&u64::try_from(self.id.as_str().len()).unwrap().to_be_bytes());
        bytes[15] = self.id.as_str().as_bytes()[self.id.as_str().len() - 1];
        let task = self.tasks.get_mut(key).filter(|task| task.state.may_become(state))?;
        task.state = state;
        let mut status = TaskStatus::new(key.0.clone(), key.1.clone(), state, Source::Executor, WallTime(1));
        status.uuid = Some(Uuid(bytes));
        task.stream.push_back(status);
        self.journal += 1;
        let task = self.tasks.get(key)?;
        if task.stream.len() == 1 {
            let head = StatusUpdate { status: task.stream.front()?.clone(), latest: task.state };
            self.say(FromAgent::Updates(vec![head]));
        }
        Some(Uuid(bytes))
    }

    pub(crate) fn hear(&mut self, message: ToAgent) {
        match message {
            ToAgent::Welcome(welcome) => {
                assert!(welcome.fence >= self.highest, "an owner of an older fence welcomes");
                if welcome.fence > self.highest {
                    self.floor = 0;
                }
                self.highest = welcome.fence;
                self.token = Some(welcome.next_token);
                self.journal += 1;
                let picture = self.picture();
                self.say(FromAgent::Picture(picture));
                self.send_heads();
            }
            ToAgent::Order(order) => self.obey(order),
            ToAgent::AcknowledgeUpdate { framework_id, task_id, uuid, .. } => {
                let key = (framework_id, task_id);
                let Some(task) = self.tasks.get_mut(&key) else { return };
                if task.stream.front().and_then(|head| head.uuid) != Some(uuid) {
                    return;
                }
                let told = task.stream.pop_front().unwrap();
                let is_over = told.state.is_terminal();
                task.acknowledged.push(told);
                self.journal += 1;
                match task.stream.front().cloned() {
                    Some(status) => {
                        let latest = task.state;
                        self.say(FromAgent::Updates(vec![StatusUpdate { status, latest }]));
                    }
                    None if is_over => {
                        self.tasks.remove(&key);
                    }
                    None => {}
                }
            }
            ToAgent::PictureWanted => {
                let picture = self.picture();
                self.say(FromAgent::Picture(picture));
            }
            ToAgent::Refused { .. } | ToAgent::Referral { .. } => self.link = None,
            ToAgent::ReportInterval(_) => {}
        }
    }

    fn obey(&mut self, order: Order) {
        assert_eq!(order.fence, self.highest, "S2: an order under another fence than the welcomed one");
        let before = self.seen.insert((order.fence, order.sequence), order.what.clone());
        let is_void = matches!(&order.what, OrderKind::Launch { tasks, .. } if tasks.is_empty());
        assert!(before.is_none_or(|before| before == order.what || is_void), "one sequence, one order or none");
        let mut refused = Vec::new();
        if order.sequence > self.floor {
            assert_eq!(order.sequence, self.floor + 1, "orders come in order");
            self.floor = order.sequence;
            self.journal += 1;
            match order.what {
                OrderKind::Launch { tasks, .. } => {
                    for task in tasks {
                        if let Err(refusal) = self.admit(task) {
                            refused.push((order.sequence, refusal));
                        }
                    }
                }
                OrderKind::Kill { framework_id, task_id, .. } => {
                    self.advance(&(framework_id, task_id), TaskState::Killed);
                }
                OrderKind::ShutdownFramework { framework_id } => self.tasks.retain(|key, _| key.0 != framework_id),
            }
        }
        let (fence, floor) = (self.highest, self.floor);
        self.say(FromAgent::OrdersTaken { fence, floor, refused });
    }

    fn admit(&mut self, task: Arc<Task>) -> Result<(), OrderRefusal> {
        let key = (task.framework_id.clone(), task.id.clone());
        if self.tasks.contains_key(&key) {
            return Err(OrderRefusal::DuplicateTask { task_id: key.1 });
        }
        let mut free = total();
        free.subtract(&self.in_use()).expect("S1: the ledger never goes below nothing");
        if !free.contains(&task.resources) {
            let (needed, free) = (task.resources.to_string().into(), free.to_string().into());
            return Err(OrderRefusal::NotEnough { task_id: key.1, needed, free });
        }
        let state = TaskState::Staging;
        self.tasks.insert(key, ModelTask { task, state, stream: VecDeque::new(), acknowledged: Vec::new() });
        Ok(())
    }
}
