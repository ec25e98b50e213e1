//! When the home wants to be woken and for what: one moment per subject, the earliest first.

use alloc::collections::{BTreeMap, BTreeSet};
use muster_model::{FrameworkId, OfferId, Timestamp};

/// Why a home wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Why {
    /// A stream gets its next HEARTBEAT.
    Heartbeat,
    /// A framework's failover timeout is over.
    FailoverTimeout,
    /// An offer stayed unanswered too long.
    OfferTimeout,
    /// Owners that did not answer a new home are waited for no longer.
    FenceWait,
    /// A write that failed is tried again.
    StoreRetry,
    /// A question to owners stayed unanswered too long.
    QuestionWait,
}

/// What a moment is for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    Heartbeat(FrameworkId),
    Removal(FrameworkId),
    OfferTimeout(OfferId),
    FenceWait(FrameworkId),
    StoreRetry(FrameworkId),
    Questions(FrameworkId),
}

impl Timer {
    const fn why(&self) -> Why {
        match self {
            Self::Heartbeat(_) => Why::Heartbeat,
            Self::Removal(_) => Why::FailoverTimeout,
            Self::OfferTimeout(_) => Why::OfferTimeout,
            Self::FenceWait(_) => Why::FenceWait,
            Self::StoreRetry(_) => Why::StoreRetry,
            Self::Questions(_) => Why::QuestionWait,
        }
    }
}

/// All moments. Bounded by its subjects: each has at most one moment per purpose.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    by_subject: BTreeMap<Timer, Timestamp>,
    by_moment: BTreeSet<(Timestamp, Timer)>,
}

impl Timers {
    /// Sets the subject's moment; an earlier setting is replaced.
    pub(crate) fn set(&mut self, timer: Timer, at: Timestamp) {
        self.cancel(&timer);
        self.by_moment.insert((at, timer.clone()));
        self.by_subject.insert(timer, at);
    }

    pub(crate) fn cancel(&mut self, timer: &Timer) {
        if let Some(at) = self.by_subject.remove(timer) {
            self.by_moment.remove(&(at, timer.clone()));
        }
    }

    /// Everything about a framework but its offers, which are cancelled as they are taken.
    pub(crate) fn cancel_framework(&mut self, id: &FrameworkId) {
        for timer in [
            Timer::Heartbeat(id.clone()),
            Timer::Removal(id.clone()),
            Timer::FenceWait(id.clone()),
            Timer::Questions(id.clone()),
        ] {
            self.cancel(&timer);
        }
    }

    pub(crate) fn next(&self) -> Option<(Timestamp, Why)> {
        self.by_moment.first().map(|(at, timer)| (*at, timer.why()))
    }

    /// Takes the earliest subject whose moment has come.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<(Timestamp, Timer)> {
        let (at, _) = self.by_moment.first()?;
        if *at > now {
            return None;
        }
        let (at, timer) = self.by_moment.pop_first()?;
        self.by_subject.remove(&timer);
        Some((at, timer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_one_moment_and_the_earliest_comes_first() {
        let id = FrameworkId::parse("f").unwrap();
        let mut timers = Timers::default();
        timers.set(Timer::Heartbeat(id.clone()), Timestamp(9));
        timers.set(Timer::Removal(id.clone()), Timestamp(7));
        timers.set(Timer::Heartbeat(id.clone()), Timestamp(5));
        assert_eq!(timers.next(), Some((Timestamp(5), Why::Heartbeat)));
        assert_eq!(timers.pop_due(Timestamp(4)), None);
        assert_eq!(timers.pop_due(Timestamp(9)), Some((Timestamp(5), Timer::Heartbeat(id.clone()))));
        timers.cancel_framework(&id);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn every_timer_says_why() {
        let id = FrameworkId::parse("f").unwrap();
        for (timer, why) in [
            (Timer::Heartbeat(id.clone()), Why::Heartbeat),
            (Timer::Removal(id.clone()), Why::FailoverTimeout),
            (Timer::OfferTimeout(OfferId { epoch: 1, number: 1 }), Why::OfferTimeout),
            (Timer::FenceWait(id.clone()), Why::FenceWait),
            (Timer::StoreRetry(id.clone()), Why::StoreRetry),
            (Timer::Questions(id), Why::QuestionWait),
        ] {
            assert_eq!(timer.why(), why);
        }
    }
}
