//! Joining: a machine with a token becomes an agent with a certificate, once.
//!
//! Repeatable at every step: the nonce is on disk before the first request, so a crash or a lost answer ends in the same
//! agent id.

use std::path::PathBuf;
use std::sync::Arc;

use muster_agent_wire::limits::JOIN_FRAME_BYTES_MAX;
use muster_agent_wire::message::{decode_join_reply, encode_join_request};
use muster_model::agent::AgentInfo;
use muster_model::agent_message::{JoinReply, JoinRequest};
use muster_model::{AgentId, Uuid};
use muster_transport::quic::{CloseCode, Connection, Endpoint, Priority, Tuning};
use muster_transport::resolve::Resolver;
use muster_transport::tls::{Authority, AuthorityPin, ClientTls, Identity, IdentityError, PendingIdentity};
use tokio::time::timeout;
use tracing::info;

use crate::limits::JOIN_TIMEOUT;
use crate::work_dir::{WorkDir, replace_file};

/// A join token: the authority's pin, a dot, the secret.
#[derive(Clone)]
pub struct Token {
    pin: AuthorityPin,
    secret: Arc<str>,
}

/// A text that is no token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a join token reads PIN.SECRET with a PIN of 64 hexadecimal digits; copy it again from `muster tokens create`")]
pub struct TokenError;

impl Token {
    /// Reads a token.
    ///
    /// Errors: [`TokenError`]; never quotes the text, which is a secret.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let (pin, secret) = text.trim().split_once('.').ok_or(TokenError)?;
        let pin = pin.parse().map_err(|_| TokenError)?;
        if secret.is_empty() || secret.len() > 1024 { Err(TokenError) } else { Ok(Self { pin, secret: secret.into() }) }
    }
}

/// Why a machine did not become an agent.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The cluster said no, for good.
    #[error("the control plane refused to admit this machine: {why}")]
    Refused {
        /// Its words.
        why: Arc<str>,
    },
    /// No node answered; worth another try.
    #[error("no node of the control plane took the join request: {why}")]
    NoAnswer {
        /// What each said or did not say.
        why: String,
    },
    /// Key or certificate could not be made or kept.
    #[error("cannot keep the agent's key and certificate")]
    Identity(#[from] IdentityError),
    /// A file could not be written.
    #[error("cannot write {}; check its owner and that the disk is not full", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The TLS set-up failed.
    #[error("cannot prepare TLS for joining")]
    Tls(#[from] muster_transport::tls::SetupError),
    /// The UDP socket failed.
    #[error("cannot open a socket for joining")]
    Bind(#[from] muster_transport::quic::BindError),
    /// The authority's certificate in the answer is not one, or not the token's.
    #[error("the answer's cluster authority is not the one that the join token names; make a new token")]
    Authority,
}

impl JoinError {
    /// Whether trying again can help.
    pub fn may_retry(&self) -> bool {
        matches!(self, Self::NoAnswer { .. })
    }
}

/// Who this machine became.
pub struct Joined {
    /// The agent's id.
    pub agent_id: AgentId,
    /// The node that answered, `host:port`.
    pub address: String,
    identity: Identity,
    authority: Authority,
}

impl Joined {
    /// Puts authority, key and certificate on disk. Call when everything else of the new agent is there: the key file is
    /// what says that this machine has joined.
    ///
    /// Errors: [`JoinError`].
    pub fn keep(&self, work_dir: &WorkDir) -> Result<(), JoinError> {
        let path = work_dir.authority_file();
        let authority = self.authority.to_pem();
        replace_file(&path, authority.as_bytes()).map_err(|source| JoinError::Write { path, source })?;
        self.identity.save(&work_dir.key_file())?;
        // Of no use any more; left behind it would do no harm.
        let _best_effort = std::fs::remove_file(work_dir.join_nonce_file());
        Ok(())
    }
}

/// Asks each address in turn until one answers.
///
/// Errors: [`JoinError`].
pub async fn join(
    work_dir: &WorkDir,
    token: &Token,
    addresses: &[String],
    info: &Arc<AgentInfo>,
    random: Uuid,
) -> Result<Joined, JoinError> {
    let nonce = nonce_of(work_dir, random)?;
    let pending = PendingIdentity::generate()?;
    let tls = ClientTls::join(token.pin)?;
    let request =
        JoinRequest { secret: token.secret.clone(), csr: Arc::from(pending.request_der()), nonce, info: info.clone() };
    let mut reasons = Vec::new();
    for address in addresses {
        info!(address, "joining");
        match ask(address, &tls, &request).await {
            Ok(JoinReply::Admitted { agent_id, chain, ca }) => {
                let authority = Authority::from_der(ca.to_vec()).map_err(|_| JoinError::Authority)?;
                if authority.pin() != token.pin {
                    return Err(JoinError::Authority);
                }
                let identity = pending.complete(chain.iter().map(|certificate| certificate.to_vec()).collect())?;
                return Ok(Joined { agent_id, address: address.clone(), identity, authority });
            }
            Ok(JoinReply::Refused { why, may_retry: false }) => return Err(JoinError::Refused { why }),
            Ok(JoinReply::Refused { why, may_retry: true }) => reasons.push(format!("{address}: {why}")),
            Err(why) => reasons.push(format!("{address}: {why}")),
        }
    }
    if reasons.is_empty() {
        reasons.push("no address is configured; name one with --control-plane".to_owned());
    }
    Err(JoinError::NoAnswer { why: reasons.join("; ") })
}

/// The nonce of an earlier attempt, or a new one that is on disk before it is used.
fn nonce_of(work_dir: &WorkDir, random: Uuid) -> Result<Uuid, JoinError> {
    let path = work_dir.join_nonce_file();
    if let Some(nonce) = std::fs::read_to_string(&path).ok().and_then(|text| Uuid::parse(text.trim())) {
        return Ok(nonce);
    }
    replace_file(&path, format!("{random}\n").as_bytes()).map_err(|source| JoinError::Write { path, source })?;
    Ok(random)
}

async fn ask(address: &str, tls: &ClientTls, request: &JoinRequest) -> Result<JoinReply, String> {
    let found = Resolver::system().lookup(address).await.map_err(|error| chain_of(&error))?;
    let mut reasons = Vec::new();
    for socket in found {
        let wildcard = if socket.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let tuning = Tuning::agent(JOIN_TIMEOUT / 4, JOIN_TIMEOUT);
        let endpoint = Endpoint::client(wildcard.parse().ok(), tuning).map_err(|error| chain_of(&error))?;
        let outcome = match endpoint.connect(socket, tls).await {
            Ok(connection) => {
                let asked = timeout(JOIN_TIMEOUT, exchange(&connection, request)).await;
                connection.close(CloseCode::DONE, "joined");
                asked.unwrap_or_else(|_| Err(format!("no answer within {} s", JOIN_TIMEOUT.as_secs())))
            }
            Err(error) => Err(chain_of(&error)),
        };
        endpoint.drained().await;
        match outcome {
            Ok(reply) => return Ok(reply),
            Err(why) => reasons.push(why),
        }
    }
    Err(reasons.join("; "))
}

async fn exchange(connection: &Connection, request: &JoinRequest) -> Result<JoinReply, String> {
    let (mut send, mut receive) = connection.open_bi(Priority::Control).await.map_err(|error| chain_of(&error))?;
    let mut frame = Vec::new();
    encode_join_request(request, &mut frame).map_err(|error| chain_of(&error))?;
    send.write_frame(frame.into(), JOIN_FRAME_BYTES_MAX).await.map_err(|error| chain_of(&error))?;
    send.finish().map_err(|error| chain_of(&error))?;
    let reply = receive.read_frame(JOIN_FRAME_BYTES_MAX).await.map_err(|error| chain_of(&error))?;
    let reply = reply.ok_or_else(|| "the node ended the stream without an answer".to_owned())?;
    decode_join_reply(&reply).map_err(|error| chain_of(&error))
}

/// An error and its causes in one line.
pub(crate) fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_checked_without_being_quoted() {
        let pin = "ab".repeat(32);
        assert!(Token::parse(&format!("{pin}.secret")).is_ok());
        assert!(Token::parse(&format!(" {pin}.secret.with.dots\n")).is_ok());
        for bad in ["", "secret", &format!("{pin}."), &format!("{pin}x.secret"), &pin, ".secret"] {
            let Err(error) = Token::parse(bad) else { panic!("accepted {bad}") };
            assert!(!error.to_string().contains("secret") || !bad.contains("secret") || error == TokenError);
        }
    }

    #[test]
    fn the_nonce_is_kept_for_the_next_attempt() {
        let dir = tempfile::tempdir().unwrap();
        let work = WorkDir::open(dir.path()).unwrap();
        let (first, second) = (Uuid::from_random([1; 16]), Uuid::from_random([2; 16]));
        assert_eq!(nonce_of(&work, first).unwrap(), first);
        assert_eq!(nonce_of(&work, second).unwrap(), first);
    }
}
