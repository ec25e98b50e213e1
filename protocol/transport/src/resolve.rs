//! Host names to addresses without the C library: a static program has no name service switch, and its lookups would
//! need a thread.
//!
//! In this order: an address in text, `localhost`, `/etc/hosts`, then the name servers of `/etc/resolv.conf` over UDP
//! (A first, AAAA if there is none). No cache: callers connect seldom.

mod dns;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::limits::{NAME_SERVERS_MAX, RESOLVED_ADDRESSES_MAX, RESOLVER_FILE_BYTES_MAX};

/// A `HOST:PORT` that leads to no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Not of that form.
    #[error("`{text}` is not HOST:PORT; write e.g. 192.0.2.7:5055, cp.example.org:5055 or [2001:db8::7]:5055")]
    Malformed {
        /// The text.
        text: String,
    },
    /// No one knows the name.
    #[error("host name `{host}` is neither in {} nor known to the name servers ({servers}); check its spelling", hosts.display())]
    Unknown {
        /// The name.
        host: String,
        /// The file that was searched.
        hosts: PathBuf,
        /// The servers that were asked.
        servers: String,
    },
    /// No name server answered.
    #[error("cannot look up host name `{host}`: no answer from the name servers ({servers}); check {} or use an address", configuration.display())]
    NoAnswer {
        /// The name.
        host: String,
        /// The servers that were asked.
        servers: String,
        /// Where they are configured.
        configuration: PathBuf,
        /// The last failure.
        #[source]
        source: io::Error,
    },
}

/// Where names are looked up.
#[derive(Debug, Clone)]
pub struct Resolver {
    hosts: PathBuf,
    configuration: PathBuf,
    server_port: u16,
}

impl Resolver {
    /// Uses `/etc/hosts` and `/etc/resolv.conf`.
    pub fn system() -> Self {
        Self::from_files(Path::new("/etc/hosts"), Path::new("/etc/resolv.conf"), 53)
    }

    /// Uses other files, and another port of the name servers.
    pub fn from_files(hosts: &Path, configuration: &Path, server_port: u16) -> Self {
        Self { hosts: hosts.to_owned(), configuration: configuration.to_owned(), server_port }
    }

    /// Finds the addresses of `HOST:PORT`, at least one, at most [`RESOLVED_ADDRESSES_MAX`].
    pub async fn lookup(&self, text: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        if let Ok(address) = text.parse() {
            return Ok(vec![address]);
        }
        let malformed = || ResolveError::Malformed { text: text.chars().take(300).collect() };
        let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
        let port: u16 = port.parse().map_err(|_| malformed())?;
        let host = host.strip_suffix('.').unwrap_or(host);
        if !dns::is_host_name(host) {
            return Err(malformed());
        }
        let addresses = self.lookup_host(host).await?;
        Ok(addresses.into_iter().take(RESOLVED_ADDRESSES_MAX).map(|address| SocketAddr::new(address, port)).collect())
    }

    async fn lookup_host(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        // An unreadable file is as good as an empty one, as it is for the C library.
        let known = hosts_of(&read(&self.hosts).unwrap_or_default(), host);
        if !known.is_empty() {
            return Ok(known);
        }
        if host.eq_ignore_ascii_case("localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let configuration = Configuration::parse(&read(&self.configuration).unwrap_or_default());
        let servers: Vec<SocketAddr> =
            configuration.servers.iter().map(|server| SocketAddr::new(*server, self.server_port)).collect();
        let listed = servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let mut failure = None;
        for name in configuration.candidates(host) {
            match dns::lookup(&name, &servers).await {
                Ok(found) if !found.is_empty() => return Ok(found),
                Ok(_) => {}
                Err(error) => failure = Some(error),
            }
        }
        let host = host.to_owned();
        Err(match failure {
            Some(source) => {
                let configuration = self.configuration.clone();
                ResolveError::NoAnswer { host, servers: listed, configuration, source }
            }
            None => ResolveError::Unknown { host, hosts: self.hosts.clone(), servers: listed },
        })
    }
}

/// What we use of resolv.conf(5):
/// ```text
/// nameserver 10.0.2.3
/// search eu.example.org example.org
/// ```
struct Configuration {
    servers: Vec<IpAddr>,
    search: Vec<String>,
}

impl Configuration {
    fn parse(text: &str) -> Self {
        let mut parsed = Self { servers: Vec::new(), search: Vec::new() };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => parsed.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok())),
                Some("search" | "domain") => parsed.search = words.take(6).map(str::to_owned).collect(),
                _ => {}
            }
        }
        parsed.servers.truncate(NAME_SERVERS_MAX);
        if parsed.servers.is_empty() {
            // resolv.conf(5): "If no nameserver entries are present, the default is to use the name server on the local machine."
            parsed.servers.push(Ipv4Addr::LOCALHOST.into());
        }
        parsed
    }

    /// The names to ask for, in order: a name with a dot is tried as it is first (resolv.conf(5), `ndots:1`).
    fn candidates(&self, host: &str) -> Vec<String> {
        let mut names: Vec<String> = self.search.iter().map(|domain| format!("{host}.{domain}")).collect();
        let place = if host.contains('.') { 0 } else { names.len() };
        names.insert(place, host.to_owned());
        names.retain(|name| dns::is_host_name(name));
        names
    }
}

/// Searches hosts(5): `127.0.1.1  edge-7.example.org  edge-7`.
fn hosts_of(text: &str, host: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        if words.any(|name| name.eq_ignore_ascii_case(host)) && seen.insert(address) {
            found.push(address);
        }
    }
    found
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(RESOLVER_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_file_is_searched_by_any_name_without_case() {
        let text = "127.0.0.1 localhost\n# 9.9.9.9 a\n10.0.0.7\tedge-7.example.org Edge-7 # a\n::1 edge-7\n10.0.0.7 edge-7\nbad a\n";
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (host, expected) in
            [("edge-7", vec![ip("10.0.0.7"), ip("::1")]), ("EDGE-7.example.org", vec![ip("10.0.0.7")]), ("a", vec![])]
        {
            assert_eq!(hosts_of(text, host), expected, "case: {host}");
        }
    }

    #[test]
    fn search_domains_come_before_a_bare_name_and_after_a_dotted_one() {
        let parsed =
            Configuration::parse("; comment\nsearch one.org two.org\nnameserver 10.0.0.1\nnameserver x\noptions y\n");
        assert_eq!(parsed.servers, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(parsed.candidates("cp"), ["cp.one.org", "cp.two.org", "cp"]);
        assert_eq!(parsed.candidates("cp.eu"), ["cp.eu", "cp.eu.one.org", "cp.eu.two.org"]);
        assert_eq!(Configuration::parse("").servers, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
    }
}
