//! A batch of messages: those that a launch takes are rows of numbers, all others stand as they are.
//!
//! A launch whose framework and agent are on different nodes takes eight messages of five kinds, and they make up nearly all
//! that nodes say to each other. Each has a row of one size; what rows have in common (amounts, commands) stands in lists of
//! its own, their texts stand one behind the other in the order of the messages. So a row is written and read without a
//! look at any other place. A message with more to say than its row has room for stands among the others.

mod read;

use super::Mirror;
use super::name::{Writing, add};
use super::node_message::NodeMessage;
use super::noun::{Command, FrameworkBrief, TaskState};
use super::resource::Resources;
use super::status::{Exit, Reason, Source};
use muster_model as model;
use muster_model::Duration;
use muster_model::node_message::{HomeOrder, NodeMessage as Message, ToAllocator, ToHome, ToOwner};
use muster_model::status::{ContainerStatus, TaskStatus};
use muster_model::task::{Program, Task};
use rkyv::{Archive, Serialize};

/// In which list a message stands.
#[derive(Archive, Serialize, Clone, Copy)]
enum Kind {
    Other,
    Order,
    Acknowledge,
    Update,
    TaskRemoved,
    Freed,
}

/// Messages in the order in which they were sent. Whom they are for is clear from what they are.
#[derive(Archive, Serialize)]
pub(crate) struct Batch<'m> {
    /// One for each message, which is the next of that list.
    kinds: Vec<Kind>,
    others: Vec<NodeMessage<'m>>,
    orders: Vec<Order<'m>>,
    /// Of the orders, in turn.
    tasks: Vec<TaskRow>,
    acknowledgements: Vec<AcknowledgeRow>,
    updates: Vec<UpdateRow>,
    /// Of those updates that have one, in turn.
    ends: Vec<EndRow>,
    removals: Vec<RemovalRow>,
    freed: Vec<FreedRow>,
    /// Meant by number.
    amounts: Vec<Resources<'m>>,
    /// Meant by number.
    commands: Vec<Command<'m>>,
    /// Of the rows, in the order of the messages.
    texts: String,
    /// The same for the tasks' own bytes.
    specs: Vec<u8>,
}

/// An order without its tasks.
#[derive(Archive, Serialize)]
struct Order<'m> {
    framework: FrameworkBrief<'m>,
    sequence: u64,
    offers: Vec<(u64, u64)>,
    refusal: Option<u64>,
    home_fence: u32,
    agent_id: u32,
    tasks: u32,
}

/// Texts: id, name.
#[derive(Archive, Serialize)]
struct TaskRow {
    kill_grace: u64,
    completion_time_max: u64,
    framework_id: u32,
    agent_id: u32,
    role: u32,
    amount: u32,
    command: u32,
    name_bytes: u32,
    spec_bytes: u32,
    id_bytes: u8,
}

/// Text: the task's id. This row and the two of one size without gaps below are written as they lie in memory.
#[derive(Archive, Serialize)]
#[repr(C)]
struct AcknowledgeRow {
    uuid: [u8; 16],
    framework_id: u32,
    home_fence: u32,
    agent_id: u32,
    task_bytes: u32,
}

/// Texts: ids of task and container.
#[derive(Archive, Serialize)]
struct UpdateRow {
    at: u64,
    uuid: [u8; 16],
    framework_id: u32,
    agent_id: u32,
    /// The only one.
    ip_address: u32,
    /// 0: none.
    executor_pid: u32,
    task_bytes: u8,
    /// 0: no container.
    container_bytes: u8,
    state: TaskState,
    source: Source,
    /// A command task's, which has the task's id.
    has_executor: bool,
    has_end: bool,
}

/// What is said of an end.
#[derive(Archive, Serialize)]
struct EndRow {
    output_bytes: Option<(u64, u64)>,
    message: u32,
    reason: Option<Reason>,
    exit: Option<Exit>,
}

/// Text: the task's id.
#[derive(Archive, Serialize)]
#[repr(C)]
struct RemovalRow {
    framework_id: u32,
    task_bytes: u32,
}

#[derive(Archive, Serialize)]
#[repr(C)]
struct FreedRow {
    agent_id: u32,
    framework_id: u32,
    role: u32,
    amount: u32,
}

/// Bytes that the texts of most messages need.
const TEXT_ROOM: usize = 32;
/// No word has this number: a frame's bound is far below.
const NO_WORD: u32 = u32::MAX;
/// A duration that nothing has.
const NO_DURATION: u64 = u64::MAX;
/// So many of the last amounts and commands are looked through for one that is the same.
const LAST: usize = 4;
/// A command with more arguments and variables is listed again for each task, as each reader's copy is one of its own.
const SHARED_ARGUMENTS_MAX: usize = 8;

impl<'m> Batch<'m> {
    /// The shape of a batch that lies in a slice.
    pub(crate) fn to_wire(messages: &'m [Message], names: &mut Writing<'m>) -> Self {
        let mut batch = Self {
            kinds: Vec::with_capacity(messages.len()),
            others: Vec::new(),
            orders: Vec::new(),
            tasks: Vec::new(),
            acknowledgements: Vec::with_capacity(messages.len() / 2),
            updates: Vec::with_capacity(messages.len() / 2),
            ends: Vec::new(),
            removals: Vec::new(),
            freed: Vec::new(),
            amounts: Vec::new(),
            commands: Vec::new(),
            texts: String::with_capacity(messages.len().saturating_mul(TEXT_ROOM)),
            specs: Vec::new(),
        };
        let mut last = Last { amounts: Vec::new(), commands: Vec::new() };
        for message in messages {
            let kind = batch.push(message, names, &mut last);
            batch.kinds.push(kind);
        }
        batch
    }

    fn push(&mut self, message: &'m Message, names: &mut Writing<'m>, last: &mut Last<'m>) -> Kind {
        match message {
            Message::ToHome(ToHome::Update(status)) if self.push_update(status, names) => Kind::Update,
            Message::ToOwner(ToOwner::Order(order)) if self.push_order(order, names, last) => Kind::Order,
            Message::ToOwner(ToOwner::Acknowledge { framework_id, home_fence, agent_id, task_id, uuid }) => {
                let task_bytes = self.id(task_id.as_str()).into();
                self.acknowledgements.push(AcknowledgeRow {
                    uuid: uuid.0,
                    framework_id: names.word(framework_id.as_str()),
                    home_fence: names.fence(*home_fence),
                    agent_id: names.word(agent_id.as_str()),
                    task_bytes,
                });
                Kind::Acknowledge
            }
            Message::ToHome(ToHome::TaskRemoved { framework_id, task_id }) => {
                let framework_id = names.word(framework_id.as_str());
                let task_bytes = self.id(task_id.as_str()).into();
                self.removals.push(RemovalRow { framework_id, task_bytes });
                Kind::TaskRemoved
            }
            Message::ToAllocator(ToAllocator::Freed { agent_id, framework_id, role, resources }) => {
                self.freed.push(FreedRow {
                    agent_id: names.word(agent_id.as_str()),
                    framework_id: names.word(framework_id.as_str()),
                    role: names.word(role.as_str()),
                    amount: last.amount(&mut self.amounts, resources, names),
                });
                Kind::Freed
            }
            Message::ToOwner(_) | Message::ToHome(_) | Message::ToAllocator(_) => {
                self.others.push(Mirror::to_wire(message, names));
                Kind::Other
            }
        }
    }

    /// Whether the status has nothing to say that a row has no room for; then it has one.
    fn push_update(&mut self, status: &'m TaskStatus, names: &mut Writing<'m>) -> bool {
        // Every field is named, so that a new one is not forgotten here.
        let TaskStatus {
            framework_id,
            task_id,
            state,
            source,
            reason,
            message,
            agent_id: Some(agent_id),
            executor_id,
            at,
            uuid: Some(uuid),
            is_healthy: None,
            data: None,
            container,
            unreachable_since: None,
            limitation: None,
            exit,
            output_bytes,
        } = status
        else {
            return false;
        };
        let (container_id, ip_address, executor_pid) = match container {
            None => (None, None, None),
            Some(ContainerStatus { container_id, ip_addresses, executor_pid }) => match &**ip_addresses {
                [] => (Some(container_id), None, *executor_pid),
                [one] => (Some(container_id), Some(one), *executor_pid),
                _ => return false,
            },
        };
        if executor_pid == Some(0) || executor_id.as_ref().is_some_and(|id| id.as_str() != task_id.as_str()) {
            return false;
        }
        let has_end = reason.is_some() || message.is_some() || exit.is_some() || output_bytes.is_some();
        if has_end {
            self.ends.push(EndRow {
                output_bytes: *output_bytes,
                message: message.as_ref().map_or(NO_WORD, |text| names.word(text)),
                reason: Mirror::to_wire(reason, names),
                exit: Mirror::to_wire(exit, names),
            });
        }
        let row = UpdateRow {
            at: at.0,
            uuid: uuid.0,
            framework_id: names.word(framework_id.as_str()),
            agent_id: names.word(agent_id.as_str()),
            ip_address: ip_address.map_or(NO_WORD, |text| names.word(text)),
            executor_pid: executor_pid.unwrap_or(0),
            task_bytes: self.id(task_id.as_str()),
            container_bytes: container_id.map_or(0, |id| self.id(id.as_str())),
            state: Mirror::to_wire(state, names),
            source: Mirror::to_wire(source, names),
            has_executor: executor_id.is_some(),
            has_end,
        };
        self.updates.push(row);
        true
    }

    /// The same for an order.
    fn push_order(&mut self, order: &'m HomeOrder, names: &mut Writing<'m>, last: &mut Last<'m>) -> bool {
        let HomeOrder { framework, home_fence, sequence, agent_id, offers, tasks, refusal } = order;
        let has_room = |task: &Task| {
            let is_length = |len: usize| u32::try_from(len).is_ok();
            is_length(task.name.len())
                && is_length(task.spec.len())
                && [task.kill_grace, task.completion_time_max].iter().all(|it| *it != Some(Duration(NO_DURATION)))
        };
        if !tasks.iter().all(|task| has_room(task)) {
            return false;
        }
        let Ok(count) = u32::try_from(tasks.len()) else { return false };
        for task in tasks {
            self.push_task(task, names, last);
        }
        self.orders.push(Order {
            framework: Mirror::to_wire(framework, names),
            sequence: *sequence,
            offers: offers.iter().map(|id| (id.epoch, id.number)).collect(),
            refusal: refusal.map(|duration| duration.0),
            home_fence: names.fence(*home_fence),
            agent_id: names.word(agent_id.as_str()),
            tasks: count,
        });
        true
    }

    fn push_task(&mut self, task: &'m Task, names: &mut Writing<'m>, last: &mut Last<'m>) {
        let Task { id, name, framework_id, agent_id, role, resources, command, kill_grace, completion_time_max, spec } =
            task;
        let nanos = |duration: &Option<Duration>| duration.map_or(NO_DURATION, |duration| duration.0);
        let row = TaskRow {
            kill_grace: nanos(kill_grace),
            completion_time_max: nanos(completion_time_max),
            framework_id: names.word(framework_id.as_str()),
            agent_id: names.word(agent_id.as_str()),
            role: names.word(role.as_str()),
            amount: last.amount(&mut self.amounts, resources, names),
            command: last.command(&mut self.commands, command, names),
            id_bytes: self.id(id.as_str()),
            name_bytes: length(name.len()),
            spec_bytes: length(spec.len()),
        };
        self.texts.push_str(name);
        self.specs.extend_from_slice(spec);
        self.tasks.push(row);
    }

    /// Puts an id behind the other texts. Returns its length, which the model bounds.
    fn id(&mut self, id: &str) -> u8 {
        self.texts.push_str(id);
        u8::try_from(id.len()).unwrap_or(u8::MAX)
    }
}

/// Checked before by who asks, or bounded by the frame.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// What was listed, to find what comes again.
struct Last<'m> {
    amounts: Vec<&'m model::resource::Resources>,
    commands: Vec<&'m model::task::Command>,
}

impl<'m> Last<'m> {
    fn amount(
        &mut self,
        listed: &mut Vec<Resources<'m>>,
        amount: &'m model::resource::Resources,
        names: &mut Writing<'m>,
    ) -> u32 {
        place(&mut self.amounts, amount, true, || listed.push(Mirror::to_wire(amount, names)))
    }

    fn command(
        &mut self,
        listed: &mut Vec<Command<'m>>,
        command: &'m model::task::Command,
        names: &mut Writing<'m>,
    ) -> u32 {
        place(&mut self.commands, command, is_shared(command), || listed.push(Mirror::to_wire(command, names)))
    }
}

/// The number of the same value among the last ones, or a new one.
fn place<'m, T: PartialEq>(seen: &mut Vec<&'m T>, value: &'m T, may_share: bool, list: impl FnOnce()) -> u32 {
    let found = seen.iter().rev().take(LAST).position(|one| may_share && *one == value);
    match found {
        Some(back) => length(seen.len() - 1 - back),
        None => {
            list();
            add(seen, value)
        }
    }
}

fn is_shared(command: &model::task::Command) -> bool {
    let arguments = match &command.program {
        Program::Shell(_) => 0,
        Program::Exec { arguments, .. } => arguments.len(),
    };
    arguments.saturating_add(command.environment.len()) <= SHARED_ARGUMENTS_MAX
}
