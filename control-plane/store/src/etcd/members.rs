//! The members of etcd: a connection to each, one of them in use, and what a failed call means.
//!
//! The one distinction that everything else rests on is whether a member may have done what it was asked:
//! [`FailureKind::Lost`] means that it may; every other kind that nothing was done.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, ConnectError, Status, Streaming};
use tonic_prost::ProstCodec;
use tracing::{info, warn};

use crate::limits::{ATTEMPT_TIMEOUT, CONNECT_TIMEOUT, MESSAGE_BYTES_MAX, PAUSE, PING_INTERVAL, PING_TIMEOUT};

/// A call that did not give an answer to work with.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    /// For people.
    pub(super) why: Arc<str>,
}

/// What is known about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// No connection, so nothing was sent.
    NotSent,
    /// The member is cut off from the others or they have no leader; nothing was done.
    NoLeader,
    /// etcd has no room; nothing was done.
    Full,
    /// The revision that was asked for is compacted away.
    Compacted,
    /// The revision that was asked for does not exist yet.
    Future,
    /// There is no such lease; nothing was done.
    NoLease,
    /// The answer is larger than [`MESSAGE_BYTES_MAX`].
    TooLarge,
    /// etcd refuses to do it; nothing was done.
    Refused,
    /// It was sent; what became of it is not known.
    Lost,
}

impl Failure {
    fn new(kind: FailureKind, why: impl Into<Arc<str>>) -> Self {
        Self { kind, why: why.into() }
    }

    /// Reads a status: made by etcd, or by the client for what happened on the way.
    fn of_status(member: &str, status: &Status) -> Self {
        let kind = kind_of_status(status);
        let mut why = format!("{member}: {}", status.message());
        let mut source = status.source();
        while let Some(error) = source {
            let text = error.to_string();
            if !why.contains(&text) {
                why.push_str(&format!(": {text}"));
            }
            source = error.source();
        }
        Self::new(kind, why)
    }
}

/// Texts are etcd's own, api/v3rpc/rpctypes/error.go: one gRPC code stands for several of its errors.
fn kind_of_status(status: &Status) -> FailureKind {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return FailureKind::NotSent;
        }
        source = error.source();
    }
    if status.source().is_some() {
        return FailureKind::Lost;
    }
    let says = |text: &str| status.message().contains(text);
    match status.code() {
        Code::Unavailable if status.message() == "etcdserver: no leader" => FailureKind::NoLeader,
        Code::ResourceExhausted if says("space exceeded") => FailureKind::Full,
        Code::InvalidArgument if says("too large") => FailureKind::Full,
        Code::OutOfRange if says("compacted") => FailureKind::Compacted,
        Code::OutOfRange if says("future revision") => FailureKind::Future,
        Code::OutOfRange if says("message length too large") => FailureKind::TooLarge,
        Code::NotFound if says("lease") => FailureKind::NoLease,
        Code::ResourceExhausted
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::Unimplemented => FailureKind::Refused,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => FailureKind::Lost,
    }
}

/// Whether a call may be made again when it is not known what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It changes nothing, or the same when done twice.
    Yes,
    /// It changes something.
    No,
}

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// After this it is given up.
    pub(super) deadline: Instant,
    /// One member may take so long, if the call may be made again.
    pub(super) attempt: Duration,
    pub(super) repeat: Repeat,
}

impl Patience {
    /// For a call that may be made again.
    pub(super) fn repeated(deadline: Instant) -> Self {
        Self { deadline, attempt: ATTEMPT_TIMEOUT, repeat: Repeat::Yes }
    }

    /// For a call that is sent once.
    pub(super) fn once(deadline: Instant) -> Self {
        Self { deadline, attempt: Duration::MAX, repeat: Repeat::No }
    }

    /// Time for the next attempt; `None` when too little is left to connect and then to know that nothing was sent.
    fn next(&self) -> Option<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.repeat {
            Repeat::Yes => (!left.is_zero()).then(|| left.min(self.attempt)),
            Repeat::No => (left > CONNECT_TIMEOUT).then_some(left),
        }
    }
}

/// One member and the connection to it. `serial` tells a connection from the ones before it.
struct Member {
    address: Arc<str>,
    endpoint: Endpoint,
    channel: Mutex<(u64, Channel)>,
}

/// All members that were named.
pub(super) struct Members {
    members: Vec<Member>,
    in_use: AtomicUsize,
    is_away: AtomicBool,
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.members.iter().map(|member| &member.address)).finish()
    }
}

/// A member's connection as a call uses it.
struct InUse {
    index: usize,
    address: Arc<str>,
    serial: u64,
    channel: Channel,
}

/// Answers that come one after the other, from one member.
pub(super) struct Answers<A> {
    stream: Streaming<A>,
    member: InUse,
}

impl InUse {
    async fn within<A>(&self, limit: Duration, call: impl Future<Output = Result<A, Status>>) -> Result<A, Failure> {
        match tokio::time::timeout(limit, call).await {
            Ok(outcome) => outcome.map_err(|status| Failure::of_status(&self.address, &status)),
            Err(_) => {
                let why = format!("{}: no answer within {} ms", self.address, limit.as_millis());
                Err(Failure::new(FailureKind::Lost, why))
            }
        }
    }
}

impl Members {
    /// Prepares connections; none is made yet. Must be called inside a runtime.
    pub(super) fn new(addresses: &[String]) -> Result<Self, Failure> {
        let mut members = Vec::with_capacity(addresses.len());
        for address in addresses {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))
                .map_err(|error| Failure::new(FailureKind::Refused, format!("{address}: {error}")))?
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .keep_alive_while_idle(false);
            let channel = Mutex::new((0, endpoint.connect_lazy()));
            members.push(Member { address: Arc::from(address.as_str()), endpoint, channel });
        }
        if members.is_empty() {
            return Err(Failure::new(FailureKind::Refused, "no member of etcd is named"));
        }
        Ok(Self { members, in_use: AtomicUsize::new(0), is_away: AtomicBool::new(false) })
    }

    /// All addresses, for messages.
    pub(super) fn addresses(&self) -> String {
        self.members.iter().map(|member| &*member.address).collect::<Vec<_>>().join(", ")
    }

    /// Makes a call and waits for its answer; goes to the next member where that is safe.
    pub(super) async fn call<Q, A>(&self, path: &'static str, request: &Q, patience: Patience) -> Result<A, Failure>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut tries = Tries::new(patience);
        while let Some((member, limit)) = tries.next(self) {
            match member.within(limit, unary(member.channel.clone(), request.clone(), path)).await {
                Ok(answer) => {
                    self.note_answer(&member);
                    return Ok(answer);
                }
                Err(failure) => tries.failed(self, &member, failure).await?,
            }
        }
        Err(tries.give_up())
    }

    /// Sends one request and returns the stream of answers to it.
    pub(super) async fn stream<Q, A>(
        &self,
        path: &'static str,
        request: &Q,
        patience: Patience,
    ) -> Result<Answers<A>, Failure>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut tries = Tries::new(patience);
        while let Some((member, limit)) = tries.next(self) {
            match member.within(limit, streamed(member.channel.clone(), request.clone(), path)).await {
                Ok(stream) => {
                    self.note_answer(&member);
                    return Ok(Answers { stream, member });
                }
                Err(failure) => tries.failed(self, &member, failure).await?,
            }
        }
        Err(tries.give_up())
    }

    /// Reads the next answer; `None` at the end. After a failure another member is in use.
    pub(super) async fn next<A>(&self, answers: &mut Answers<A>) -> Result<Option<A>, Failure> {
        answers.stream.message().await.map_err(|status| {
            self.leave(&answers.member);
            Failure::of_status(&answers.member.address, &status)
        })
    }

    /// Goes to another member: this one owes an answer.
    pub(super) fn give_up<A>(&self, answers: &Answers<A>) {
        self.renew(&answers.member);
        self.leave(&answers.member);
    }

    fn in_use(&self) -> Option<InUse> {
        let index = self.in_use.load(Ordering::Relaxed);
        let member = self.members.get(index)?;
        let (serial, channel) = member.channel.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some(InUse { index, address: Arc::clone(&member.address), serial, channel })
    }

    /// Uses the next member from now on, unless another call has already done so.
    fn leave(&self, member: &InUse) {
        let next = (member.index + 1) % self.members.len();
        let _ = self.in_use.compare_exchange(member.index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Lets go of a connection that does not answer: the next call makes a new one. Streams on it end by themselves.
    fn renew(&self, used: &InUse) {
        let Some(member) = self.members.get(used.index) else { return };
        let mut channel = member.channel.lock().unwrap_or_else(PoisonError::into_inner);
        if channel.0 == used.serial {
            *channel = (used.serial + 1, member.endpoint.connect_lazy());
        }
    }

    fn note_answer(&self, member: &InUse) {
        if self.is_away.swap(false, Ordering::Relaxed) {
            info!(member = %member.address, "etcd answers again");
        }
    }

    fn note_silence(&self, failure: &Failure) {
        if !self.is_away.swap(true, Ordering::Relaxed) {
            warn!(error = %failure.why, "no member of etcd can be used");
        }
    }
}

fn prepare<Q>(channel: Channel, request: Q) -> (Grpc<Channel>, tonic::Request<Q>) {
    let mut request = tonic::Request::new(request);
    // A member without a leader then says so, where it would otherwise wait for one.
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    (Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX), request)
}

async fn unary<Q, A>(channel: Channel, request: Q, path: &str) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let (mut grpc, request) = prepare(channel, request);
    let path = path.parse().map_err(|_| Status::invalid_argument(path))?;
    ready(&mut grpc).await?;
    Ok(grpc.unary(request, path, ProstCodec::<Q, A>::default()).await?.into_inner())
}

async fn streamed<Q, A>(channel: Channel, request: Q, path: &str) -> Result<Streaming<A>, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let (mut grpc, request) = prepare(channel, request);
    let path = path.parse().map_err(|_| Status::invalid_argument(path))?;
    ready(&mut grpc).await?;
    Ok(grpc.server_streaming(request, path, ProstCodec::<Q, A>::default()).await?.into_inner())
}

async fn ready(grpc: &mut Grpc<Channel>) -> Result<(), Status> {
    grpc.ready().await.map_err(|error| Status::from_error(Box::new(ConnectError(Box::new(error)))))
}

/// The tries of one call, from member to member.
struct Tries {
    patience: Patience,
    /// Members asked in this round.
    asked_count: usize,
    /// Whether one of them could at least be connected to.
    is_anyone_there: bool,
    last: Option<Failure>,
}

impl Tries {
    fn new(patience: Patience) -> Self {
        Self { patience, asked_count: 0, is_anyone_there: false, last: None }
    }

    /// Whom to ask next, and for how long; `None` when the time is over.
    fn next(&self, members: &Members) -> Option<(InUse, Duration)> {
        Some((members.in_use()?, self.patience.next()?))
    }

    /// Decides what follows from a failure. An error is the call's answer; otherwise it is tried again.
    async fn failed(&mut self, members: &Members, member: &InUse, failure: Failure) -> Result<(), Failure> {
        match failure.kind {
            FailureKind::NotSent | FailureKind::NoLeader => members.leave(member),
            FailureKind::Lost => {
                members.renew(member);
                members.leave(member);
                if self.patience.repeat == Repeat::No {
                    return Err(failure);
                }
            }
            FailureKind::Full
            | FailureKind::Compacted
            | FailureKind::Future
            | FailureKind::NoLease
            | FailureKind::TooLarge
            | FailureKind::Refused => return Err(failure),
        }
        self.asked_count += 1;
        self.is_anyone_there |= failure.kind != FailureKind::NotSent;
        if self.asked_count >= members.members.len() {
            members.note_silence(&failure);
            if !self.is_anyone_there {
                // Nobody listens; the caller is told at once and asks again at its own pace.
                return Err(failure);
            }
            // An election takes about a second.
            (self.asked_count, self.is_anyone_there) = (0, false);
            tokio::time::sleep(PAUSE).await;
        }
        self.last = Some(failure);
        Ok(())
    }

    fn give_up(self) -> Failure {
        let why = "it waited for other requests until its time was over";
        self.last.unwrap_or_else(|| Failure::new(FailureKind::NotSent, why))
    }
}
