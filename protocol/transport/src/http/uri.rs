//! Where a client connects: `http://HOST[:PORT][/prefix]`.

use std::fmt;
use std::str::FromStr;

/// The part of a URL that all calls of one client share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    authority: String,
    host_port: String,
    prefix: String,
}

/// A text that is no base URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme.
    #[error("`{url}` must start with http://; other schemes are not supported, put a proxy in front that speaks them")]
    Scheme {
        /// The text.
        url: String,
    },
    /// No host, a user name, a query, or characters that do not belong into a URL.
    #[error("`{url}` is not of the form http://HOST[:PORT][/PREFIX]")]
    Malformed {
        /// The text.
        url: String,
    },
}

impl BaseUrl {
    /// Returns `HOST:PORT` to connect to.
    pub fn host_port(&self) -> &str {
        &self.host_port
    }

    /// Returns what goes into the `Host` header.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// Joins the prefix and a path that starts with `/`.
    pub(super) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.prefix)
    }
}

impl FromStr for BaseUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        let rest = url.strip_prefix("http://").ok_or_else(|| UrlError::Scheme { url: url.to_owned() })?;
        let malformed = || UrlError::Malformed { url: url.to_owned() };
        let (authority, prefix) = match rest.find('/') {
            Some(slash) => rest.split_at_checked(slash).ok_or_else(malformed)?,
            None => (rest, ""),
        };
        let parsed: hyper::http::uri::Authority = authority.parse().map_err(|_| malformed())?;
        let prefix = prefix.trim_end_matches('/');
        let is_plain = !authority.contains('@') && !prefix.contains(['?', '#', ' ']) && prefix.is_ascii();
        if parsed.host().is_empty() || !is_plain {
            return Err(malformed());
        }
        let port = parsed.port_u16().unwrap_or(80);
        // `host_port` of "h:" or "h:99999" would differ from what the text says.
        if parsed.port_u16().is_none() && authority.len() != parsed.host().len() {
            return Err(malformed());
        }
        let host_port = format!("{}:{port}", parsed.host());
        Ok(Self { authority: authority.to_owned(), host_port, prefix: prefix.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        for (url, expected) in [
            ("http://127.0.0.1:5050", Some(("127.0.0.1:5050", "/x"))),
            ("http://cp.example.org", Some(("cp.example.org:80", "/x"))),
            ("http://[::1]:5050/", Some(("[::1]:5050", "/x"))),
            ("http://h:1/a/b/", Some(("h:1", "/a/b/x"))),
            ("https://h:1", None),
            ("h:1", None),
            ("http://", None),
            ("http://h:99999", None),
            ("http://h:", None),
            ("http://u@h:1", None),
            ("http://h:1/a?b=c", None),
            ("http://h h:1", None),
        ] {
            let parsed = url.parse::<BaseUrl>().ok();
            let got = parsed.as_ref().map(|base| (base.host_port(), base.path("/x")));
            assert_eq!(got, expected.map(|(host, path)| (host, path.to_owned())), "case: {url}");
        }
    }
}
