//! Calls of frameworks and events for them, after decoding and before encoding.

use crate::framework::FrameworkInfo;
use crate::offer::{Offer, Refusal};
use crate::resource::Resources;
use crate::status::{Reason, TaskStatus};
use crate::task::{Task, TaskState};
use crate::{AgentId, Duration, ExecutorId, FrameworkId, OfferId, OperationId, Role, TaskId, Uuid, WallTime};
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// SUBSCRIBE as decoded. `framework_id` is empty for a new framework; then `info.id` is a placeholder that the home
/// replaces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscribe {
    /// The id that the framework claims.
    pub framework_id: Option<FrameworkId>,
    /// What it says of itself. `Err` holds the refusal's text: it goes out as an ERROR event on a 200 stream.
    pub info: Result<FrameworkInfo, Arc<str>>,
    /// Roles it wants no offers for now.
    pub suppressed_roles: Vec<Arc<str>>,
}

/// An offer id as a client wrote it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum OfferRef {
    /// Shaped as ours.
    Ours(OfferId),
    /// A text that no allocator of ours ever wrote.
    Foreign(Arc<str>),
}

impl core::fmt::Display for OfferRef {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Ours(id) => write!(f, "{id}"),
            Self::Foreign(text) => f.write_str(text),
        }
    }
}

/// A task of a LAUNCH: decoded, or refused while decoding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LaunchTask {
    /// It can be considered.
    Task(Arc<Task>),
    /// It becomes TASK_ERROR with this message.
    Invalid {
        /// The id as the client wrote it; empty if it wrote none.
        task_id: Arc<str>,
        /// What is wrong, and what this version does not support yet.
        message: Arc<str>,
    },
}

/// One operation of an ACCEPT.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Launch tasks, each for itself.
    Launch(Vec<LaunchTask>),
    /// A task group: all or nothing. Not supported yet: every task becomes TASK_ERROR with the message.
    LaunchGroup {
        /// The ids of the group's tasks.
        task_ids: Vec<Arc<str>>,
        /// Why it is refused.
        message: Arc<str>,
    },
    /// Any other operation: OPERATION_ERROR with the message if it carries an id, else nothing.
    Refused {
        /// The framework's id for it.
        id: Option<OperationId>,
        /// Its type as Mesos spells it.
        kind: Arc<str>,
        /// Why it is refused.
        message: Arc<str>,
    },
}

/// ACCEPT as decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accept {
    /// The offers that are used up, in the order given.
    pub offers: Vec<OfferRef>,
    /// What is to be done, in order.
    pub operations: Vec<Operation>,
    /// For what is left over.
    pub refusal: Refusal,
}

/// A call of a subscribed framework.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FrameworkCall {
    /// End the framework and all its tasks.
    Teardown,
    /// Use offers.
    Accept(Accept),
    /// Give offers back.
    Decline {
        /// Which.
        offers: Vec<OfferRef>,
        /// For how long they are not offered again.
        refusal: Refusal,
    },
    /// Forget refusals and offer again; an empty list means all roles. Texts are checked by the home.
    Revive(Vec<Arc<str>>),
    /// Make no offers; an empty list means all roles.
    Suppress(Vec<Arc<str>>),
    /// End a task.
    Kill {
        /// Which.
        task_id: TaskId,
        /// Where the framework believes it runs.
        agent_id: Option<AgentId>,
        /// Overrides the task's own grace period.
        grace: Option<Duration>,
    },
    /// End an executor.
    Shutdown {
        /// Which.
        executor_id: ExecutorId,
        /// Where.
        agent_id: AgentId,
    },
    /// A status update has arrived for good.
    Acknowledge {
        /// The agent that made it.
        agent_id: AgentId,
        /// The task.
        task_id: TaskId,
        /// The update.
        uuid: Uuid,
    },
    /// Tell the state of these tasks; of all when empty.
    Reconcile(Vec<(TaskId, Option<AgentId>)>),
    /// Bytes for an executor.
    Message {
        /// Where.
        agent_id: AgentId,
        /// For whom.
        executor_id: ExecutorId,
        /// What.
        data: Arc<[u8]>,
    },
    /// A wish for resources; has no effect, as in Mesos.
    Request,
    /// Replaces what the framework said of itself. `Err` holds the 400's text.
    UpdateFramework {
        /// The new description.
        info: Result<Box<FrameworkInfo>, Arc<str>>,
        /// Replaces the suppressed roles.
        suppressed_roles: Vec<Arc<str>>,
    },
    /// Answers to inverse offers; none are made yet, unknown ids are ignored as in Mesos.
    InverseOffers,
    /// Acknowledges an operation's status; none are sent with a uuid yet, unknown ones are ignored as in Mesos.
    AcknowledgeOperation,
    /// Tell the state of these operations.
    ReconcileOperations(Vec<(OperationId, Option<AgentId>)>),
}

/// A framework as SUBSCRIBED introduces the control plane to it. Filled in by the server, which knows its addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Introduction {
    /// The cluster's id.
    pub cluster_id: Uuid,
    /// The node's host name.
    pub hostname: Arc<str>,
    /// Its address as text.
    pub ip: Arc<str>,
    /// The HTTP port.
    pub port: u16,
    /// Version of the program.
    pub version: Arc<str>,
}

/// What a framework is told on its stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The subscription stands.
    Subscribed {
        /// The framework's id from now on.
        framework_id: FrameworkId,
        /// Time between heartbeats.
        heartbeat_interval: Duration,
    },
    /// One batch of one allocation cycle.
    Offers(Vec<Arc<Offer>>),
    /// An offer is void.
    Rescind(OfferId),
    /// A task's status.
    Update(Arc<TaskStatus>),
    /// A task was refused whose id breaks the id rules, so that it is no [`TaskId`]: an UPDATE by the control plane
    /// (SOURCE_MASTER) without uuid.
    TaskRefused {
        /// The id as the client wrote it.
        task_id: Arc<str>,
        /// The agent of the offers.
        agent_id: Option<AgentId>,
        /// The state: TASK_ERROR, TASK_DROPPED or TASK_LOST.
        state: TaskState,
        /// Why.
        reason: Reason,
        /// The same for people.
        message: Arc<str>,
        /// When.
        at: WallTime,
    },
    /// An operation was refused: OPERATION_ERROR without uuid.
    OperationFailed {
        /// The framework's id for it.
        operation_id: OperationId,
        /// Why.
        message: Arc<str>,
    },
    /// Answer to reconciliation of an operation that nobody knows: OPERATION_UNKNOWN without uuid.
    OperationUnknown {
        /// The framework's id for it.
        operation_id: OperationId,
        /// The agent it named.
        agent_id: Option<AgentId>,
    },
    /// Bytes from an executor.
    Message {
        /// From where.
        agent_id: AgentId,
        /// From whom.
        executor_id: ExecutorId,
        /// What.
        data: Arc<[u8]>,
    },
    /// An agent was removed, or an executor ended.
    Failure {
        /// The agent.
        agent_id: Option<AgentId>,
        /// The executor that ended; absent when the agent was removed.
        executor_id: Option<ExecutorId>,
        /// Its wait status.
        status: Option<i32>,
    },
    /// The subscription is refused or over.
    Error(Arc<str>),
    /// Nothing new, still here.
    Heartbeat,
}

/// The roles of a call's list, or why the list is refused as a whole: an empty list means all of `subscribed`.
pub fn roles_of_call(names: &[Arc<str>], subscribed: &BTreeSet<Role>) -> Result<BTreeSet<Role>, Arc<str>> {
    if names.is_empty() {
        return Ok(subscribed.clone());
    }
    let mut roles = BTreeSet::new();
    for name in names {
        let role = Role::parse(name).map_err(|error| Arc::from(alloc::format!("{error}")))?;
        if !subscribed.contains(&role) {
            return Err(Arc::from(alloc::format!("the framework is not subscribed to role '{role}'")));
        }
        roles.insert(role);
    }
    Ok(roles)
}

/// The sum of all entries, for messages: `Ok` amounts only.
pub fn total_of<'a>(amounts: impl IntoIterator<Item = &'a Resources>) -> Resources {
    let mut sum = Resources::new();
    for amount in amounts {
        for entry in amount {
            // Overlapping ports of two tasks add nothing to a figure that people read.
            if sum.add_entry(entry.clone()).is_err() {
                continue;
            }
        }
    }
    sum
}
