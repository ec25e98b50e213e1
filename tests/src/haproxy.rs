//! Debian's `haproxy` as a plain load balancer in front of several nodes, as an operator would set it up.

use std::{net::SocketAddr, path::Path, process::Command};

use anyhow::Context;

use crate::{cluster::lasting_address, process::Process, wait};

/// A running load balancer; it ends when this value goes away.
#[derive(Debug)]
pub struct Haproxy {
    _process: Process,
    /// Hands out each request to the next node (`mode http`).
    pub by_request: SocketAddr,
    /// Hands out each connection to the next node (`mode tcp`).
    pub by_connection: SocketAddr,
}

impl Haproxy {
    /// Whether there is a `haproxy` to start.
    #[must_use]
    pub fn is_installed() -> bool {
        Command::new("haproxy").arg("-v").output().is_ok_and(|output| output.status.success())
    }

    /// Starts one in front of these addresses, and waits until it passes connections on.
    ///
    /// Errors: when it does not.
    pub fn start(dir: &Path, nodes: &[SocketAddr]) -> anyhow::Result<Self> {
        let (by_request, by_connection) = (lasting_address()?, lasting_address()?);
        let file = dir.join("haproxy.cfg");
        std::fs::write(&file, config(by_request, by_connection, nodes))?;
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(&file);
        let mut process = Process::spawn("haproxy", command, &dir.join("haproxy.log"))?;
        for address in [by_request, by_connection] {
            wait::until("haproxy to pass requests on", || {
                process.expect_running()?;
                Ok(crate::http::get(address, "/health").ok().filter(|answer| answer.status == 200).map(|_| ()))
            })
            .with_context(|| format!("haproxy said:\n{}", process.output()))?;
        }
        Ok(Self { _process: process, by_request, by_connection })
    }
}

/// As docs/how-to/run-several-nodes.md shows it, twice: by request and by connection.
fn config(by_request: SocketAddr, by_connection: SocketAddr, nodes: &[SocketAddr]) -> String {
    let mut text = "\
defaults
    timeout connect 2s
    timeout client  1h
    timeout server  1h
"
    .to_owned();
    // Each request to the next node, also those that come on one connection.
    for (name, mode, address) in [
        ("by-request", "http\n    option http-server-close\n    option httpchk GET /health", by_request),
        ("by-connection", "tcp", by_connection),
    ] {
        text.push_str(&format!("\nlisten {name}\n    bind {address}\n    mode {mode}\n    balance roundrobin\n"));
        for (number, node) in nodes.iter().enumerate() {
            text.push_str(&format!("    server node-{} {node} check inter 500ms\n", number + 1));
        }
    }
    text
}
