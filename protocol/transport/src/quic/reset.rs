//! What lets a restarted node tell its former peers that their connections are gone.
//!
//! A QUIC server that restarts knows no connection. If its reset tokens come from a key that outlives it, it can answer
//! the first packet of an old connection with a stateless reset (RFC 9000, 10.3), and the peer comes back within a round
//! trip instead of after its idle timeout. Connection ids are plain random then: hashed ones of another process would be
//! dropped without an answer.

use std::sync::Arc;

use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};

const ID_BYTES: usize = 8;

/// Settings of an endpoint whose reset tokens come from this key.
pub(super) fn endpoint_config(key: &[u8; 32]) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key)));
    config.cid_generator(|| Box::new(RandomIds(SystemRandom::new())));
    config
}

struct RandomIds(SystemRandom);

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        // Without entropy TLS fails long before; an id that repeats only ends its connection.
        let _ = self.0.fill(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}
