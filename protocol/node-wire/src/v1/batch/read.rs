//! From the lists of a checked batch back to its messages.

use super::{
    ArchivedAcknowledgeRow, ArchivedBatch, ArchivedEndRow, ArchivedFreedRow, ArchivedKind, ArchivedOrder,
    ArchivedRemovalRow, ArchivedTaskRow, ArchivedUpdateRow, Batch, NO_DURATION, NO_WORD, is_shared,
};
use crate::WireError;
use crate::v1::Mirror;
use crate::v1::name::Reading;
use crate::v1::node_message::NodeMessage;
use crate::v1::noun::{Command, FrameworkBrief, TaskState};
use crate::v1::resource::Resources;
use crate::v1::status::{Exit, Reason, Source};
use muster_model as model;
use muster_model::node_message::{HomeOrder, NodeMessage as Message, ToAllocator, ToHome, ToOwner};
use muster_model::status::{ContainerStatus, TaskStatus};
use muster_model::task::Task;
use muster_model::{ContainerId, Duration, OfferId, TaskId, WallTime};
use rkyv::Archive;
use std::sync::Arc;

impl Batch<'_> {
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

const fn bad(why: &'static str) -> WireError {
    WireError::BadValue { what: "batch of messages", why }
}
