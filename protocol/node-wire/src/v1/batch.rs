//! A batch of messages: those that a launch takes are rows of numbers, all others stand as they are.
//!
//! A launch whose framework and agent are on different nodes takes eight messages of five kinds, and they make up nearly all
//! that nodes say to each other. Each has a row of one size; what rows have in common (amounts, commands) stands in lists of
//! its own, their texts stand one behind the other in the order of the messages. So a row is written and read without a
//! look at any other place. A message with more to say than its row has room for stands among the others.

use super::Mirror;
use super::name::{Reading, Writing};
use super::node_message::NodeMessage;
use super::noun::{Command, FrameworkBrief, TaskState};
use super::resource::Resources;
use super::status::{Exit, Reason, Source};
use crate::WireError;
use muster_model as model;
use muster_model::node_message::{HomeOrder, NodeMessage as Message, ToAllocator, ToHome, ToOwner};
use muster_model::status::{ContainerStatus, TaskStatus};
use muster_model::task::{Program, Task};
use muster_model::{ContainerId, Duration, OfferId, TaskId, WallTime};
use rkyv::{Archive, Serialize};
use std::sync::Arc;

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

/// Text: the task's id.
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

    /// The messages of checked bytes.
    pub(crate) fn from_wire(archived: &ArchivedBatch<'_>, names: &Reading<'_>) -> Result<Vec<Message>, WireError> {
        let mut rows = Rows::new(archived, names)?;
        let mut messages = Vec::with_capacity(archived.kinds.len());
        for kind in archived.kinds.iter() {
            messages.push(rows.next(kind)?);
        }
        rows.end()?;
        Ok(messages)
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
    let place = match found {
        Some(back) => seen.len() - 1 - back,
        None => {
            seen.push(value);
            list();
            seen.len() - 1
        }
    };
    length(place)
}

fn is_shared(command: &model::task::Command) -> bool {
    let arguments = match &command.program {
        Program::Shell(_) => 0,
        Program::Exec { arguments, .. } => arguments.len(),
    };
    arguments.saturating_add(command.environment.len()) <= SHARED_ARGUMENTS_MAX
}

const fn bad(why: &'static str) -> WireError {
    WireError::BadValue { what: "batch of messages", why }
}

/// The lists of a frame, each as far as it was read.
struct Rows<'a, 'm> {
    names: &'a Reading<'a>,
    others: std::slice::Iter<'a, <NodeMessage<'m> as Archive>::Archived>,
    orders: std::slice::Iter<'a, ArchivedOrder<'m>>,
    tasks: std::slice::Iter<'a, ArchivedTaskRow>,
    acknowledgements: std::slice::Iter<'a, ArchivedAcknowledgeRow>,
    updates: std::slice::Iter<'a, ArchivedUpdateRow>,
    ends: std::slice::Iter<'a, ArchivedEndRow>,
    removals: std::slice::Iter<'a, ArchivedRemovalRow>,
    freed: std::slice::Iter<'a, ArchivedFreedRow>,
    amounts: Vec<model::resource::Resources>,
    /// Each with whether a task has it.
    commands: Vec<(model::task::Command, bool)>,
    texts: &'a str,
    specs: &'a [u8],
}

impl<'a, 'm> Rows<'a, 'm> {
    /// Takes the lists. Memory for the messages is taken after this: each has bytes of its own in a list.
    fn new(archived: &'a ArchivedBatch<'m>, names: &'a Reading<'a>) -> Result<Self, WireError> {
        let rows = [
            archived.others.len(),
            archived.orders.len(),
            archived.acknowledgements.len(),
            archived.updates.len(),
            archived.removals.len(),
            archived.freed.len(),
        ];
        if rows.iter().sum::<usize>() != archived.kinds.len() {
            return Err(bad("its lists are longer or shorter than its list of kinds says"));
        }
        let commands = Vec::<Command>::from_wire(&archived.commands, names)?;
        Ok(Self {
            names,
            others: archived.others.iter(),
            orders: archived.orders.iter(),
            tasks: archived.tasks.iter(),
            acknowledgements: archived.acknowledgements.iter(),
            updates: archived.updates.iter(),
            ends: archived.ends.iter(),
            removals: archived.removals.iter(),
            freed: archived.freed.iter(),
            amounts: Vec::<Resources>::from_wire(&archived.amounts, names)?,
            commands: commands.into_iter().map(|command| (command, false)).collect(),
            texts: archived.texts.as_str(),
            specs: archived.specs.as_slice(),
        })
    }

    fn next(&mut self, kind: &ArchivedKind) -> Result<Message, WireError> {
        Ok(match kind {
            ArchivedKind::Other => NodeMessage::from_wire(row(&mut self.others)?, self.names)?,
            ArchivedKind::Order => Message::ToOwner(ToOwner::Order(Box::new(self.order()?))),
            ArchivedKind::Acknowledge => {
                let row = row(&mut self.acknowledgements)?;
                Message::ToOwner(ToOwner::Acknowledge {
                    framework_id: self.names.get(row.framework_id.to_native())?,
                    home_fence: self.names.fence(row.home_fence.to_native())?,
                    agent_id: self.names.get(row.agent_id.to_native())?,
                    task_id: TaskId::parse(self.text(row.task_bytes.to_native())?)?,
                    uuid: model::Uuid(row.uuid),
                })
            }
            ArchivedKind::Update => Message::ToHome(ToHome::Update(Arc::new(self.update()?))),
            ArchivedKind::TaskRemoved => {
                let row = row(&mut self.removals)?;
                let framework_id = self.names.get(row.framework_id.to_native())?;
                Message::ToHome(ToHome::TaskRemoved {
                    framework_id,
                    task_id: TaskId::parse(self.text(row.task_bytes.to_native())?)?,
                })
            }
            ArchivedKind::Freed => {
                let row = row(&mut self.freed)?;
                Message::ToAllocator(ToAllocator::Freed {
                    agent_id: self.names.get(row.agent_id.to_native())?,
                    framework_id: self.names.get(row.framework_id.to_native())?,
                    role: self.names.get(row.role.to_native())?,
                    resources: self.amount(row.amount.to_native())?,
                })
            }
        })
    }

    fn update(&mut self) -> Result<TaskStatus, WireError> {
        let (row, names) = (row(&mut self.updates)?, self.names);
        let mut status = TaskStatus::new(
            names.get(row.framework_id.to_native())?,
            TaskId::parse(self.text(row.task_bytes.into())?)?,
            TaskState::from_wire(&row.state, names)?,
            Source::from_wire(&row.source, names)?,
            WallTime(row.at.to_native()),
        );
        status.agent_id = Some(names.get(row.agent_id.to_native())?);
        status.executor_id = row.has_executor.then(|| (&status.task_id).into());
        status.uuid = Some(model::Uuid(row.uuid));
        if row.container_bytes > 0 {
            status.container = Some(ContainerStatus {
                container_id: ContainerId::parse(self.text(row.container_bytes.into())?)?,
                ip_addresses: match row.ip_address.to_native() {
                    NO_WORD => Arc::default(),
                    number => names.get(number)?,
                },
                executor_pid: Some(row.executor_pid.to_native()).filter(|pid| *pid != 0),
            });
        }
        if row.has_end {
            let end = self::row(&mut self.ends)?;
            status.message = self.word(end.message.to_native())?;
            status.reason = Option::<Reason>::from_wire(&end.reason, names)?;
            status.exit = Option::<Exit>::from_wire(&end.exit, names)?;
            status.output_bytes = Option::<(u64, u64)>::from_wire(&end.output_bytes, names)?;
        }
        Ok(status)
    }

    fn order(&mut self) -> Result<HomeOrder, WireError> {
        let (row, names) = (row(&mut self.orders)?, self.names);
        let count = usize::try_from(row.tasks.to_native()).unwrap_or(usize::MAX);
        if count > self.tasks.len() {
            return Err(bad("an order has more tasks than are there"));
        }
        let mut tasks = Vec::with_capacity(count);
        for _ in 0..count {
            tasks.push(Arc::new(self.task()?));
        }
        Ok(HomeOrder {
            framework: FrameworkBrief::from_wire(&row.framework, names)?,
            home_fence: names.fence(row.home_fence.to_native())?,
            sequence: row.sequence.to_native(),
            agent_id: names.get(row.agent_id.to_native())?,
            offers: row.offers.iter().map(|id| OfferId { epoch: id.0.to_native(), number: id.1.to_native() }).collect(),
            tasks,
            refusal: row.refusal.as_ref().map(|nanos| Duration(nanos.to_native())),
        })
    }

    fn task(&mut self) -> Result<Task, WireError> {
        let (row, names) = (row(&mut self.tasks)?, self.names);
        let duration = |nanos: u64| Some(Duration(nanos)).filter(|_| nanos != NO_DURATION);
        Ok(Task {
            id: TaskId::parse(self.text(row.id_bytes.into())?)?,
            name: Arc::from(self.text(row.name_bytes.to_native())?),
            framework_id: names.get(row.framework_id.to_native())?,
            agent_id: names.get(row.agent_id.to_native())?,
            role: names.get(row.role.to_native())?,
            resources: self.amount(row.amount.to_native())?,
            command: self.command(row.command.to_native())?,
            kill_grace: duration(row.kill_grace.to_native()),
            completion_time_max: duration(row.completion_time_max.to_native()),
            spec: Arc::from(self.spec(row.spec_bytes.to_native())?),
        })
    }

    fn amount(&self, number: u32) -> Result<model::resource::Resources, WireError> {
        let amount = usize::try_from(number).ok().and_then(|number| self.amounts.get(number));
        amount.cloned().ok_or(bad("the number of an amount is not in its list"))
    }

    fn command(&mut self, number: u32) -> Result<model::task::Command, WireError> {
        let entry = usize::try_from(number).ok().and_then(|number| self.commands.get_mut(number));
        let (command, is_taken) = entry.ok_or(bad("the number of a command is not in its list"))?;
        if std::mem::replace(is_taken, true) && !is_shared(command) {
            return Err(bad("a long command is that of several tasks"));
        }
        Ok(command.clone())
    }

    fn word(&self, number: u32) -> Result<Option<Arc<str>>, WireError> {
        (number != NO_WORD).then(|| self.names.get(number)).transpose()
    }

    /// The next text.
    fn text(&mut self, bytes: u32) -> Result<&'a str, WireError> {
        let parts = usize::try_from(bytes).ok().and_then(|bytes| self.texts.split_at_checked(bytes));
        let (text, rest) = parts.ok_or(bad("a text is longer than what is left, or ends within a character"))?;
        self.texts = rest;
        Ok(text)
    }

    /// The next task's bytes.
    fn spec(&mut self, bytes: u32) -> Result<&'a [u8], WireError> {
        let parts = usize::try_from(bytes).ok().and_then(|bytes| self.specs.split_at_checked(bytes));
        let (spec, rest) = parts.ok_or(bad("a task's bytes are more than are left"))?;
        self.specs = rest;
        Ok(spec)
    }

    /// What is left when all messages are read is nobody's.
    fn end(&self) -> Result<(), WireError> {
        let is_read = self.tasks.len() == 0 && self.ends.len() == 0 && self.texts.is_empty() && self.specs.is_empty();
        if is_read { Ok(()) } else { Err(bad("something is left over when all messages are read")) }
    }
}

/// The next row of a list.
fn row<'a, T>(list: &mut std::slice::Iter<'a, T>) -> Result<&'a T, WireError> {
    list.next().ok_or(bad("a list is shorter than its list of kinds says"))
}
