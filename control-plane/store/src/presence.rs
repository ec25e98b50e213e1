//! A record that is there for as long as this process shows signs of life.

use std::fmt;
use std::time::Duration;

use tokio::sync::watch;

use crate::store::Pending;

/// Where a kept record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is there, for all that this process knows.
    Held,
    /// The store could not be reached for the time that the record is kept, so others may see it gone. It is written
    /// again by itself once the store is back; then it is held again.
    Lost,
    /// It was lost and another run wrote its own meanwhile, or the store was closed. This is final.
    Replaced,
}

/// Keeps a record in the store. Dropping it takes the record back, without waiting for it.
pub struct Presence {
    standing: watch::Receiver<Standing>,
    ttl: Duration,
    /// Whether the end was told.
    is_over: bool,
    release: Option<Box<dyn FnOnce() -> Pending<()> + Send + Sync>>,
}

impl Presence {
    /// `release` hands over the request to take the record back; what it returns waits until that is done.
    pub(crate) fn new(
        standing: watch::Receiver<Standing>,
        ttl: Duration,
        release: impl FnOnce() -> Pending<()> + Send + Sync + 'static,
    ) -> Self {
        Self { standing, ttl, is_over: false, release: Some(Box::new(release)) }
    }

    /// Returns how long the record stays without a sign of life; the store may have made it longer than asked for.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Returns where the record stands now.
    pub fn standing(&self) -> Standing {
        let standing = *self.standing.borrow();
        if self.standing.has_changed().is_err() { Standing::Replaced } else { standing }
    }

    /// Waits until it stands otherwise than it did when this was last asked, and returns how. Never returns after
    /// [`Standing::Replaced`].
    pub async fn changed(&mut self) -> Standing {
        if self.is_over {
            return std::future::pending().await;
        }
        let standing = match self.standing.changed().await {
            Ok(()) => *self.standing.borrow_and_update(),
            Err(_) => Standing::Replaced,
        };
        self.is_over = standing == Standing::Replaced;
        standing
    }

    /// Waits until the record is no longer held. Returns at once if it is not.
    pub async fn lost(&mut self) {
        // An error says that nothing keeps the record any more.
        let _ = self.standing.wait_for(|standing| *standing != Standing::Held).await;
    }

    /// Takes the record back and waits until it is done, or until it is left to vanish by itself.
    pub async fn end(mut self) {
        if let Some(release) = self.release.take() {
            release().await;
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            drop(release());
        }
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").field("standing", &self.standing()).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}
