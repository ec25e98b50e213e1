//! What the owner has decided and the shell has not yet fetched, in the order in which it must be performed.

use crate::io::{Note, NoteLevel, Output, SessionId};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use muster_model::agent_message::ToAgent;
use muster_model::node_message::{NodeMessage, Target, ToAllocator, ToHome};
use muster_model::status::TaskStatus;
use muster_model::{AgentId, FrameworkId};

/// A queue of outputs; the shell empties it after each input, so one input's consequences bound it.
#[derive(Debug, Default)]
pub(crate) struct Outbox(VecDeque<Output>);

impl Outbox {
    pub(crate) fn pop(&mut self) -> Option<Output> {
        self.0.pop_front()
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.0.push_back(output);
    }

    pub(crate) fn agent(&mut self, session: SessionId, message: ToAgent) {
        self.push(Output::ToAgent { session, message });
    }

    pub(crate) fn close(&mut self, session: SessionId, why: impl Into<Arc<str>>) {
        self.push(Output::CloseSession { session, why: why.into() });
    }

    pub(crate) fn home(&mut self, framework_id: &FrameworkId, message: ToHome) {
        self.push(Output::Send { to: Target::HomeOf(framework_id.clone()), message: NodeMessage::ToHome(message) });
    }

    /// Tells a status to the home of its framework.
    pub(crate) fn update(&mut self, status: impl Into<Arc<TaskStatus>>) {
        let status = status.into();
        let to = Target::HomeOf(status.framework_id.clone());
        self.push(Output::Send { to, message: NodeMessage::ToHome(ToHome::Update(status)) });
    }

    pub(crate) fn homes(&mut self, message: ToHome) {
        self.push(Output::Send { to: Target::AllHomes, message: NodeMessage::ToHome(message) });
    }

    pub(crate) fn allocator(&mut self, message: ToAllocator) {
        self.push(Output::Send { to: Target::Allocator, message: NodeMessage::ToAllocator(message) });
    }

    pub(crate) fn note(
        &mut self,
        level: NoteLevel,
        agent_id: Option<&AgentId>,
        what: &'static str,
        detail: impl Into<Arc<str>>,
    ) {
        self.push(Output::Note(Note { level, agent_id: agent_id.cloned(), what, detail: detail.into() }));
    }
}
