//! Before the loop: what the machine is, how it becomes an agent, and the authority that it trusts.

use std::sync::Arc;

use muster_linux::Missing;
use muster_linux::proc::Machine;
use muster_model::agent::AgentInfo;
use muster_model::record::IdentityRecord;
use muster_model::{Rng, Uuid};
use muster_transport::tls::Authority;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::agent::AgentError;
use crate::config::Config;
use crate::declared::with_detected;
use crate::identity_file::IdentityFile;
use crate::join::{Joined, Token, chain_of, join};
use crate::journal::Journal;
use crate::work_dir::WorkDir;

/// What the agent says of itself.
pub(crate) async fn describe(config: &Config, missing: &[Missing]) -> Result<AgentInfo, AgentError> {
    let machine = Machine::detect(&config.work_dir)?;
    let hostname = config.hostname.clone().unwrap_or(machine.hostname);
    let ip = match config.ip {
        Some(ip) => ip,
        None => address_towards(config.control_plane.first()).await,
    };
    let mut missing: Vec<Arc<str>> = missing.iter().map(|one| Arc::from(one.to_string())).collect();
    missing.dedup();
    Ok(AgentInfo {
        hostname: hostname.into(),
        ip: ip.to_string().into(),
        port: config.port,
        total: with_detected(&config.resources, machine.cpus, machine.memory_mib, machine.disk_mib),
        attributes: config.attributes.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        missing_isolation: missing,
    })
}

/// The local address that packets to the control plane would leave from; loopback when there is no way.
async fn address_towards(control_plane: Option<&String>) -> std::net::IpAddr {
    let loopback = std::net::IpAddr::from(std::net::Ipv4Addr::LOCALHOST);
    let Some(address) = control_plane else { return loopback };
    let Ok(found) = muster_transport::resolve::Resolver::system().lookup(address).await else { return loopback };
    let asked = found.into_iter().find_map(|socket| {
        let wildcard = if socket.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        // Connecting a UDP socket sends nothing; it only chooses a route.
        let probe = std::net::UdpSocket::bind(wildcard).ok()?;
        probe.connect(socket).ok()?;
        probe.local_addr().ok().map(|local| local.ip())
    });
    asked.unwrap_or(loopback)
}

/// Joins with the token, as often as it takes, and puts the new agent on disk; the key file last.
pub(crate) async fn become_agent(
    config: &Config,
    work_dir: &WorkDir,
    identity_file: &mut IdentityFile,
    info: &Arc<AgentInfo>,
    seed: &mut Rng,
) -> Result<IdentityRecord, AgentError> {
    let token = config.join.as_deref().and_then(|text| Token::parse(text).ok()).ok_or(AgentError::NoToken)?;
    if config.control_plane.is_empty() {
        return Err(AgentError::NoAddress);
    }
    let nonce = Uuid::from_random(seed.bytes16());
    let mut pause = config.reconnect;
    let joined: Joined = loop {
        match join(work_dir, &token, &config.control_plane, info, nonce).await {
            Ok(joined) => break joined,
            Err(error) if error.may_retry() => {
                warn!(error = %chain_of(&error), "cannot join yet");
                sleep(pause).await;
                pause = (pause * 2).min(config.reconnect_max);
            }
            Err(error) => return Err(error.into()),
        }
    };
    let record = IdentityRecord {
        agent_id: joined.agent_id.clone(),
        highest_fence: muster_model::fence::Fence::default(),
        ratchet_token: None,
        addresses: vec![joined.address.as_str().into()],
    };
    Journal::create(&work_dir.journal_file(), &joined.agent_id)?;
    identity_file.write(&record)?;
    joined.keep(work_dir)?;
    info!(agent_id = %joined.agent_id, address = %joined.address, "joined the cluster");
    Ok(record)
}

/// The cluster authority's certificate.
///
/// Errors: [`AgentError::Authority`].
pub(crate) fn read_authority(work_dir: &WorkDir) -> Result<Authority, AgentError> {
    let path = work_dir.authority_file();
    let failed =
        |source: Box<dyn std::error::Error + Send + Sync>| AgentError::Authority { path: path.clone(), source };
    let pem = std::fs::read(&path).map_err(|error| failed(error.into()))?;
    Authority::from_pem(&pem).map_err(|error| failed(error.into()))
}
