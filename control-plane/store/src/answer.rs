//! Answers of the thread behind a store, and what it means that a request was not handed over or never answered.

use std::sync::Arc;

use muster_model::store_op::PersistError;
use tokio::sync::oneshot;

use crate::store::{ReadError, WatchError};

/// What is said of an answer that was lost.
pub(crate) const NO_ANSWER: &str = "its thread ended before it answered";

/// An error that can say that there is no answer.
pub(crate) trait NoAnswer {
    /// The request was not handed over, for this reason: nothing was done.
    fn not_sent(why: Arc<str>) -> Self;

    /// The request was handed over and its answer was lost.
    fn lost(why: Arc<str>) -> Self;
}

impl NoAnswer for ReadError {
    fn not_sent(why: Arc<str>) -> Self {
        Self::Unavailable { why }
    }

    fn lost(why: Arc<str>) -> Self {
        Self::Unavailable { why }
    }
}

impl NoAnswer for WatchError {
    fn not_sent(why: Arc<str>) -> Self {
        Self::Unavailable { why }
    }

    fn lost(why: Arc<str>) -> Self {
        Self::Unavailable { why }
    }
}

impl NoAnswer for PersistError {
    fn not_sent(why: Arc<str>) -> Self {
        Self::Unavailable { why }
    }

    fn lost(why: Arc<str>) -> Self {
        Self::Unknown { why }
    }
}

/// Waits for the answer to a request that was sent, or not.
pub(crate) async fn answered<T, E: NoAnswer>(
    sent: Result<(), Arc<str>>,
    answer: oneshot::Receiver<Result<T, E>>,
) -> Result<T, E> {
    sent.map_err(E::not_sent)?;
    answer.await.unwrap_or_else(|_| Err(E::lost(Arc::from(NO_ANSWER))))
}
