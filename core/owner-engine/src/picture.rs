//! An agent's picture: from it the book and the tasks are rebuilt, and orders whose outcome was lost are settled.
//!
//! A task that the picture lacks does not run: unless its order is on its way under the same fence, it is told as
//! dropped (never seen there) or gone. An agent that counts as unreachable is let back by a write first.

use crate::agent::{Agent, Link};
use crate::book::Held;
use crate::engine::{OwnerEngine, Why};
use crate::framework::Framework;
use crate::io::NoteLevel;
use crate::limits::{ENDING_WAIT, ENDING_WAIT_MAX, TASKS_PER_AGENT_MAX, WRITE_RETRY};
use crate::task::{Entry, TaskKey};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::agent_message::{OrderKind, Picture, PictureTask};
use muster_model::node_message::{ToAllocator, ToHome};
use muster_model::offer::RescindReason;
use muster_model::record::Admission;
use muster_model::status::Reason;
use muster_model::task::TaskState;
use muster_model::time::Now;
use muster_model::view::TaskView;
use muster_model::{AgentId, FrameworkId, TaskId};

/// Whether a picture is the first of its session, and what the agent was before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Occasion {
    /// The answer to a Welcome.
    Session,
    /// The same, of an agent that counted as unreachable.
    Return,
    /// Asked for while connected.
    Asked,
}

/// What a picture leaves to be said once the book is rebuilt.
#[derive(Debug, Default)]
struct Findings {
    /// Tasks that are there, per framework.
    tasks: BTreeMap<FrameworkId, Vec<(TaskId, AgentId)>>,
    /// Removed ones among them.
    to_shut_down: BTreeSet<FrameworkId>,
    /// Tasks that are not there any more.
    missing: Vec<TaskKey>,
    /// Updates that the framework has not been sent by this owner.
    unsent: Vec<TaskKey>,
}

impl OwnerEngine {
    pub(crate) fn take_picture(&mut self, agent_id: &AgentId, picture: Picture, now: Now) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        if picture.fence != agent.fence {
            let detail = format!("it answers fence {}, ours is {}", picture.fence, agent.fence);
            self.outbox.note(NoteLevel::Warn, Some(agent_id), "a picture for another fence ignored", detail);
            return;
        }
        agent.is_picture_asked = false;
        self.timers.clear(agent, Why::PictureAwaited);
        agent.held = Some(picture);
        self.settle_picture(agent_id, now);
    }

    /// Applies a picture that is held, once the record allows it.
    pub(crate) fn settle_picture(&mut self, agent_id: &AgentId, now: Now) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        if agent.write.is_some() || agent.held.is_none() {
            return;
        }
        match agent.record.admission {
            Admission::Active => {
                let occasion = match agent.link {
                    Link::Connected { .. } => Occasion::Asked,
                    Link::Greeted { .. } if agent.is_returning => Occasion::Return,
                    Link::Greeted { .. } => Occasion::Session,
                    Link::Recovered | Link::Disconnected { .. } => return,
                };
                if let Some(picture) = agent.held.take() {
                    self.apply_picture(agent_id, picture, occasion, now);
                }
            }
            Admission::Unreachable { .. } => {
                if self.store.may_write(now.mono) {
                    self.write_admission(agent_id, Admission::Active);
                } else {
                    let due = self.store.retry_at.max(now.mono.after(WRITE_RETRY));
                    self.timers.set(agent, Why::StoreRetry, due);
                }
            }
            Admission::Gone { .. } => agent.held = None,
        }
    }

    fn apply_picture(&mut self, agent_id: &AgentId, picture: Picture, occasion: Occasion, now: Now) {
        self.meet_frameworks_of(&picture);
        let held_before = self.agents.get(agent_id).map(|agent| agent.book.held().clone()).unwrap_or_default();
        let findings = self.rebuild(agent_id, picture, occasion, now);
        let is_first = match occasion {
            Occasion::Session | Occasion::Return => true,
            Occasion::Asked => false,
        };
        if is_first {
            self.connect(agent_id, now);
        }
        if is_first {
            for (framework_id, tasks) in findings.tasks {
                self.tell_home_tasks(framework_id, tasks);
            }
        }
        for key in &findings.missing {
            self.task_is_missing(agent_id, key, now);
        }
        self.settle_undecided(agent_id, now);
        match occasion {
            Occasion::Return => self.tell_return(agent_id, now),
            Occasion::Session | Occasion::Asked => {}
        }
        match occasion {
            Occasion::Session | Occasion::Return => {
                if let Some(agent) = self.agents.get(agent_id) {
                    self.outbox.allocator(ToAllocator::Agent(agent.to_book()));
                }
            }
            Occasion::Asked => self.tell_changed_use(agent_id, &held_before),
        }
        if is_first {
            self.resend_orders(agent_id);
            self.send_remembered_kills(agent_id, now);
        }
        for framework_id in &findings.to_shut_down {
            self.shut_down(framework_id, agent_id);
        }
        for key in findings.unsent {
            let agent = self.agents.get(agent_id);
            let pending = agent.and_then(|agent| agent.tasks.get(&key)).and_then(|entry| entry.pending.clone());
            if let Some(status) = pending {
                self.outbox.update(status);
            }
        }
        self.plan_ending_look(agent_id, now);
        self.shown.touch(agent_id);
    }

    fn meet_frameworks_of(&mut self, picture: &Picture) {
        for brief in &picture.frameworks {
            if !self.removed.contains(&brief.id) && !self.frameworks.contains_key(&brief.id) {
                self.frameworks.insert(brief.id.clone(), Framework::new(brief.clone()));
            }
        }
    }

    /// Makes book and tasks say what the picture says.
    fn rebuild(&mut self, agent_id: &AgentId, picture: Picture, occasion: Occasion, now: Now) -> Findings {
        let mut findings = Findings::default();
        let Some(agent) = self.agents.get_mut(agent_id) else { return findings };
        let is_resent = occasion == Occasion::Asked || agent.may_resend_launches();
        let mut before = core::mem::take(&mut agent.tasks);
        let was_ending = core::mem::take(&mut agent.ending);
        agent.book.release_all();
        for key in before.keys() {
            self.tasks.remove(key, agent_id);
        }
        for reported in picture.tasks {
            let key = (reported.task.framework_id.clone(), reported.task.id.clone());
            if self.removed.contains(&key.0) {
                before.remove(&key);
                if !reported.latest.is_terminal() {
                    agent.book.hold(key.clone(), reported.task.role.clone(), reported.task.resources.clone());
                    agent.ending.insert(key.clone());
                }
                // Under the same session it has the order already.
                if occasion != Occasion::Asked || !was_ending.contains(&key) {
                    findings.to_shut_down.insert(key.0);
                }
                continue;
            }
            if agent.tasks.len() >= TASKS_PER_AGENT_MAX {
                agent.book.hold(key.clone(), reported.task.role.clone(), reported.task.resources.clone());
                self.outbox.note(
                    NoteLevel::Error,
                    Some(agent_id),
                    "too many tasks: charged and not shown",
                    format!("{}", key.1),
                );
                continue;
            }
            let known = before.remove(&key);
            let lost = self.shown.take_lost(&key, agent_id);
            if let Some(entry) = merge(agent, &key, known, lost, reported, &mut findings, &mut self.outbox, now) {
                if self.tasks.add(&key, agent_id) > 1 {
                    let detail = format!("task {} of framework {}", key.1, key.0);
                    self.outbox.note(NoteLevel::Warn, Some(agent_id), "a task is active on two agents", detail);
                }
                findings.tasks.entry(key.0.clone()).or_default().push((key.1.clone(), agent_id.clone()));
                agent.tasks.insert(key, entry);
            }
        }
        for (key, entry) in before {
            let is_on_its_way = entry.order.is_some_and(|sequence| agent.flight.contains_key(&sequence));
            if is_resent && is_on_its_way && !entry.state().is_terminal() {
                let task = &entry.view.task;
                agent.book.hold(key.clone(), task.role.clone(), task.resources.clone());
            } else {
                findings.missing.push(key.clone());
            }
            self.tasks.add(&key, agent_id);
            agent.tasks.insert(key, entry);
        }
        // A removed framework's launch that is on its way is followed by its shutdown: charged until both are taken.
        let has_shutdown: BTreeSet<_> = agent
            .flight
            .values()
            .filter_map(|flight| match &flight.what {
                OrderKind::ShutdownFramework { framework_id } => Some(framework_id.clone()),
                OrderKind::Launch { .. } | OrderKind::Kill { .. } => None,
            })
            .collect();
        for flight in agent.flight.values().filter(|_| is_resent) {
            let OrderKind::Launch { framework, tasks } = &flight.what else { continue };
            for task in tasks {
                let key = (task.framework_id.clone(), task.id.clone());
                if was_ending.contains(&key) && !agent.book.holds(&key) {
                    agent.book.hold(key.clone(), task.role.clone(), task.resources.clone());
                    agent.ending.insert(key);
                    if !has_shutdown.contains(&framework.id) {
                        findings.to_shut_down.insert(framework.id.clone());
                    }
                }
            }
        }
        if agent.book.is_overdrawn() {
            // More runs than was known: what was granted meanwhile may be in use.
            self.void_grants(agent_id, Some(RescindReason::AgentChanged));
        }
        findings
    }

    fn connect(&mut self, agent_id: &AgentId, now: Now) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        let Some(session) = agent.session() else { return };
        agent.link = Link::Connected { session };
        agent.is_returning = false;
        if agent.is_back {
            agent.reregistered = Some(now.wall);
        }
        agent.has_reported = true;
        if let Some(ratchet) = &mut agent.ratchet {
            // It journalled the Welcome before it sent the picture.
            ratchet.is_confirmed = true;
        }
        self.unreported.remove(agent_id);
        self.outbox.note(
            NoteLevel::Info,
            Some(agent_id),
            "an agent is connected",
            String::from(agent.peer.as_deref().unwrap_or("")),
        );
    }

    fn tell_home_tasks(&mut self, framework_id: FrameworkId, tasks: Vec<(TaskId, AgentId)>) {
        let Some(home_fence) = self.frameworks.get(&framework_id).and_then(|framework| framework.home_fence) else {
            // It learns of them when it fences.
            return;
        };
        let owner = self.config.node.clone();
        let home = framework_id.clone();
        self.outbox.home(&home, ToHome::FrameworkTasks { framework_id, home_fence, owner, tasks });
    }

    /// While the agent is connected grants may be on their way, so the whole book is told only when more is in use.
    fn tell_changed_use(&mut self, agent_id: &AgentId, before: &BTreeMap<TaskKey, Held>) {
        let Some(agent) = self.agents.get(agent_id) else { return };
        let after = agent.book.held();
        if after.iter().any(|(key, held)| before.get(key) != Some(held)) {
            self.outbox.allocator(ToAllocator::Agent(agent.to_book()));
            return;
        }
        for (key, held) in before.iter().filter(|(key, _)| !after.contains_key(*key)) {
            self.outbox.allocator(ToAllocator::Freed {
                agent_id: agent_id.clone(),
                framework_id: key.0.clone(),
                role: held.role.clone(),
                resources: held.resources.clone(),
            });
        }
    }

    fn task_is_missing(&mut self, agent_id: &AgentId, key: &TaskKey, now: Now) {
        let entry = self.agents.get(agent_id).and_then(|agent| agent.tasks.get(key));
        let state = match entry.map(Entry::state) {
            None => return,
            Some(TaskState::Staging) => TaskState::Dropped,
            Some(_) => TaskState::Gone,
        };
        let message = String::from("Reconciliation: Task is unknown to the agent");
        self.drop_task(key, agent_id, (state, Reason::Reconciliation, message), now);
    }

    /// The tasks of an agent that counted as unreachable are there again.
    fn tell_return(&mut self, agent_id: &AgentId, now: Now) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        for entry in agent.tasks.values_mut() {
            // The end of one that ended meanwhile comes through its stream.
            if !entry.state().is_terminal() {
                entry.happened(now.wall, "its agent came back");
                let message = "Unreachable agent re-reregistered";
                let status = entry.retold(Reason::AgentReregistered, message, now.wall);
                self.outbox.update(status);
            }
        }
        for view in self.shown.take_all_lost_on(agent_id) {
            let mut entry = Entry::seen(view);
            if !entry.state().is_terminal() {
                Arc::make_mut(&mut entry.view).state = TaskState::Gone;
            }
            entry.happened(now.wall, "its agent came back without it");
            self.shown.complete(entry.view);
        }
    }

    /// Sends again, in order, what was sent under this fence and is not known to be taken.
    fn resend_orders(&mut self, agent_id: &AgentId) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        let may_resend_launches = agent.may_resend_launches();
        let Agent { flight, tasks, ending, .. } = agent;
        flight.retain(|sequence, flight| match &flight.what {
            OrderKind::Launch { .. } if !may_resend_launches => false,
            OrderKind::Launch { tasks: launched, .. } => {
                launched.is_empty()
                    || launched.iter().any(|task| {
                        let key = (task.framework_id.clone(), task.id.clone());
                        ending.contains(&key) || tasks.get(&key).is_some_and(|entry| entry.order == Some(*sequence))
                    })
            }
            OrderKind::Kill { .. } | OrderKind::ShutdownFramework { .. } => true,
        });
        for flight in agent.flight.values_mut() {
            flight.is_resent = true;
        }
        let sequences: Vec<_> = agent.flight.keys().copied().collect();
        for sequence in sequences {
            agent.send_flight(sequence, &mut self.outbox);
        }
    }

    pub(crate) fn send_remembered_kills(&mut self, agent_id: &AgentId, now: Now) {
        let Some(agent) = self.agents.get_mut(agent_id).filter(|agent| !agent.is_draining) else { return };
        for key in core::mem::take(&mut agent.kills) {
            if let Some(entry) = agent.tasks.get_mut(&key).filter(|entry| !entry.state().is_terminal()) {
                entry.happened(now.wall, "kill sent to the agent, which is back");
                let (framework_id, task_id) = key;
                agent.order(OrderKind::Kill { framework_id, task_id, grace: None }, &mut self.outbox);
            }
        }
    }

    /// Plans to look whether tasks of removed frameworks have ended: the agent says nothing about them by itself.
    pub(crate) fn plan_ending_look(&mut self, agent_id: &AgentId, now: Now) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        if agent.ending.is_empty() || agent.connected().is_none() {
            agent.ending_wait = None;
            self.timers.clear(agent, Why::EndingAwaited);
            return;
        }
        if agent.alarms.contains_key(&Why::EndingAwaited) {
            return;
        }
        let wait = match agent.ending_wait {
            Some(last) => last.doubled().min(ENDING_WAIT_MAX),
            None => ENDING_WAIT,
        };
        agent.ending_wait = Some(wait);
        self.timers.set(agent, Why::EndingAwaited, now.mono.after(wait));
    }

    pub(crate) fn look_at_ending(&mut self, agent_id: &AgentId) {
        if let Some(agent) = self.agents.get_mut(agent_id).filter(|agent| !agent.ending.is_empty()) {
            agent.want_picture(&mut self.outbox);
        }
    }
}

/// One reported task joined with what was known of it. `None`: the framework has its end, the agent is told so again.
#[expect(clippy::too_many_arguments, reason = "one step of a loop that holds all of them apart")]
fn merge(
    agent: &mut Agent,
    key: &TaskKey,
    known: Option<Entry>,
    lost: Option<Arc<TaskView>>,
    mut reported: PictureTask,
    findings: &mut Findings,
    outbox: &mut crate::outbox::Outbox,
    now: Now,
) -> Option<Entry> {
    if let Some(pending) = &mut reported.pending {
        pending.agent_id = Some(agent.id().clone());
        let uuid = pending.uuid.filter(|uuid| agent.is_acknowledged(key, *uuid));
        if let Some(uuid) = uuid {
            // `connect` comes later on a new session: acknowledge on whichever session there is.
            if let Some(session) = agent.session() {
                outbox.agent(
                    session,
                    muster_model::agent_message::ToAgent::AcknowledgeUpdate {
                        fence: agent.fence,
                        framework_id: key.0.clone(),
                        task_id: key.1.clone(),
                        uuid,
                    },
                );
            }
            if pending.state.is_terminal() {
                return None;
            }
            let told = reported.pending.take();
            reported.acknowledged.extend(told);
        }
    }
    let mut entry = match (known, lost) {
        (Some(entry), _) => entry,
        (None, Some(view)) => {
            let mut entry = Entry::seen(view);
            Arc::make_mut(&mut entry.view).state = TaskState::Staging;
            entry
        }
        (None, None) => {
            let mut entry = Entry::reported(reported.task.clone());
            entry.happened(now.wall, format!("reported by its agent as {}", reported.latest.as_str()));
            entry
        }
    };
    let sent_before = entry.pending_uuid();
    entry.take_picture(reported);
    if entry.pending.is_some() && entry.pending_uuid() != sent_before {
        findings.unsent.push(key.clone());
    }
    if !entry.state().is_terminal() {
        let task = &entry.view.task;
        agent.book.hold(key.clone(), task.role.clone(), task.resources.clone());
    }
    Some(entry)
}
