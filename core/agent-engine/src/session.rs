//! The session with the owner: hello, welcome, fence on disk, picture; then orders, updates and acknowledgements. Which
//! connection carries it is `route.rs`'s.

use crate::engine::AgentEngine;
use crate::io::{ConnectionId, Output};
use crate::limits::{HELD_ORDERS_MAX, JOURNAL_RETRY};
use crate::order::Orders;
use crate::route::Place;
use crate::task::TaskKey;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::agent_message::{FromAgent, Hello, Order, Picture, PictureTask, ToAgent, Welcome};
use muster_model::fence::Fence;
use muster_model::record::{IdentityRecord, JournalEntry};
use muster_model::time::Now;
use muster_model::{Duration, FrameworkId, Timestamp, Uuid};

/// How far the session is.
#[derive(Clone, Debug, Default)]
enum Phase {
    /// There is no connection that Hello was said on.
    #[default]
    Closed,
    /// Hello was said.
    Greeting,
    /// The owner's fence is being journalled.
    Fencing {
        /// How often to report use.
        report_interval: Duration,
        /// What is written.
        identity: IdentityRecord,
        /// The write under way; absent while a failed one waits.
        write: Option<u64>,
        /// When it is written again.
        retry_at: Option<Timestamp>,
    },
    /// The fence is journalled; orders of earlier ones are still being written.
    Settling {
        /// How often to report use.
        report_interval: Duration,
    },
    /// The picture was sent: the owner may order.
    Active,
}

/// The session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    phase: Phase,
    /// The highest fence that was ever to be journalled in this run.
    claimed: Fence,
    /// Orders that came before the fence was journalled.
    held: Vec<Order>,
    is_picture_wanted: bool,
}

impl Session {
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Active)
    }

    /// When a failed write of the identity is to be tried again.
    pub(crate) fn retry_at(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Fencing { retry_at, .. } => *retry_at,
            Phase::Closed | Phase::Greeting | Phase::Settling { .. } | Phase::Active => None,
        }
    }

    /// The owner should see the picture again.
    pub(crate) fn want_picture(&mut self) {
        self.is_picture_wanted = true;
    }
}

impl AgentEngine {
    /// Says hello on the connection that is to be the session.
    pub(crate) fn greet(&mut self) {
        self.end_session();
        self.session.phase = Phase::Greeting;
        self.send(FromAgent::Hello(Hello {
            agent_id: self.identity.agent_id.clone(),
            boot_id: self.config.boot_id,
            incarnation: self.config.incarnation,
            highest_fence: self.identity.highest_fence,
            journal_position: self.journal_position,
            ratchet_token: self.identity.ratchet_token,
            info: self.info.clone(),
        }));
    }

    /// Nothing can be said any more; what is not acknowledged is said again in the next session.
    pub(crate) fn end_session(&mut self) {
        self.session.phase = Phase::Closed;
        self.session.held.clear();
        self.session.is_picture_wanted = false;
        self.sendable.clear();
        for task in self.tasks.values_mut() {
            task.updates.forget_sent();
        }
    }

    pub(crate) fn hear(&mut self, connection: ConnectionId, message: ToAgent, now: Now) {
        match self.route.place_of(connection) {
            Some(Place::Main) if self.route.session().is_some() => self.hear_owner(message, now),
            Some(Place::Spare) => self.hear_standby(message, now),
            Some(Place::Main) | None => self.note("a message outside a session is ignored", String::new()),
        }
    }

    fn hear_owner(&mut self, message: ToAgent, now: Now) {
        match message {
            ToAgent::Welcome(welcome) => self.welcomed(welcome, now),
            ToAgent::Referral { fence, address } => self.referred(fence, address, now),
            ToAgent::Refused { why, may_retry } => self.refused(why, may_retry, now),
            ToAgent::Order(order) => match self.session.phase {
                Phase::Fencing { .. } | Phase::Settling { .. } => self.hold_order(order),
                Phase::Closed | Phase::Greeting | Phase::Active => self.obey(order, now),
            },
            ToAgent::AcknowledgeUpdate { fence, framework_id, task_id, uuid } => {
                self.acknowledged(fence, &(framework_id, task_id), uuid);
            }
            ToAgent::PictureWanted => self.session.want_picture(),
            ToAgent::ReportInterval(interval) => self.report_every(interval),
        }
    }

    /// The node that is next in line speaks when it has taken the shard over. Before that it has nothing to say.
    fn hear_standby(&mut self, message: ToAgent, now: Now) {
        match message {
            ToAgent::Refused { why, .. } => {
                self.note("the standby does not want this agent", why.to_string());
                self.leave_spare(now);
            }
            ToAgent::Referral { fence, address }
                if fence > self.in_force() && self.route.spare_address() == Some(&address) =>
            {
                self.note("the standby has taken over", format!("fence {fence}"));
                self.greet_spare(now);
            }
            ToAgent::Referral { address, .. } => {
                self.note("the standby is not next in line", format!("it refers to {address}"));
                self.leave_spare(now);
            }
            ToAgent::Welcome(_)
            | ToAgent::Order(_)
            | ToAgent::AcknowledgeUpdate { .. }
            | ToAgent::PictureWanted
            | ToAgent::ReportInterval(_) => self.note("a standby speaks as if it were the owner", String::new()),
        }
    }

    /// The highest fence that is journalled or about to be.
    fn in_force(&self) -> Fence {
        self.identity.highest_fence.max(self.session.claimed)
    }

    fn refused(&mut self, why: Arc<str>, may_retry: bool, now: Now) {
        self.outputs.push_back(Output::Refused { why, may_retry });
        if may_retry {
            self.leave_main(now);
        } else {
            self.leave_for_good();
        }
    }

    fn report_every(&mut self, interval: Duration) {
        if let Some(connection) = self.route.session() {
            self.outputs.push_back(Output::ReportEvery { connection, interval });
        }
    }

    fn welcomed(&mut self, welcome: Welcome, now: Now) {
        let in_force = self.in_force();
        if welcome.fence < in_force {
            let why = format!("its fence {} is below {in_force}, which the agent obeys", welcome.fence);
            return self.refused(why.into(), true, now);
        }
        self.welcome_heard(now);
        self.session.claimed = welcome.fence;
        let mut identity = self.identity.clone();
        identity.highest_fence = welcome.fence;
        identity.ratchet_token = Some(welcome.next_token);
        identity.addresses = self.route.learn(welcome.standby);
        let write = self.write_identity(identity.clone());
        self.session.phase =
            Phase::Fencing { report_interval: welcome.report_interval, identity, write: Some(write), retry_at: None };
    }

    fn referred(&mut self, fence: Fence, address: Arc<str>, now: Now) {
        let highest = self.in_force();
        // The same fence is followed too: after a broken connection the owner is the one it was, and can be elsewhere
        // than where the agent asked. Whoever answers there must show the fence anyway.
        if fence >= highest {
            self.follow(address, now);
        } else {
            let why = format!("it refers to fence {fence}, which is below {highest}, which the agent obeys");
            self.refused(why.into(), true, now);
        }
    }

    fn hold_order(&mut self, order: Order) {
        if self.session.held.len() < HELD_ORDERS_MAX {
            self.session.held.push(order);
        } else {
            self.note("order before the picture ignored", format!("order {}", order.sequence));
        }
    }

    pub(crate) fn identity_journalled(&mut self, seq: u64, identity: IdentityRecord) {
        let is_newer = identity.highest_fence > self.identity.highest_fence;
        if identity.highest_fence >= self.identity.highest_fence {
            self.identity = identity;
        }
        if is_newer && let Some(why) = self.doubt.take() {
            // No order of an earlier fence can come again, so a lost floor can't start anything twice.
            self.note("orders are taken again under a new fence, although the journal was damaged", why.to_string());
        }
        if let Phase::Fencing { report_interval, write, .. } = self.session.phase
            && write == Some(seq)
        {
            self.session.phase = Phase::Settling { report_interval };
        }
    }

    pub(crate) fn identity_not_journalled(&mut self, seq: u64, now: Now) {
        if let Phase::Fencing { write, retry_at, .. } = &mut self.session.phase
            && *write == Some(seq)
        {
            *write = None;
            *retry_at = Some(now.mono.after(JOURNAL_RETRY));
        }
    }

    pub(crate) fn retry_identity(&mut self, now: Now) {
        let Phase::Fencing { identity, retry_at, .. } = &self.session.phase else { return };
        if retry_at.is_none_or(|at| at > now.mono) {
            return;
        }
        let seq = self.write_identity(identity.clone());
        if let Phase::Fencing { write, retry_at, .. } = &mut self.session.phase {
            *write = Some(seq);
            *retry_at = None;
        }
    }

    /// Shows the picture under the journalled fence, and sends what was waiting for it.
    pub(crate) fn try_activate(&mut self, now: Now) {
        if let Phase::Settling { report_interval } = self.session.phase
            && !self.journal.is_writing_orders()
        {
            self.session.phase = Phase::Active;
            self.session.is_picture_wanted = true;
            self.report_every(report_interval);
            self.seek_standby(now);
            if self.orders.fence == self.identity.highest_fence {
                self.orders.tell_again();
            } else {
                self.orders = Orders::start(self.identity.highest_fence, 0);
            }
            for task in self.tasks.values_mut() {
                task.updates.forget_sent();
            }
            self.sendable = self.tasks.keys().cloned().collect();
        }
        if !self.session.is_active() {
            return;
        }
        if core::mem::take(&mut self.session.is_picture_wanted) {
            let picture = self.picture();
            self.send(FromAgent::Picture(picture));
        }
        for order in core::mem::take(&mut self.session.held) {
            self.obey(order, now);
        }
    }

    /// What the journal says runs here, and what is not acknowledged.
    fn picture(&self) -> Picture {
        let shown = || self.tasks.values().filter(|task| task.is_admitted());
        let has_task = |id: &FrameworkId| shown().any(|task| task.task.framework_id == *id);
        Picture {
            fence: self.identity.highest_fence,
            version: self.version,
            frameworks: self
                .frameworks
                .values()
                .map(|here| here.brief.clone())
                .filter(|brief| has_task(&brief.id))
                .collect(),
            tasks: shown()
                .map(|task| PictureTask {
                    task: task.task.clone(),
                    latest: task.latest(),
                    pending: task.updates.head().cloned(),
                    acknowledged: task.updates.acknowledged().to_vec(),
                })
                .collect(),
        }
    }

    fn acknowledged(&mut self, fence: Fence, key: &TaskKey, uuid: Uuid) {
        if !self.session.is_active() || fence != self.identity.highest_fence {
            self.note("acknowledgement of another fence ignored", format!("fence {fence}"));
            return;
        }
        let is_for_head = self.tasks.get_mut(key).is_some_and(|task| task.updates.acknowledge(uuid));
        if is_for_head {
            let (framework_id, task_id) = key.clone();
            self.journal.add(JournalEntry::Acknowledged { framework_id, task_id, uuid });
        }
    }
}
