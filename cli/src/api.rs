//! Calls to the control plane over HTTP, and what can be wrong with their answers.

use std::time::Duration;

use bytes::Bytes;
use muster_transport::http::{
    BaseUrl, Client, HttpError, Limits, Method, StatusCode, StreamingResponse, UrlError, header,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::endpoints;

const LIMITS: Limits = Limits {
    connect_timeout: Duration::from_secs(5),
    answer_timeout: Duration::from_secs(60),
    // The state of 100,000 agents in JSON is about this large.
    body_bytes_max: 256 << 20,
};
/// Of an error's text; more would fill the terminal.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("the control plane's URL is wrong; set --url or MUSTER_URL")]
    Url(#[source] UrlError),
    #[error("no answer from the control plane")]
    Http(#[from] HttpError),
    #[error("the control plane refused {what} ({status}): {text}")]
    Refused { what: String, status: StatusCode, text: String },
    #[error("the answer to {what} is not what this version of muster expects; are both of one version?")]
    Misfit {
        what: String,
        #[source]
        source: serde_json::Error,
    },
}

impl ApiError {
    /// Whether another try may bring an answer.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Http(_) => true,
            Self::Refused { status, .. } => status.is_server_error(),
            Self::Url(_) | Self::Misfit { .. } => false,
        }
    }
}

/// A connection to one control plane.
#[derive(Debug)]
pub(crate) struct Api {
    client: Client,
}

impl Api {
    /// Opens nothing yet.
    pub(crate) fn new(url: &str) -> Result<Self, ApiError> {
        let base: BaseUrl = url.parse().map_err(ApiError::Url)?;
        Ok(Self { client: Client::new(base, LIMITS) })
    }

    /// The URL that calls go to.
    pub(crate) fn url(&self) -> String {
        self.client.base().to_string()
    }

    /// GET of JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let body = self.call(Method::GET, path, &[], Bytes::new()).await?;
        read(&format!("GET {path}"), &body)
    }

    /// POST of JSON with a JSON answer.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, ApiError> {
        let answer = self.call(Method::POST, path, &[], Bytes::from(body.to_string())).await?;
        read(&format!("POST {path}"), &answer)
    }

    /// DELETE.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), ApiError> {
        self.call(Method::DELETE, path, &[], Bytes::new()).await.map(|_| ())
    }

    /// One call with JSON and any headers; the body of an answer with a status of 200 to 299.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, &str)],
        body: Bytes,
    ) -> Result<Bytes, ApiError> {
        let what = format!("{method} {path}");
        let answer = self.client.request(method, path, &all(headers), body).await?;
        if answer.status.is_success() {
            return Ok(answer.body);
        }
        Err(refused(what, answer.status, &answer.body))
    }

    /// A call whose answer goes on.
    pub(crate) async fn stream(
        &self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, &str)],
        body: Bytes,
    ) -> Result<StreamingResponse, ApiError> {
        let what = format!("{method} {path}");
        let mut answer = self.client.stream(method, path, &all(headers), body).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let text = answer.body.read_all(ERROR_BYTES_MAX).await?;
        Err(refused(what, answer.status, &text))
    }
}

fn all<'a>(headers: &[(header::HeaderName, &'a str)]) -> Vec<(header::HeaderName, &'a str)> {
    let json = "application/json";
    let mut all = vec![(header::CONTENT_TYPE, json), (header::ACCEPT, json)];
    all.extend_from_slice(headers);
    all
}

fn refused(what: String, status: StatusCode, body: &[u8]) -> ApiError {
    let body = body.get(..ERROR_BYTES_MAX).unwrap_or(body);
    let text = String::from_utf8_lossy(body);
    // Muster's own API says errors in JSON, Mesos's as plain text.
    let text = endpoints::fault(&text).unwrap_or_else(|| text.trim().to_owned());
    ApiError::Refused { what, status, text }
}

fn read<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|source| ApiError::Misfit { what: what.to_owned(), source })
}

/// Writes a text so that it can stand in a path or a query.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped() {
        assert_eq!(escape("a-1.b_c~"), "a-1.b_c~");
        assert_eq!(escape("a/b?c=ü &"), "a%2Fb%3Fc%3D%C3%BC%20%26");
    }

    #[test]
    fn errors_show_what_the_server_said() {
        for (body, wanted) in
            [("{\"error\":\"no such task\"}", "no such task"), ("plain words\n", "plain words"), ("", "")]
        {
            let error = refused("GET /x".to_owned(), StatusCode::NOT_FOUND, body.as_bytes());
            assert_eq!(
                error.to_string(),
                format!("the control plane refused GET /x (404 Not Found): {wanted}"),
                "case: {body}"
            );
        }
    }
}
