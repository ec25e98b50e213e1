//! One node of the control plane, and how long it is waited for.
//!
//! A node that is frozen takes connections and requests as one that is busy does. What tells them apart is a question that
//! every living node answers at once: only where that has no answer, too, is a slow call given up.

use std::{
    pin::pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use muster_transport::http::{BaseUrl, Client, HttpError, Limits, Method};
use tokio::time::{Instant, sleep};

use crate::say;

const PROBE_PATH: &str = "/health";
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
const PROBE_LIMITS: Limits = Limits {
    connect_timeout: PROBE_PATIENCE,
    answer_timeout: PROBE_PATIENCE,
    // Enough for whatever stands there instead of a node.
    body_bytes_max: 64 << 10,
};
/// How long a call is waited for before the node is probed, where another node can be asked; 2 s in all.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same where there is no other; 5 s in all until the user is told.
const PATIENCE_ALONE: Duration = Duration::from_secs(4);
/// A node that answered so recently need not be probed before a call that must not be sent twice.
const FRESH: Duration = Duration::from_secs(2);

/// What it does to send a call to a second node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Nothing that matters.
    Harmless,
    /// It might be done twice.
    Harmful,
}

/// Whether this is the only node that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    CanBeAsked,
    None,
}

/// What became of a call.
pub(super) enum Asked<T> {
    Answer(T),
    /// `was_sent`: the node may have acted on it.
    Failed {
        error: HttpError,
        was_sent: bool,
    },
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    client: Client,
    prober: Client,
    heard: Mutex<Option<Instant>>,
    is_told: AtomicBool,
}

impl Node {
    pub(super) fn new(base: BaseUrl, limits: Limits) -> Self {
        Self {
            prober: Client::new(base.clone(), PROBE_LIMITS),
            client: Client::new(base, limits),
            heard: Mutex::new(None),
            is_told: AtomicBool::new(false),
        }
    }

    pub(super) fn url(&self) -> String {
        self.client.base().to_string()
    }

    /// Says something about this node, the first time.
    pub(super) fn tell_once(&self, what: impl FnOnce() -> String) {
        if !self.is_told.swap(true, Ordering::Relaxed) {
            say(&what());
        }
    }

    /// Asks it. One that is frozen is given up after 2 s where others can be asked, unless a repeated call does harm: that
    /// is sent only to a node that has just answered, and then waited for.
    pub(super) async fn ask<T>(
        &self,
        repeat: Repeat,
        others: Others,
        ask: impl AsyncFn(&Client) -> Result<T, HttpError>,
    ) -> Asked<T> {
        if others == Others::CanBeAsked && repeat == Repeat::Harmful && !self.is_fresh() && !self.is_alive().await {
            return Asked::Failed { error: self.silent(PROBE_PATIENCE), was_sent: false };
        }
        let mut asked = pin!(ask(&self.client));
        let patience = if others == Others::CanBeAsked { PATIENCE } else { PATIENCE_ALONE };
        let outcome = loop {
            tokio::select! {
                outcome = &mut asked => break outcome,
                () = sleep(patience) => {}
            }
            let is_alive = tokio::select! {
                outcome = &mut asked => break outcome,
                is_alive = self.is_alive() => is_alive,
            };
            match (is_alive, others, repeat) {
                (true, _, _) => {}
                (false, Others::CanBeAsked, Repeat::Harmless) => {
                    break Err(self.silent(PATIENCE.saturating_add(PROBE_PATIENCE)));
                }
                (false, Others::None, _) | (false, Others::CanBeAsked, Repeat::Harmful) => {
                    self.tell_once(|| format!("{} does not answer, waiting", self.url()));
                }
            }
        };
        match outcome {
            Ok(answer) => {
                self.hear();
                Asked::Answer(answer)
            }
            Err(error) => {
                let was_sent = !matches!(error, HttpError::Connect { .. } | HttpError::Resolve { .. });
                Asked::Failed { error, was_sent }
            }
        }
    }

    /// Whether it answers at all; what it answers does not matter.
    async fn is_alive(&self) -> bool {
        let is_alive = self.prober.request(Method::GET, PROBE_PATH, &[], Bytes::new()).await.is_ok();
        if is_alive {
            self.hear();
        }
        is_alive
    }

    fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_fresh(&self) -> bool {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|heard| heard.elapsed() < FRESH)
    }

    fn silent(&self, limit: Duration) -> HttpError {
        HttpError::TimedOut { url: self.url(), limit }
    }
}
