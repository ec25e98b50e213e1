//! Why a call over HTTP has no answer.

use std::io;
use std::time::Duration;

use crate::resolve::ResolveError;

/// A call without a usable answer. An answer with an error status is not one of these.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The host name leads nowhere.
    #[error("cannot connect to {url}")]
    Resolve {
        /// Where to.
        url: String,
        /// Why.
        #[source]
        source: ResolveError,
    },
    /// Nobody listens there, or the way is blocked.
    #[error("cannot connect to {url}; check that it is running and reachable")]
    Connect {
        /// Where to.
        url: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Path, header or method that HTTP does not allow.
    #[error("cannot send {what} to {url}: not valid in HTTP")]
    BadRequest {
        /// Where to.
        url: String,
        /// What it was.
        what: String,
    },
    /// The connection broke, or what came is not HTTP. The server may or may not have acted.
    #[error("connection to {url} broke off; the server may or may not have acted on the request")]
    Broken {
        /// Where to.
        url: String,
        /// The HTTP stack's words.
        #[source]
        source: hyper::Error,
    },
    /// No answer in time. The server may or may not have acted.
    #[error("no answer from {url} within {limit:?}; the server may or may not have acted on the request")]
    TimedOut {
        /// Where to.
        url: String,
        /// How long was waited.
        limit: Duration,
    },
    /// More than the caller takes.
    #[error("answer of {url} is larger than the {max} bytes that are taken; ask for less")]
    BodyTooLarge {
        /// Where to.
        url: String,
        /// The limit.
        max: usize,
    },
}
