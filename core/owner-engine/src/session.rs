//! An agent's session: who is let in, who is refused with which words, and what a lost connection means.

use crate::agent::{Link, Ratchet};
use crate::doubt::Doubt;
use crate::engine::{OwnerEngine, Why};
use crate::io::{NOTE_DOUBT, NoteLevel, SessionId};
use crate::limits::CHALLENGE_WAIT;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use muster_model::agent::AgentInfo;
use muster_model::agent_message::{FromAgent, Hello, ToAgent, Welcome};
use muster_model::fence::Fence;
use muster_model::node_message::ToAllocator;
use muster_model::offer::RescindReason;
use muster_model::record::Admission;
use muster_model::time::Now;
use muster_model::view::Presence;
use muster_model::{AgentId, ShardId, Uuid};

/// Why a session is refused. The text goes to the agent's log and its operator.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SessionRefusal {
    /// The agent's shard is another node's.
    #[error("this node does not own shard {shard} of agent {agent_id}; connect to another node")]
    NotOwner {
        /// Its shard.
        shard: ShardId,
        /// The agent.
        agent_id: AgentId,
    },
    /// The certificate is good but the store has no such agent.
    #[error(
        "agent {agent_id} has a valid certificate but no record; its tasks run on, an operator must admit it again"
    )]
    NoRecord {
        /// The agent.
        agent_id: AgentId,
    },
    /// Hello names another agent than the certificate.
    #[error(
        "the certificate is agent {certified}'s but the machine says it is agent {claimed}; join again with a token"
    )]
    OtherAgent {
        /// In the certificate.
        certified: AgentId,
        /// In Hello.
        claimed: AgentId,
    },
    /// The certificate is not the recorded one.
    #[error("agent {agent_id} has a newer certificate than the one shown; join again with a token")]
    OldCertificate {
        /// The agent.
        agent_id: AgentId,
    },
    /// An operator revoked the certificate.
    #[error("the certificate of agent {agent_id} is revoked; join again with a new token")]
    Revoked {
        /// The agent.
        agent_id: AgentId,
    },
    /// An operator gave the agent up.
    #[error(
        "agent {agent_id} was marked gone and can't come back; remove its work directory and join again with a token"
    )]
    Gone {
        /// The agent.
        agent_id: AgentId,
    },
    /// It has journalled a fence above ours: we are deposed, or it is corrupt.
    #[error(
        "agent {agent_id} claims fence {claimed} but this owner's is {ours}; it gets no orders until that is explained"
    )]
    FenceAbove {
        /// The agent.
        agent_id: AgentId,
        /// Its claim.
        claimed: Fence,
        /// Ours.
        ours: Fence,
    },
    /// A live session of the agent has a newer token.
    #[error(
        "agent {agent_id} has a live session from {other} with a newer token: this machine is a copy of it, or its disk \
         was rolled back; remove its work directory and join again unless it is the only one"
    )]
    Clone {
        /// The agent.
        agent_id: AgentId,
        /// Where the live session comes from.
        other: Arc<str>,
    },
}

impl SessionRefusal {
    /// Whether coming again can help.
    pub const fn may_retry(&self) -> bool {
        match self {
            Self::NotOwner { .. } | Self::NoRecord { .. } | Self::FenceAbove { .. } | Self::Clone { .. } => true,
            Self::OtherAgent { .. } | Self::OldCertificate { .. } | Self::Revoked { .. } | Self::Gone { .. } => false,
        }
    }

    const fn level(&self) -> NoteLevel {
        match self {
            Self::FenceAbove { .. } | Self::Clone { .. } => NoteLevel::Error,
            Self::NoRecord { .. } | Self::OtherAgent { .. } | Self::OldCertificate { .. } => NoteLevel::Warn,
            Self::NotOwner { .. } | Self::Revoked { .. } | Self::Gone { .. } => NoteLevel::Info,
        }
    }
}

impl OwnerEngine {
    pub(crate) fn open_session(
        &mut self,
        session: SessionId,
        agent_id: AgentId,
        certificate: [u8; 32],
        peer: Arc<str>,
        hello: Hello,
        now: Now,
    ) {
        if self.sessions.contains_key(&session) {
            self.outbox.note(NoteLevel::Warn, Some(&agent_id), "a second hello on one session ignored", "");
            return;
        }
        if let Err(refusal) = self.admit(&agent_id, &certificate, &hello) {
            self.refuse_session(session, &agent_id, &refusal, now);
            return;
        }
        if let Some(old) = self.agents.get(&agent_id).and_then(|agent| agent.session()) {
            self.outbox.close(old, "replaced by a newer session of the same agent");
            self.end_session(old, "replaced by a newer session", now);
        }
        self.greet(session, &agent_id, peer, hello, now);
    }

    fn admit(&self, agent_id: &AgentId, certificate: &[u8; 32], hello: &Hello) -> Result<(), SessionRefusal> {
        let agent_id = agent_id.clone();
        let shard = ShardId::of(&agent_id, self.config.shard_count);
        let Some(taken) = self.shards.get(&shard) else {
            return Err(SessionRefusal::NotOwner { shard, agent_id });
        };
        let Some(agent) = self.agents.get(&agent_id) else { return Err(SessionRefusal::NoRecord { agent_id }) };
        if hello.agent_id != agent_id {
            return Err(SessionRefusal::OtherAgent { certified: agent_id, claimed: hello.agent_id.clone() });
        }
        match agent.record.admission {
            Admission::Gone { .. } => return Err(SessionRefusal::Gone { agent_id }),
            Admission::Active | Admission::Unreachable { .. } => {}
        }
        if agent.record.is_revoked {
            return Err(SessionRefusal::Revoked { agent_id });
        }
        if agent.record.certificate != *certificate {
            return Err(SessionRefusal::OldCertificate { agent_id });
        }
        if hello.highest_fence > taken.fence {
            return Err(SessionRefusal::FenceAbove { agent_id, claimed: hello.highest_fence, ours: taken.fence });
        }
        match (&agent.ratchet, agent.session()) {
            (Some(ratchet), Some(_)) if !ratchet.accepts(hello.ratchet_token) => {
                let other = agent.peer.clone().unwrap_or_else(|| Arc::from("an unknown address"));
                Err(SessionRefusal::Clone { agent_id, other })
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    fn refuse_session(&mut self, session: SessionId, agent_id: &AgentId, refusal: &SessionRefusal, now: Now) {
        let why: Arc<str> = Arc::from(format!("{refusal}"));
        self.outbox.note(refusal.level(), Some(agent_id), "an agent's session was refused", why.clone());
        self.outbox.agent(session, ToAgent::Refused { why: why.clone(), may_retry: refusal.may_retry() });
        self.outbox.close(session, why);
        match refusal {
            SessionRefusal::Clone { .. } => self.challenge(agent_id, now),
            // It lives and says so; only orders to it stop.
            SessionRefusal::FenceAbove { .. } => self.heard(agent_id, now),
            SessionRefusal::NotOwner { .. }
            | SessionRefusal::NoRecord { .. }
            | SessionRefusal::OtherAgent { .. }
            | SessionRefusal::OldCertificate { .. }
            | SessionRefusal::Revoked { .. }
            | SessionRefusal::Gone { .. } => {}
        }
    }

    /// Asks the live session to show that it lives, since another connection says that it is the agent.
    fn challenge(&mut self, agent_id: &AgentId, now: Now) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        if agent.alarms.contains_key(&Why::SessionChallenged) {
            return;
        }
        agent.want_picture(&mut self.outbox);
        self.timers.set(agent, Why::SessionChallenged, now.mono.after(CHALLENGE_WAIT));
        let detail = format!(
            "{} has the current token and was asked for its picture",
            agent.peer.as_deref().unwrap_or("the live session")
        );
        self.outbox.note(NoteLevel::Error, Some(agent_id), "two machines claim to be one agent", detail);
    }

    /// Closes an agent's session, whichever it is, and says why.
    pub(crate) fn give_up_session(&mut self, agent_id: &AgentId, why: &'static str, now: Now) {
        if let Some(session) = self.agents.get(agent_id).and_then(|agent| agent.session()) {
            self.outbox.close(session, why);
            self.end_session(session, why, now);
        }
    }

    /// Restarts the count of silence of an agent that has no session.
    fn heard(&mut self, agent_id: &AgentId, now: Now) {
        self.unwatch(agent_id);
        if let Some(agent) = self.agents.get_mut(agent_id) {
            agent.silent_since = (now.mono, now.wall);
        }
        self.watch(agent_id);
    }

    fn greet(&mut self, session: SessionId, agent_id: &AgentId, peer: Arc<str>, hello: Hello, now: Now) {
        let next_token = Uuid::from_random(self.rng.bytes16());
        self.unwatch(agent_id);
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        let unlike = agent.ratchet.as_ref().filter(|ratchet| !ratchet.accepts(hello.ratchet_token));
        agent.is_token_old = unlike.is_some();
        if let Some(ratchet) = unlike {
            let detail = format!("token {:?} shown, {} was given last", hello.ratchet_token, ratchet.given);
            self.outbox.note(NoteLevel::Warn, Some(agent_id), "an agent came back with an older token", detail);
        }
        if hello.journal_position < agent.journal_seen {
            let why: Arc<str> = Arc::from(format!(
                "its journal ends at byte {} but byte {} was seen before: the disk was rolled back",
                hello.journal_position, agent.journal_seen
            ));
            let doubt = Doubt::RolledBack { why };
            self.outbox.note(NoteLevel::Error, Some(agent_id), NOTE_DOUBT, doubt.in_words(agent_id));
            // What the agent itself refuses no operator can allow.
            if !matches!(agent.doubt, Some(Doubt::Refuses { .. })) {
                agent.doubt = Some(doubt);
            }
        }
        agent.journal_shown = hello.journal_position;
        agent.journal_seen = agent.journal_seen.max(hello.journal_position);
        agent.ratchet = Some(Ratchet { given: next_token, shown: hello.ratchet_token, is_confirmed: false });
        agent.is_back = agent.has_reported || hello.ratchet_token.is_some();
        agent.link = Link::Greeted { session, before: agent.presence() };
        agent.silent_since = (now.mono, now.wall);
        agent.peer = Some(peer);
        agent.report = None;
        // The picture follows the Welcome without being asked for.
        agent.is_picture_asked = true;
        let fence = agent.fence;
        self.sessions.insert(session, agent_id.clone());
        self.timers.set(agent, Why::PictureAwaited, now.mono.after(self.config.agent_timeout));
        self.take_info(agent_id, hello.info);
        let report_interval = self.config.report_interval;
        self.outbox.agent(session, ToAgent::Welcome(Welcome { fence, report_interval, standby: None, next_token }));
        self.shown.touch(agent_id);
    }

    pub(crate) fn move_peer(&mut self, session: SessionId, peer: Arc<str>) {
        let Some(agent_id) = self.sessions.get(&session) else { return };
        if let Some(agent) = self.agents.get_mut(agent_id) {
            agent.peer = Some(peer);
            self.shown.touch(agent_id);
        }
    }

    pub(crate) fn session_closed(&mut self, session: SessionId, why: &str, now: Now) {
        self.end_session(session, why, now);
    }

    /// A session is over: no task changes, open offers are void, silence counts.
    pub(crate) fn end_session(&mut self, session: SessionId, why: &str, now: Now) {
        let Some(agent_id) = self.sessions.remove(&session) else { return };
        let Some(agent) = self.agents.get_mut(&agent_id) else { return };
        let was_connected = agent.connected().is_some();
        agent.link = match &agent.link {
            Link::Greeted { before: Presence::Recovered, .. } => Link::Recovered,
            Link::Recovered | Link::Disconnected { .. } | Link::Greeted { .. } | Link::Connected { .. } => {
                Link::Disconnected { since: now.wall }
            }
        };
        agent.silent_since = (now.mono, now.wall);
        agent.held = None;
        self.timers.clear_all(agent);
        agent.is_picture_asked = false;
        if was_connected {
            for grant in agent.book.close_all() {
                self.grants.remove(&grant.framework_id, &agent_id, grant.offer_id);
            }
            // The book, since it carries our fence: said by a deposed owner that wakes up late it takes no offers away.
            self.outbox.allocator(ToAllocator::Agent(agent.to_book()));
        }
        self.outbox.note(NoteLevel::Info, Some(&agent_id), "an agent's session ended", String::from(why));
        self.watch(&agent_id);
        self.shown.touch(&agent_id);
    }

    pub(crate) fn hear_agent(&mut self, session: SessionId, message: FromAgent, now: Now) {
        let Some(agent_id) = self.sessions.get(&session).cloned() else {
            // The session was closed from here; what was on its way is void.
            return;
        };
        if let Some(agent) = self.agents.get_mut(&agent_id) {
            self.timers.clear(agent, Why::SessionChallenged);
        }
        match message {
            FromAgent::Hello(_) => {
                self.outbox.note(NoteLevel::Warn, Some(&agent_id), "a second hello on one session ignored", "");
            }
            FromAgent::Picture(picture) => self.take_picture(&agent_id, picture, now),
            FromAgent::Updates(updates) => self.take_updates(&agent_id, updates, now),
            FromAgent::OrdersTaken { fence, floor, refused } => {
                self.orders_taken(&agent_id, fence, floor, refused, now);
            }
            FromAgent::Report(report) => {
                let Some(agent) = self.agents.get_mut(&agent_id) else { return };
                let is_newer = agent.report.as_ref().is_none_or(|(_, last)| last.sequence < report.sequence);
                if is_newer {
                    agent.take_report(report, now.wall);
                    self.shown.touch(&agent_id);
                }
            }
            FromAgent::InfoChanged(info) => self.take_info(&agent_id, info),
            FromAgent::StandBy { .. } => {
                self.outbox.note(NoteLevel::Warn, Some(&agent_id), "an agent stands by in its own session", "");
            }
        }
    }

    /// Takes what the agent says of itself; other totals void the open grants.
    fn take_info(&mut self, agent_id: &AgentId, info: Arc<AgentInfo>) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        if agent.info == info {
            return;
        }
        let has_other_total = agent.info.total != info.total;
        agent.info = info;
        self.shown.touch(agent_id);
        if has_other_total {
            agent.book.set_total(agent.info.total.clone());
            self.void_grants(agent_id, Some(RescindReason::AgentChanged));
        }
        if let Some(agent) = self.agents.get(agent_id).filter(|agent| agent.connected().is_some()) {
            self.outbox.allocator(ToAllocator::Agent(agent.to_book()));
        }
    }
}

impl Ratchet {
    /// Whether a Hello with this token is the agent's that the last Welcome went to, or the agent missed that Welcome.
    fn accepts(&self, token: Option<Uuid>) -> bool {
        token == Some(self.given) || (!self.is_confirmed && token == self.shown)
    }
}
