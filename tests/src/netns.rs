//! Network namespaces of a test's own: a control plane, a NAT in front of an agent, and the agent. Nothing of the host's
//! network is touched.

use std::process::{Command, Stdio};

use anyhow::Context;

/// Where the control plane is.
pub const CONTROL_PLANE: &str = "10.99.0.1";
/// Where a second node of it is.
pub const SECOND_NODE: &str = "10.99.0.3";
/// Where the NAT's outer side is: what the control plane sees of the agent.
pub const NAT_OUTSIDE: &str = "10.99.0.2";
/// The variable by which a test knows that it runs in the control plane's namespace.
const INSIDE: &str = "MUSTER_E2E_NAMESPACES";

/// Three namespaces, joined in a row. They are removed when this value goes away.
#[derive(Debug)]
pub struct Namespaces {
    prefix: String,
}

impl Namespaces {
    /// Why this machine can't have them; `None` when it can.
    #[must_use]
    pub fn missing() -> Option<&'static str> {
        if !crate::wait::is_root() {
            return Some("needs root");
        }
        let has = |program: &str| {
            let found = Command::new("sh").args(["-c", &format!("command -v {program} >/dev/null")]).status();
            found.is_ok_and(|status| status.success())
        };
        if !(has("ip") && has("nft") && has("nsenter")) {
            return Some("needs ip, nft and nsenter (packages iproute2, nftables, util-linux)");
        }
        let probe = format!("mp{}", std::process::id());
        let can = run(&format!("ip netns add {probe}"))
            .and_then(|()| run(&format!("ip netns exec {probe} nft add table ip probe")));
        let _absent = run(&format!("ip netns del {probe} 2>/dev/null"));
        can.is_err().then_some("the kernel has no network namespaces or no nftables")
    }

    /// The names of the namespaces, when this test was started in the control plane's by [`Self::run_inside`].
    #[must_use]
    pub fn inside() -> Option<Self> {
        std::env::var(INSIDE).ok().map(|prefix| Self { prefix })
    }

    /// Makes the three. Out of the agent's passes UDP to one port of the control plane's nodes and what answers it, no more; in
    /// passes nothing, and the control plane has no route there.
    ///
    /// Errors: when the kernel or the tools refuse.
    pub fn new(quic_port: u16) -> anyhow::Result<Self> {
        let namespaces = Self { prefix: format!("me{}", std::process::id()) };
        let p = &namespaces.prefix;
        for command in [
            format!("ip netns add {p}c && ip netns add {p}n && ip netns add {p}a"),
            format!("ip -n {p}c link set lo up && ip -n {p}a link set lo up"),
            format!("ip -n {p}c link add c0 type veth peer name n0 netns {p}n"),
            format!("ip -n {p}a link add a0 type veth peer name n1 netns {p}n"),
            format!("ip -n {p}c addr add {CONTROL_PLANE}/24 dev c0 && ip -n {p}c addr add {SECOND_NODE}/24 dev c0"),
            format!("ip -n {p}c link set c0 up"),
            format!("ip -n {p}n addr add {NAT_OUTSIDE}/24 dev n0 && ip -n {p}n link set n0 up"),
            format!("ip -n {p}n addr add 10.98.0.1/24 dev n1 && ip -n {p}n link set n1 up"),
            format!("ip -n {p}a addr add 10.98.0.2/24 dev a0 && ip -n {p}a link set a0 up"),
            format!("ip -n {p}a route add default via 10.98.0.1"),
            format!("ip netns exec {p}n sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'"),
            format!(
                "ip netns exec {p}n nft 'add table ip muster; \
                 add chain ip muster outward {{ type nat hook postrouting priority 100 ; }}; \
                 add rule ip muster outward oifname n0 masquerade; \
                 add chain ip muster forward {{ type filter hook forward priority 0 ; policy drop ; }}; \
                 add rule ip muster forward iifname n1 oifname n0 ip daddr {{ {CONTROL_PLANE}, {SECOND_NODE} }} \
                 udp dport {quic_port} accept; \
                 add rule ip muster forward iifname n0 ct state established,related accept'"
            ),
        ] {
            run(&command)?;
        }
        Ok(namespaces)
    }

    /// Runs the test of this name once more, in the control plane's namespace.
    ///
    /// Errors: when it cannot be started or fails.
    pub fn run_inside(&self, test: &str) -> anyhow::Result<()> {
        let own = std::env::current_exe()?;
        let status = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}c", self.prefix))
            .arg(own)
            .args([test, "--exact", "--nocapture"])
            .env(INSIDE, &self.prefix)
            .status()
            .context("cannot run nsenter")?;
        anyhow::ensure!(status.success(), "{test} failed in its namespaces, see above");
        Ok(())
    }

    /// What starts a program in the agent's namespace.
    #[must_use]
    pub fn agent_launcher(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{}a", self.prefix)]
    }

    /// Gives the agent's machine another address; the old one is gone.
    ///
    /// Errors: when the kernel refuses.
    pub fn change_agent_address(&self) -> anyhow::Result<()> {
        let p = &self.prefix;
        run(&format!("ip -n {p}a addr add 10.98.0.77/24 dev a0 && ip -n {p}a addr del 10.98.0.2/24 dev a0"))?;
        // With the last address of its network a route may go.
        run(&format!("ip -n {p}a addr show a0 | grep -q 10.98.0.77 || ip -n {p}a addr add 10.98.0.77/24 dev a0"))?;
        run(&format!("ip -n {p}a route replace default via 10.98.0.1"))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // The one that runs inside did not make them.
        if std::env::var_os(INSIDE).is_none() {
            for name in ["a", "n", "c"] {
                let _absent = run(&format!("ip netns del {}{name} 2>/dev/null", self.prefix));
            }
        }
    }
}

fn run(command: &str) -> anyhow::Result<()> {
    let status = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).status()?;
    anyhow::ensure!(status.success(), "failed: {command}");
    Ok(())
}
