//! The numbers of QUIC that differ between a node with 100,000 connections and an agent with two.

use std::sync::Arc;
use std::time::Duration;

use quinn::{AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

/// Bytes of one stream that an agent may send to a node ahead of the reader. It bounds a log's speed to this much a round
/// trip (320 KB/s over 200 ms), and what of it can stand in a queue before a status update on a slow link.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// Bulk streams that an agent answers at once, and some that it refuses.
const BULK_STREAMS_MAX: u32 = 24;

/// Room for the control stream and the reports when all bulk streams are full.
const CONTROL_RESERVE_BYTES: u32 = 512 * 1024;

/// What fits a packet of Ethernet's usual 1500 bytes, after the heads of IPv6 and UDP.
const PACKET_BYTES: u16 = 1452;

/// Packets that the QUIC stack hands to the kernel in one call, at most.
const PACKETS_PER_CALL: u16 = 10;

/// What fits the jumbo frames that data centres carry between their machines, and [`PACKETS_PER_CALL`] times into the
/// 65,507 bytes that the kernel takes in one call. Of more than that it sends nothing, and quinn takes it for lost.
const LARGE_PACKET_BYTES: u16 = 6500;

const _: () = assert!(LARGE_PACKET_BYTES as u32 * PACKETS_PER_CALL as u32 <= 65_507, "a full call is sent");

/// Settings of an endpoint's connections and of its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// How often a packet is sent when there is nothing to say. `None`: the other side does it.
    pub keep_alive_interval: Option<Duration>,
    /// Silence after which the connection is given up. The smaller of both sides' values counts.
    pub idle_timeout: Duration,
    /// Two-way streams that the peer may have open.
    pub peer_bidi_streams_max: u32,
    /// One-way streams that the peer may have open.
    pub peer_uni_streams_max: u32,
    /// Bytes of one stream that the peer may send ahead of the reader.
    pub stream_window_bytes: u32,
    /// Bytes of all streams of a connection that the peer may send ahead of the readers.
    pub connection_window_bytes: u32,
    /// Bytes of all streams that we keep until the peer confirms them; writers wait beyond.
    pub send_window_bytes: u32,
    /// Bytes of datagrams kept in each direction; the oldest are dropped beyond.
    pub datagram_buffer_bytes: u32,
    /// Largest packet that is tried on a path (RFC 8899) and taken from a peer; both sides' smaller value counts.
    pub packet_bytes_max: u16,
    /// Packets after which the peer is asked to confirm them at once; earlier ones it confirms within 25 ms.
    pub packets_per_ack: u32,
    /// What the kernel keeps of arrived packets. It may give less (`net.core.rmem_max`).
    pub socket_receive_bytes: usize,
    /// What the kernel keeps of packets to send. It may give less (`net.core.wmem_max`).
    pub socket_send_bytes: usize,
}

impl Tuning {
    /// For a node: small windows, since they are multiplied by the number of agents; the agents keep connections alive.
    pub const fn node(idle_timeout: Duration) -> Self {
        Self {
            keep_alive_interval: None,
            idle_timeout,
            peer_bidi_streams_max: 16,
            peer_uni_streams_max: 16,
            stream_window_bytes: STREAM_WINDOW_BYTES,
            // Not reserved, only allowed. What readers leave lying in bulk streams counts against it, and the control
            // stream must not wait for them.
            connection_window_bytes: BULK_STREAMS_MAX * STREAM_WINDOW_BYTES + CONTROL_RESERVE_BYTES,
            send_window_bytes: 256 * 1024,
            datagram_buffer_bytes: 32 * 1024,
            packet_bytes_max: LARGE_PACKET_BYTES,
            packets_per_ack: 5,
            socket_receive_bytes: 4 * 1024 * 1024,
            socket_send_bytes: 2 * 1024 * 1024,
        }
    }

    /// For an agent: two connections, so windows may be larger; it keeps them alive at `keep_alive_interval`.
    pub const fn agent(keep_alive_interval: Duration, idle_timeout: Duration) -> Self {
        Self {
            keep_alive_interval: Some(keep_alive_interval),
            idle_timeout,
            peer_bidi_streams_max: 32,
            peer_uni_streams_max: 32,
            stream_window_bytes: 256 * 1024,
            connection_window_bytes: 1024 * 1024,
            // Full bulk streams, each as far ahead as a node allows, leave room for the control stream.
            send_window_bytes: BULK_STREAMS_MAX * STREAM_WINDOW_BYTES + CONTROL_RESERVE_BYTES,
            datagram_buffer_bytes: 32 * 1024,
            packet_bytes_max: PACKET_BYTES,
            packets_per_ack: 2,
            socket_receive_bytes: 256 * 1024,
            socket_send_bytes: 256 * 1024,
        }
    }

    pub(super) fn transport(&self) -> Arc<TransportConfig> {
        let mut transport = TransportConfig::default();
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.packet_bytes_max);
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(VarInt::from_u32(self.packets_per_ack.saturating_sub(1)));
        // An idle timeout beyond QUIC's range (2^62 ms) means none.
        transport
            .max_idle_timeout(IdleTimeout::try_from(self.idle_timeout).ok())
            .keep_alive_interval(self.keep_alive_interval)
            .max_concurrent_bidi_streams(VarInt::from_u32(self.peer_bidi_streams_max))
            .max_concurrent_uni_streams(VarInt::from_u32(self.peer_uni_streams_max))
            .stream_receive_window(VarInt::from_u32(self.stream_window_bytes))
            .receive_window(VarInt::from_u32(self.connection_window_bytes))
            .send_window(u64::from(self.send_window_bytes))
            .datagram_receive_buffer_size(usize::try_from(self.datagram_buffer_bytes).ok())
            .datagram_send_buffer_size(usize::try_from(self.datagram_buffer_bytes).unwrap_or(usize::MAX))
            // Congestion control is the default, Cubic. Over 200 ms and 5 % loss it carries 26 KB/s of logs. BBR, which quinn
            // calls experimental, began at 200 KB/s, lost a sixth of its packets in a pipe of 500 KB/s, and fell to 30.
            .mtu_discovery_config(Some(discovery))
            .ack_frequency_config(Some(acks))
            .crypto_buffer_size(16 * 1024)
            // Streams of the same priority are served in turn, so one log does not hold up another.
            .send_fairness(true);
        Arc::new(transport)
    }

    /// Has an endpoint take packets as large as are tried.
    pub(super) fn apply(&self, endpoint: &mut EndpointConfig) {
        // It refuses only less than QUIC's smallest packet.
        let _ = endpoint.max_udp_payload_size(self.packet_bytes_max.max(PACKET_BYTES));
    }
}
