//! Tasks: what is decided on, and the moves between states that are legal.

use crate::resource::Resources;
use crate::{AgentId, Duration, FrameworkId, Role, TaskId};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// How a task's process is started.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Program {
    /// `/bin/sh -c TEXT`.
    Shell(Arc<str>),
    /// An executable with its argument list, which includes `argv[0]`.
    Exec {
        /// Path, or a name looked up in `PATH`.
        path: Arc<str>,
        /// The whole argument list; empty means `[path]`.
        arguments: Vec<Arc<str>>,
    },
}

/// The essentials of a command.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Command {
    /// What is run.
    pub program: Program,
    /// Environment variables, later ones win.
    pub environment: Vec<(Arc<str>, Arc<str>)>,
    /// User to run as; absent means the framework's.
    pub user: Option<Arc<str>>,
}

/// A task as it was launched.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Name for people.
    pub name: Arc<str>,
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// Where it runs.
    pub agent_id: AgentId,
    /// The role that is charged for it.
    pub role: Role,
    /// What it holds while it is not terminal.
    pub resources: Resources,
    /// What is run.
    pub command: Command,
    /// Time between the polite and the final signal; absent means 3 s.
    pub kill_grace: Option<Duration>,
    /// After this long from launch it is killed and has failed.
    pub completion_time_max: Option<Duration>,
    /// The client's `TaskInfo` as protobuf bytes, which only `http-api` opens.
    pub spec: Arc<[u8]>,
}

/// States of a task. Source: mesos.proto, `TaskState`; legal moves: [`TaskState::may_become`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TaskState {
    /// Accepted by the control plane, not yet seen by an agent.
    Staging,
    /// The agent prepares it.
    Starting,
    /// Its process runs.
    Running,
    /// It was asked to end.
    Killing,
    /// It ended by itself with status 0.
    Finished,
    /// It ended otherwise.
    Failed,
    /// It ended because it was asked to.
    Killed,
    /// It was refused: its description is wrong.
    Error,
    /// What frameworks that are not partition aware see of all states below.
    Lost,
    /// It could not be launched for a passing cause.
    Dropped,
    /// Its agent is silent; it may come back.
    Unreachable,
    /// It does not run any more; nobody saw its end.
    Gone,
    /// Its agent was given up by an operator.
    GoneByOperator,
    /// Nobody knows it.
    Unknown,
}

impl TaskState {
    /// Whether it never changes again and holds no resources. `Unreachable` and `Unknown` are not terminal.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Staging | Self::Starting | Self::Running | Self::Killing | Self::Unreachable | Self::Unknown => false,
            Self::Finished
            | Self::Failed
            | Self::Killed
            | Self::Error
            | Self::Lost
            | Self::Dropped
            | Self::Gone
            | Self::GoneByOperator => true,
        }
    }

    /// Whether an agent may report `next` after this state. A terminal state admits nothing.
    pub fn may_become(self, next: Self) -> bool {
        !self.is_terminal() && next != Self::Staging && !(next == Self::Starting && self > Self::Starting)
    }

    /// The name in Mesos's API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Staging => "TASK_STAGING",
            Self::Starting => "TASK_STARTING",
            Self::Running => "TASK_RUNNING",
            Self::Killing => "TASK_KILLING",
            Self::Finished => "TASK_FINISHED",
            Self::Failed => "TASK_FAILED",
            Self::Killed => "TASK_KILLED",
            Self::Error => "TASK_ERROR",
            Self::Lost => "TASK_LOST",
            Self::Dropped => "TASK_DROPPED",
            Self::Unreachable => "TASK_UNREACHABLE",
            Self::Gone => "TASK_GONE",
            Self::GoneByOperator => "TASK_GONE_BY_OPERATOR",
            Self::Unknown => "TASK_UNKNOWN",
        }
    }

    /// What a framework that is not partition aware is told instead.
    #[must_use]
    pub const fn for_capabilities(self, partition_aware: bool) -> Self {
        match self {
            Self::Dropped | Self::Unreachable | Self::Gone | Self::GoneByOperator | Self::Unknown
                if !partition_aware =>
            {
                Self::Lost
            }
            other => other,
        }
    }
}
