//! A small HTTP/1.1 client for our own APIs: whole answers with a limit, or streamed ones.
//!
//! One kept connection at most; a streamed answer has a connection of its own, so a log that is followed never holds up
//! a call. No TLS, redirects, cookies, compression or proxies: callers get what the server said.

mod client;
mod error;
mod uri;

pub use client::{BodyStream, Client, Limits, Response, StreamingResponse};
pub use error::HttpError;
pub use hyper::header::{self, HeaderName};
pub use hyper::{HeaderMap, Method, StatusCode};
pub use uri::{BaseUrl, UrlError};
