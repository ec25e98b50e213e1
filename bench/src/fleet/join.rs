//! Joining: each simulated agent trades the token for a certificate of its own, as a machine does.

use std::sync::Arc;

use anyhow::{Context, bail};
use muster_agent_wire::{
    limits::JOIN_FRAME_BYTES_MAX,
    message::{decode_join_reply, encode_join_request},
};
use muster_model::{
    AgentId, Uuid,
    agent::AgentInfo,
    agent_message::{JoinReply, JoinRequest},
};
use muster_transport::{
    quic::{CloseCode, Endpoint, Priority},
    tls::{Authority, ClientTls, PendingIdentity},
};

use super::{Settings, agent::info};

/// How often a join is tried when the control plane says that trying again can help.
const TRIES_MAX: usize = 20;

/// Who an agent became, and how it connects.
pub(super) struct Joined {
    pub(super) agent_id: AgentId,
    pub(super) tls: ClientTls,
    /// What it said of itself.
    pub(super) info: Arc<AgentInfo>,
}

/// Joins one agent; each begins with another node.
pub(super) async fn join(
    settings: &Settings,
    index: usize,
    endpoint: &Endpoint,
    nonce: Uuid,
) -> anyhow::Result<Joined> {
    let info = Arc::new(info(settings, index));
    let mut entries = settings.entries.iter().cycle().skip(index % settings.entries.len().max(1));
    let (pin, secret) = settings.token.split_once('.').context("the token is none")?;
    let tls = ClientTls::join(pin.parse()?)?;
    let pending = PendingIdentity::generate()?;
    let csr = Arc::from(pending.request_der());
    let request = JoinRequest { secret: Arc::from(secret), csr, nonce, info: Arc::clone(&info) };
    let mut frame = Vec::new();
    encode_join_request(&request, &mut frame)?;
    for _ in 0..TRIES_MAX {
        let address = *entries.next().context("a fleet needs a node's address")?;
        let connection = endpoint.connect(address, &tls).await?;
        let (mut send, mut receive) = connection.open_bi(Priority::Control).await?;
        send.write_frame(frame.clone().into(), JOIN_FRAME_BYTES_MAX).await?;
        send.finish()?;
        let reply = receive.read_frame(JOIN_FRAME_BYTES_MAX).await?.context("no answer to a join request")?;
        connection.close(CloseCode::DONE, "joined");
        match decode_join_reply(&reply)? {
            JoinReply::Admitted { agent_id, chain, ca } => {
                let authority = Authority::from_der(ca.to_vec())?;
                let identity = pending.complete(chain.iter().map(|certificate| certificate.to_vec()).collect())?;
                return Ok(Joined { agent_id, tls: ClientTls::agent(&authority, &identity)?, info });
            }
            JoinReply::Refused { may_retry: true, .. } => {}
            JoinReply::Refused { why, .. } => bail!("join refused: {why}"),
        }
    }
    bail!("join refused {TRIES_MAX} times")
}
