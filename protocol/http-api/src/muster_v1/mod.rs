//! Muster's own API under `/api/muster/v1/`: what Mesos's messages have no room for, as plain JSON.
//!
//! Times are seconds since the Unix epoch with fractions; lengths of time are seconds; memory and disk are MiB, as in
//! the resources that they belong to. Fields are only ever added. `server` fills these types from the picture with
//! [`from_view`] and [`placement`]; `cli` reads them.

mod from_view;
mod placement;

pub use from_view::{
    agent, agents, count, frameworks, offers, resources, roles, task, tasks, why_agent, why_framework, why_task,
};
pub use placement::{nodes, shards};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Amounts by name: numbers for scalars, text such as `[31000-32000]` for ranges and `{a, b}` for sets. Reserved and
/// unreserved amounts are added up.
pub type Amounts = BTreeMap<String, Amount>;

/// One amount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    /// A scalar.
    Number(f64),
    /// Ranges or a set.
    Text(String),
}

/// Answer of `GET cluster`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// The cluster's id.
    pub id: String,
    /// Version of the node that answered.
    pub version: String,
    /// Name of the node that answered.
    pub node: String,
    /// Where machines join, `host:port`.
    pub join_address: String,
    /// When the node's process started.
    pub started: f64,
}

/// Answer of `GET nodes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Nodes {
    /// By name.
    pub nodes: Vec<Node>,
    /// Why the node that answers cannot use the store at the moment; absent while it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_trouble: Option<String>,
}

/// One control-plane node, as the one that answers sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// URL of its HTTP API.
    pub http: String,
    /// Where agents and other nodes reach it, `host:port`.
    pub quic: String,
    /// `live`, `suspect` or `gone`.
    pub state: String,
    /// Since when it has been so.
    pub since: f64,
    /// Whether it allocates for the cluster.
    pub is_allocator: bool,
    /// Shards that it owns.
    pub shard_count: u64,
    /// Agents of those shards.
    pub agent_count: u64,
    /// Frameworks whose home it is.
    pub framework_count: u64,
    /// How far its clock is ahead of that of the node that answers, in milliseconds.
    pub clock_skew_ms: i64,
}

/// Answer of `GET shards`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shards {
    /// By number.
    pub shards: Vec<Shard>,
}

/// One shard: a slice of the agents with one owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shard {
    /// Its number.
    pub number: u16,
    /// The node that acts for it; absent while nobody does.
    pub owner: Option<String>,
    /// Grows with each change of owner; agents refuse orders of a lower one.
    pub epoch: u64,
    /// The store's generation.
    pub generation: u64,
    /// Since when this owner has it.
    pub since: f64,
    /// Why it came to this owner.
    pub why: String,
    /// Its agents.
    pub agent_count: u64,
}

/// Answer of `GET agents`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agents {
    /// By id.
    pub agents: Vec<Agent>,
}

/// One agent; answer of `GET agents/ID`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Its id.
    pub id: String,
    /// Host name.
    pub hostname: String,
    /// `connected`, `disconnected`, `recovered`, `unreachable`, `revoked` or `gone`.
    pub state: String,
    /// Since when it is so; absent where that is not known.
    #[serde(default)]
    pub since: Option<f64>,
    /// Whether an operator stopped offers on it.
    pub deactivated: bool,
    /// Address of its session; it may be that of a NAT.
    pub peer: Option<String>,
    /// Version of its program.
    pub version: String,
    /// Its shard, and the fence of the shard's owner.
    pub shard: u16,
    /// Generation, epoch and incarnation as text.
    pub fence: String,
    /// All it has.
    pub total: Amounts,
    /// In use by tasks.
    pub used: Amounts,
    /// In open offers.
    pub offered: Amounts,
    /// Name to value.
    pub attributes: BTreeMap<String, String>,
    /// Tasks that are not both ended and acknowledged.
    pub task_count: u64,
    /// Which isolation is missing there, and why.
    pub missing_isolation: Vec<String>,
    /// When it was admitted.
    pub registered: f64,
    /// When it last came back.
    pub reregistered: Option<f64>,
    /// The machine's use as last reported.
    pub report: Option<Usage>,
}

/// Use of a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// When the report came.
    pub at: f64,
    /// Load average over a minute.
    pub load: f64,
    /// Memory in use, MiB.
    pub mem_used: f64,
    /// Memory of the machine, MiB.
    pub mem_total: f64,
    /// Disk in use, MiB.
    pub disk_used: f64,
    /// Percent of the last 10 s in which some process waited for cpu.
    pub cpu_pressure: f64,
    /// The same for memory.
    pub mem_pressure: f64,
}

/// Answer of `GET frameworks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frameworks {
    /// Those that are not removed, by id, then removed ones, oldest first.
    pub frameworks: Vec<Framework>,
}

/// One framework.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Framework {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `connected`, `disconnected`, `recovered` or `completed`.
    pub state: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// Roles it wants no offers for.
    pub suppressed: Vec<String>,
    /// User of its tasks.
    pub user: String,
    /// Tasks that are not both ended and acknowledged.
    pub task_count: u64,
    /// Open offers.
    pub offer_count: u64,
    /// In use by its tasks.
    pub used: Amounts,
    /// In its open offers.
    pub offered: Amounts,
    /// When it first subscribed.
    pub registered: f64,
    /// When it last subscribed again.
    pub reregistered: Option<f64>,
    /// When it was removed.
    pub unregistered: Option<f64>,
    /// When it is removed unless it comes back.
    pub failover_deadline: Option<f64>,
}

/// Answer of `GET offers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offers {
    /// By framework, then id.
    pub offers: Vec<Offer>,
}

/// One open offer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// Its id.
    pub id: String,
    /// To whom.
    pub framework_id: String,
    /// For which role.
    pub role: String,
    /// Where.
    pub agent_id: String,
    /// The agent's host name.
    pub hostname: String,
    /// What.
    pub resources: Amounts,
}

/// Answer of `GET tasks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tasks {
    /// Active ones by agent, then unreachable ones, then completed ones.
    pub tasks: Vec<Task>,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whose.
    pub framework_id: String,
    /// Where.
    pub agent_id: String,
    /// The agent's host name, where the agent is known.
    pub hostname: Option<String>,
    /// The role that is charged.
    pub role: String,
    /// The newest state, as Mesos spells it.
    pub state: String,
    /// What it holds or held.
    pub resources: Amounts,
    /// Exit status of its process.
    pub exit_status: Option<u8>,
    /// Signal that ended its process.
    pub exit_signal: Option<u8>,
    /// Bytes that it wrote to stdout; present once it ended.
    pub stdout_bytes: Option<u64>,
    /// Bytes that it wrote to stderr; present once it ended.
    pub stderr_bytes: Option<u64>,
    /// Reason of the last status, as Mesos spells it.
    pub reason: Option<String>,
    /// Message of the last status.
    pub message: Option<String>,
    /// One line per change of state.
    pub statuses: Vec<Status>,
}

/// One change of a task's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The state.
    pub state: String,
    /// When it was made.
    pub at: f64,
    /// Why.
    pub message: Option<String>,
}

/// Answer of `GET roles`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Roles {
    /// By name.
    pub roles: Vec<Role>,
}

/// One role; amounts include those of roles below it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Its weight.
    pub weight: f64,
    /// Frameworks subscribed to it.
    pub frameworks: Vec<String>,
    /// In use by tasks.
    pub allocated: Amounts,
    /// In open offers.
    pub offered: Amounts,
    /// Set aside for it.
    pub reserved: Amounts,
}

/// Answer of `GET why/frameworks/ID`, `GET why/tasks/ID` and `GET why/agents/ID`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// What was asked about, for people.
    pub subject: String,
    /// The state in one line.
    pub summary: String,
    /// Per role, what the last allocation cycle decided; empty for tasks and agents.
    pub decisions: Vec<Decision>,
    /// What happened, oldest first; empty for frameworks.
    pub history: Vec<Happening>,
}

/// What the last allocation cycle decided for a framework's role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The role.
    pub role: String,
    /// When.
    pub at: f64,
    /// Offers made in that cycle.
    pub offer_count: u64,
    /// Dominant share of the cluster in percent.
    pub share_percent: f64,
    /// What was left out and why.
    pub skips: Vec<Skip>,
}

/// Agents that were left out for one reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Skip {
    /// The reason.
    pub reason: String,
    /// How many agents.
    pub agent_count: u64,
    /// One of them.
    pub example_agent: Option<String>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Happening {
    /// When.
    pub at: f64,
    /// What, and why.
    pub what: String,
}

/// Body of `POST tokens`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Name for people; made up when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// How often it may be used; 0 for any number of times, once when absent.
    #[serde(default)]
    pub uses: Option<u32>,
    /// For how many seconds it is valid; 0 for ever, a day when absent.
    #[serde(default)]
    pub valid_secs: Option<u64>,
}

/// Answer of `POST tokens`: the only time that the token is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreatedToken {
    /// The whole token, for `muster-agent --join`.
    pub token: String,
    /// Where machines join, `host:port`.
    pub join_address: String,
    /// What is stored of it.
    pub info: Token,
}

/// Answer of `GET tokens`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tokens {
    /// By hash.
    pub tokens: Vec<Token>,
}

/// One join token without its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// Its name.
    pub name: String,
    /// `usable`, `used up`, `expired` or `revoked`.
    pub state: String,
    /// Uses left; any number when absent.
    pub uses_left: Option<u32>,
    /// When it was made.
    pub created: f64,
    /// When it expires.
    pub expires: Option<f64>,
}

/// Body of every error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What was wrong, where, and what to do.
    pub error: String,
}
