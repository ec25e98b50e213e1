//! What the server knows of itself and answers with: its addresses, its build, its settings.

use std::sync::Arc;

use muster_model::WallTime;
use muster_model::scheduler::Introduction;

use crate::proto::{Address, MasterInfo, VersionInfo, master_info};

/// What a node of the control plane says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Who it is and where.
    pub introduction: Introduction,
    /// Name of the cluster for people.
    pub cluster: Option<Arc<str>>,
    /// When this program started.
    pub started: WallTime,
    /// When it began to act for the cluster.
    pub elected: WallTime,
    /// Its settings by name, sorted, as text.
    pub flags: Vec<(String, String)>,
    /// How it was built.
    pub build: Build,
}

/// How a program was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The version that clients compare; theirs are written for Mesos versions.
    pub version: Arc<str>,
    /// When, as `2020-11-24 15:38:37`.
    pub date: Arc<str>,
    /// The same moment.
    pub time: WallTime,
    /// By whom.
    pub user: Arc<str>,
    /// Commit, if known.
    pub git_sha: Option<Arc<str>>,
}

impl Facts {
    /// `master@ip:port`, as libprocess names it.
    pub fn pid(&self) -> String {
        pid(&self.introduction)
    }
}

/// Seconds with decimals, as Mesos writes moments in JSON.
pub(super) fn seconds(time: WallTime) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 stay below 2^53 until the year 2255")]
    let micros = time.0 as f64;
    micros / 1e6
}

/// A moment in nanoseconds.
pub(super) fn time_info(time: WallTime) -> crate::proto::TimeInfo {
    crate::proto::TimeInfo { nanoseconds: i64::try_from(time.0.saturating_mul(1000)).unwrap_or(i64::MAX) }
}

fn pid(introduction: &Introduction) -> String {
    format!("master@{}:{}", host_part(&introduction.ip), introduction.port)
}

/// An address as it stands before a port: IPv6 in brackets.
pub(super) fn host_part(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

/// The control plane as clients of Mesos know it.
pub(super) fn master_info(introduction: &Introduction) -> MasterInfo {
    let capability = |kind: master_info::capability::Type| master_info::Capability { r#type: Some(kind.into()) };
    MasterInfo {
        id: introduction.cluster_id.to_string(),
        // IPv4 in network byte order, read as a number of this machine; it has no form for IPv6.
        ip: introduction.ip.parse::<std::net::Ipv4Addr>().map_or(0, |ip| u32::from_le_bytes(ip.octets())),
        port: introduction.port.into(),
        pid: Some(pid(introduction)),
        hostname: Some(introduction.hostname.to_string()),
        version: Some(introduction.version.to_string()),
        address: Some(Address {
            hostname: Some(introduction.hostname.to_string()),
            ip: Some(introduction.ip.to_string()),
            port: introduction.port.into(),
        }),
        domain: None,
        capabilities: vec![
            capability(master_info::capability::Type::AgentUpdate),
            capability(master_info::capability::Type::AgentDraining),
            capability(master_info::capability::Type::QuotaV2),
        ],
    }
}

/// Takes out what Mesos 1.11 cannot name in JSON: it has no v1 name for its capability QUOTA_V2, so that its JSON shows
/// an empty object where its protobuf has the number.
pub(super) fn hide_unnamed(info: &mut MasterInfo) {
    let quota = i32::from(master_info::capability::Type::QuotaV2);
    for capability in info.capabilities.iter_mut().filter(|capability| capability.r#type == Some(quota)) {
        capability.r#type = None;
    }
}

/// The build as the operator API shows it.
pub(super) fn version_info(build: &Build) -> VersionInfo {
    VersionInfo {
        version: build.version.to_string(),
        build_date: Some(build.date.to_string()),
        build_time: Some(seconds(build.time)),
        build_user: Some(build.user.to_string()),
        git_sha: build.git_sha.as_ref().map(ToString::to_string),
        git_branch: None,
        git_tag: None,
    }
}
