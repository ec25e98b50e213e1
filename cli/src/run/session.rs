//! A subscription to the scheduler API: events in, calls out, and a new connection when the old one breaks.

use std::time::Duration;

use bytes::Bytes;
use muster_http_api::{
    json,
    proto::{
        FrameworkId, FrameworkInfo,
        scheduler::{Call, Event},
    },
    recordio,
};
use muster_transport::http::{BodyStream, HeaderName, Method};
use tokio::time::{Instant, sleep, timeout};

use super::calls::{self, Offers};
use crate::api::{Api, ApiError};

const PATH: &str = "/api/v1/scheduler";
const STREAM_ID: HeaderName = HeaderName::from_static("mesos-stream-id");
const RECORD_BYTES_MAX: usize = 64 << 20;
/// Heartbeats come every 15 s; after four of them missing the connection is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Why a subscription failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("cannot subscribe as a framework")]
    Subscribe(#[source] ApiError),
    #[error("the control plane's event stream is not readable: {what}")]
    Unreadable { what: String },
    #[error("the control plane ended the framework: {message}")]
    Ended { message: String },
    #[error("the framework was removed by an operator, and its task with it")]
    Removed,
    #[error("the control plane cannot be reached for {} s", limit.as_secs())]
    Unreachable {
        limit: Duration,
        #[source]
        source: Box<SessionError>,
    },
    #[error("the event stream broke off")]
    Broken,
}

impl SessionError {
    /// Whether another try may succeed.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Subscribe(error) => error.may_pass(),
            Self::Broken => true,
            Self::Unreadable { .. } | Self::Ended { .. } | Self::Removed | Self::Unreachable { .. } => false,
        }
    }
}

/// One framework's subscription.
#[derive(Debug)]
pub(super) struct Session<'a> {
    api: &'a Api,
    info: FrameworkInfo,
    /// The id the control plane gave.
    pub(super) framework_id: String,
    offers: Offers,
    stream: Stream,
}

#[derive(Debug)]
struct Stream {
    id: String,
    body: BodyStream,
    decoder: recordio::Decoder,
}

impl<'a> Session<'a> {
    /// Subscribes for the first time.
    pub(super) async fn open(api: &'a Api, info: FrameworkInfo) -> Result<Self, SessionError> {
        let (stream, framework_id) = subscribe(api, &info, None, Offers::Wanted).await?;
        Ok(Self { api, info, framework_id, offers: Offers::Wanted, stream })
    }

    /// Waits for the next event. `Ok(None)` says that the connection broke: call [`Session::reopen`].
    pub(super) async fn next(&mut self) -> Result<Option<Event>, SessionError> {
        match self.stream.next().await {
            Ok(event) => match event.error {
                Some(error) => Err(ended(error.message)),
                None => Ok(Some(event)),
            },
            Err(SessionError::Broken) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Subscribes again with the same id, once.
    pub(super) async fn reopen_once(&mut self) -> Result<(), SessionError> {
        self.stream = subscribe(self.api, &self.info, Some(&self.framework_id), self.offers).await?.0;
        Ok(())
    }

    /// Subscribes again with the same id, trying for as long as the control plane keeps the framework.
    pub(super) async fn reopen(&mut self) -> Result<(), SessionError> {
        let limit = Duration::from_secs_f64(calls::FAILOVER_SECONDS);
        let end = Instant::now() + limit;
        let mut pause = RETRY_FIRST;
        loop {
            match self.reopen_once().await {
                Ok(()) => return Ok(()),
                Err(error) if !error.may_pass() => return Err(error),
                Err(error) if Instant::now() + pause > end => {
                    return Err(SessionError::Unreachable { limit, source: Box::new(error) });
                }
                Err(_) => sleep(pause).await,
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Wants no more offers, whichever node the framework comes to.
    pub(super) async fn suppress(&mut self) {
        self.offers = Offers::Suppressed;
        // A server that does not hear it only makes offers in vain.
        let _ = self.send(calls::suppress()).await;
    }

    /// Sends a call in this framework's name.
    pub(super) async fn send(&self, mut call: Call) -> Result<(), ApiError> {
        call.framework_id = Some(FrameworkId { value: self.framework_id.clone() });
        let body = Bytes::from(json::encode(&call));
        self.api.call(Method::POST, PATH, &[(STREAM_ID, &self.stream.id)], body).await.map(|_| ())
    }
}

impl Stream {
    /// Waits for the next event. Dropping the future loses nothing: what has come is in the decoder.
    async fn next(&mut self) -> Result<Event, SessionError> {
        loop {
            let unreadable = |what: String| SessionError::Unreadable { what };
            if let Some(record) = self.decoder.next_record().map_err(|error| unreadable(error.to_string()))? {
                return json::decode(&record).map_err(|error| unreadable(error.to_string()));
            }
            match timeout(SILENCE_MAX, self.body.chunk()).await {
                Ok(Ok(Some(chunk))) => self.decoder.push(&chunk),
                Ok(Ok(None) | Err(_)) | Err(_) => return Err(SessionError::Broken),
            }
        }
    }
}

async fn subscribe(
    api: &Api,
    info: &FrameworkInfo,
    id: Option<&str>,
    offers: Offers,
) -> Result<(Stream, String), SessionError> {
    let call = Bytes::from(json::encode(&calls::subscribe(info.clone(), id, offers)));
    let answer = api.stream(Method::POST, PATH, &[], call).await.map_err(SessionError::Subscribe)?;
    let stream_id = answer.headers.get(STREAM_ID).and_then(|value| value.to_str().ok());
    let id =
        stream_id.ok_or_else(|| SessionError::Unreadable { what: "it has no Mesos-Stream-Id".to_owned() })?.to_owned();
    let mut stream = Stream { id, body: answer.body, decoder: recordio::Decoder::new(RECORD_BYTES_MAX) };
    let first = stream.next().await?;
    match (first.subscribed, first.error) {
        (Some(subscribed), _) => Ok((stream, subscribed.framework_id.value)),
        (None, Some(error)) => Err(ended(error.message)),
        (None, None) => Err(SessionError::Unreadable { what: "it does not begin with SUBSCRIBED".to_owned() }),
    }
}

/// What an ERROR event says. Mesos has one text for a framework that was torn down, and no code for it.
fn ended(message: String) -> SessionError {
    if message.contains("has been removed") { SessionError::Removed } else { SessionError::Ended { message } }
}
