//! Watches: told in order and without a gap, over lost connections; a watch that cannot promise that ends.

use std::sync::{Arc, OnceLock};

use muster_model::store_op::{Key, KeyKind};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, info};

use super::members::{Answers, Failure, FailureKind, Members, Patience};
use super::reads::stored;
use super::transaction::{Keys, RANGE, revision};
use crate::r#gen::event::EventType;
use crate::r#gen::watch_request::RequestUnion;
use crate::r#gen::{Event, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest, WatchResponse};
use crate::limits::{OPERATION_TIMEOUT, PAUSE, PAUSE_MAX, WATCH_CHANGES_MAX};
use crate::store::{Change, ReadError, Told, Watch, WatchError};

const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// Starts a watch. See [`crate::Store::watch`].
pub(super) async fn watch(
    members: Arc<Members>,
    keys: Keys,
    kind: KeyKind,
    after: u64,
    deadline: Instant,
) -> Result<Watch, WatchError> {
    let (sender, receiver) = mpsc::channel(WATCH_CHANGES_MAX);
    let end = Arc::new(OnceLock::new());
    let teller = Teller {
        keys,
        kind,
        place: Place { complete: after, partial: (0, 0) },
        is_away: false,
        news: sender,
        end: Arc::clone(&end),
    };
    let stream = teller.start(&members, deadline).await?;
    tokio::spawn(async move { teller.run(&members, stream).await });
    Ok(Watch { news: receiver, last: after, end })
}

/// How far a watch has told.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Every change up to this revision.
    complete: u64,
    /// And the first so many changes of this later revision.
    partial: (u64, usize),
}

/// Tells one watcher.
struct Teller {
    keys: Keys,
    kind: KeyKind,
    place: Place,
    /// The reader was told so.
    is_away: bool,
    news: mpsc::Sender<Told>,
    end: Arc<OnceLock<WatchError>>,
}

/// Why one stream is of no more use.
enum Ended {
    /// Another one may go on where it stopped.
    Interrupted(Arc<str>),
    /// The watch is over; the reader is told if there is something to tell.
    Over(Option<WatchError>),
}

impl Teller {
    async fn run(mut self, members: &Members, stream: Answers<WatchResponse>) {
        let mut stream = Some(stream);
        let mut pause = PAUSE;
        loop {
            let ended = match stream.take() {
                Some(mut stream) => self.tell_all(members, &mut stream).await,
                None => {
                    tokio::select! {
                        () = self.news.closed() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    match self.start(members, Instant::now() + OPERATION_TIMEOUT).await {
                        Ok(started) => {
                            info!(kind = self.kind.prefix(), after = self.place.complete, "watch goes on");
                            (stream, pause) = (Some(started), PAUSE);
                            match self.tell_standing(None) {
                                Ok(()) => continue,
                                Err(ended) => ended,
                            }
                        }
                        // One member that was lost is no outage: another one would have answered.
                        Err(WatchError::Unavailable { why }) => match self.tell_standing(Some(&why)) {
                            Ok(()) => Ended::Interrupted(why),
                            Err(ended) => ended,
                        },
                        Err(error) => Ended::Over(Some(error)),
                    }
                }
            };
            match ended {
                Ended::Interrupted(why) => {
                    debug!(kind = self.kind.prefix(), error = %why, "watch was interrupted");
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Ended::Over(error) => {
                    if let Some(error) = error {
                        let _ = self.end.set(error);
                    }
                    return;
                }
            }
        }
    }

    /// Tells the reader that etcd is away, and why, or that it is back; once each.
    fn tell_standing(&mut self, away: Option<&Arc<str>>) -> Result<(), Ended> {
        if self.is_away == away.is_some() {
            return Ok(());
        }
        self.is_away = away.is_some();
        let told = away.map_or(Told::Back, |why| Told::Away { why: Arc::clone(why) });
        // As in `tell`: a reader that is too slow is cut off.
        self.news.try_send(told).map_err(|_| Ended::Over(None))
    }

    /// Opens a stream that begins where the watch stands, and waits until etcd says that it is there.
    async fn start(&self, members: &Members, deadline: Instant) -> Result<Answers<WatchResponse>, WatchError> {
        let unavailable = |failure: Failure| WatchError::Unavailable { why: failure.why };
        self.check_history(members, deadline).await?;
        let (key, range_end) = self.keys.of_kind(self.kind);
        let start_revision = i64::try_from(self.place.complete.saturating_add(1)).unwrap_or(i64::MAX);
        let create = WatchCreateRequest { key, range_end, start_revision, progress_notify: true, fragment: true };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let mut stream: Answers<WatchResponse> =
            members.stream(WATCH, &request, Patience::repeated(deadline)).await.map_err(unavailable)?;
        let first = match tokio::time::timeout_at(deadline, members.next(&mut stream)).await {
            Ok(first) => first.map_err(unavailable)?,
            Err(_) => {
                members.give_up(&stream);
                return Err(WatchError::Unavailable { why: Arc::from("etcd did not begin to watch in time") });
            }
        };
        match first {
            Some(response) if response.created && !response.canceled => Ok(stream),
            Some(response) => Err(self.canceled(&response)),
            None => Err(WatchError::Unavailable { why: Arc::from("etcd ended the watch at once") }),
        }
    }

    /// Asks whether the changes after our place are all kept.
    ///
    /// etcd itself says so for a watch that begins before its last compaction, but for one that begins exactly there
    /// versions before 3.4.33 and 3.5.15 may leave out a removal. A read at the place is refused one revision earlier.
    async fn check_history(&self, members: &Members, deadline: Instant) -> Result<(), WatchError> {
        let at = i64::try_from(self.place.complete.max(1)).unwrap_or(i64::MAX);
        let request =
            RangeRequest { key: self.keys.of_generation(), revision: at, keys_only: true, ..RangeRequest::default() };
        match members.call::<_, RangeResponse>(RANGE, &request, Patience::repeated(deadline)).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.kind == FailureKind::Compacted => {
                Err(WatchError::TooOld { after: self.place.complete, oldest: self.place.complete.saturating_add(2) })
            }
            // The store is behind what was told already: it was restored from a copy.
            Err(failure) if failure.kind == FailureKind::Future => {
                Err(WatchError::CutOff { last: self.place.complete })
            }
            Err(failure) => Err(WatchError::Unavailable { why: failure.why }),
        }
    }

    async fn tell_all(&mut self, members: &Members, stream: &mut Answers<WatchResponse>) -> Ended {
        // Revision of the last change of this stream, and how many changes of it came.
        let mut seen = (0, 0);
        loop {
            let message = tokio::select! {
                () = self.news.closed() => return Ended::Over(None),
                message = members.next(stream) => message,
            };
            let response = match message {
                Ok(Some(response)) => response,
                Ok(None) => return Ended::Interrupted(Arc::from("etcd ended the watch")),
                Err(failure) => return Ended::Interrupted(failure.why),
            };
            if response.canceled {
                return match self.canceled(&response) {
                    WatchError::Unavailable { why } => Ended::Interrupted(why),
                    error => Ended::Over(Some(error)),
                };
            }
            for event in &response.events {
                if let Err(error) = self.tell(event, &mut seen) {
                    return Ended::Over(error);
                }
            }
            if !response.fragment {
                // Without a change it says up to which revision there is none.
                let sign_of_life = if response.events.is_empty() { response.header } else { None };
                let quiet_until = sign_of_life.map_or(0, |header| revision(header.revision));
                let complete = self.place.complete.max(seen.0).max(quiet_until);
                self.place = Place { complete, partial: (0, 0) };
            }
        }
    }

    /// Tells one change. An error ends the watch.
    fn tell(&mut self, event: &Event, seen: &mut (u64, usize)) -> Result<(), Option<WatchError>> {
        let at = revision(event.kv.as_ref().map_or(0, |kv| kv.mod_revision));
        if at != seen.0 {
            // Revisions come in order, so the one before is complete.
            self.place.complete = self.place.complete.max(seen.0);
            *seen = (at, 0);
        }
        seen.1 += 1;
        // The stream before this one may have broken between two changes of one revision.
        let (revision, told_count) = self.place.partial;
        if at == revision && seen.1 <= told_count {
            return Ok(());
        }
        self.place.partial = *seen;
        let Some(change) = self.change(event).map_err(Some)? else { return Ok(()) };
        // A reader that is too slow is cut off, and reads again.
        self.news.try_send(Told::Change(change)).map_err(|_| None)
    }

    fn change(&self, event: &Event) -> Result<Option<Change>, WatchError> {
        let Some(kv) = &event.kv else { return Ok(None) };
        let damaged = |error| match error {
            ReadError::Damaged { path, why } => WatchError::Damaged { path, why },
            ReadError::Unavailable { why } => WatchError::Unavailable { why },
        };
        if event.r#type == i32::from(EventType::Put) {
            return Ok(stored(&self.keys, kv).map_err(damaged)?.map(Change::Put));
        }
        // The removal of what is no key of ours is none of our readers' business.
        let key = self.keys.path(&kv.key).and_then(|path| Key::parse(&path));
        Ok(key.map(|key| Change::Deleted { key, revision: revision(kv.mod_revision) }))
    }

    fn canceled(&self, response: &WatchResponse) -> WatchError {
        if response.compact_revision > 0 {
            let oldest = revision(response.compact_revision).saturating_add(1);
            return WatchError::TooOld { after: self.place.complete, oldest };
        }
        WatchError::Unavailable { why: Arc::from(format!("etcd ended the watch: {}", response.cancel_reason)) }
    }
}
