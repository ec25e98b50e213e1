//! Which addresses the programs listen on, and under which others reach them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use super::UpError;

/// Between the ports of one node and the next.
const PORTS_APART: u16 = 10;

/// The host of the HTTP API, so that a cluster on loopback is open to this machine only; the port 5 above.
pub(super) fn default_quic(listen: SocketAddr) -> SocketAddr {
    let port = if listen.port() == 0 { 0 } else { listen.port().checked_add(5).unwrap_or(0) };
    SocketAddr::new(listen.ip(), port)
}

/// The address of the node `index` (from 0): the ports of nodes are 10 apart. Port 0 stays: it takes a free one.
pub(super) fn of_node(mut address: SocketAddr, index: u16) -> SocketAddr {
    if address.port() != 0 {
        address.set_port(address.port().saturating_add(index.saturating_mul(PORTS_APART)));
    }
    address
}

/// The address with a port that is free, which it must be in any case.
pub(super) fn free_tcp(address: SocketAddr) -> Result<SocketAddr, UpError> {
    let bound = TcpListener::bind(address).and_then(|socket| socket.local_addr());
    bound.map_err(|source| UpError::InUse { address, flag: "--listen", source })
}

pub(super) fn free_udp(address: SocketAddr) -> Result<SocketAddr, UpError> {
    let bound = UdpSocket::bind(address).and_then(|socket| socket.local_addr());
    bound.map_err(|source| UpError::InUse { address, flag: "--quic", source })
}

/// A port of loopback that is free now.
pub(super) fn free_port() -> Result<u16, UpError> {
    free_tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).map(|address| address.port())
}

/// The address under which other machines reach a listener, as far as this machine can know.
pub(super) fn advertised(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    // Nothing is sent: the kernel only looks up which own address leads to one far away (RFC 5737 has it as an example).
    let own = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    SocketAddr::new(own.map_or(Ipv4Addr::LOCALHOST.into(), |own| own.ip()), address.port())
}

/// The address under which this machine itself reaches a listener.
pub(super) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_on_loopback_is_open_to_this_machine_only() {
        for (listen, quic) in [
            ("127.0.0.1:5050", "127.0.0.1:5055"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("0.0.0.0:6050", "0.0.0.0:6055"),
            ("[::1]:65535", "[::1]:0"),
        ] {
            let listen: SocketAddr = listen.parse().unwrap();
            assert_eq!(default_quic(listen).to_string(), quic, "case: {listen}");
        }
    }

    #[test]
    fn the_ports_of_nodes_are_apart() {
        for (address, index, expected) in [
            ("127.0.0.1:5050", 0, "127.0.0.1:5050"),
            ("127.0.0.1:5050", 2, "127.0.0.1:5070"),
            ("[::1]:0", 3, "[::1]:0"),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(of_node(address, index).to_string(), expected, "case: {address} {index}");
        }
    }
}
