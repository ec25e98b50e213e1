//! Agents that stand by, and the order in which they are called once their shards are taken over.
//!
//! Ten thousand agents that are called at once would all say hello, then all write their journals, then all show what runs:
//! the first would be back hardly earlier than the last. So a bounded number of calls is under way, and the next agent is
//! called when one has shown its picture, is gone, or has taken too long.

use crate::limits::{CALL_PATIENCE, CALLS_MAX, STANDBY_SESSIONS_MAX};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use muster_model::{ShardId, Timestamp};
use muster_owner_engine::io::SessionId;

/// Standby connections.
#[derive(Default)]
pub(crate) struct Standbys {
    sessions: BTreeMap<SessionId, ShardId>,
    /// To be called, in this order; those that are no longer in `sessions` are passed over.
    waiting: VecDeque<SessionId>,
    /// Called and not back yet, and when they were called.
    called: BTreeMap<SessionId, Timestamp>,
}

impl Standbys {
    /// An agent stands by. False: there are too many, it is not kept.
    pub(crate) fn add(&mut self, session: SessionId, shard: ShardId) -> bool {
        let has_room = self.sessions.len() < STANDBY_SESSIONS_MAX;
        if has_room {
            self.sessions.insert(session, shard);
        }
        has_room
    }

    /// The agent has said hello, called or not: it stands by no longer.
    pub(crate) fn greeted(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// The agent has shown what runs.
    pub(crate) fn is_back(&mut self, session: SessionId) {
        self.called.remove(&session);
    }

    /// The connection has ended. True: it was one that stood by.
    pub(crate) fn closed(&mut self, session: SessionId) -> bool {
        self.called.remove(&session);
        self.sessions.remove(&session).is_some()
    }

    /// Agents of these shards are to be called.
    pub(crate) fn want(&mut self, shards: &BTreeSet<ShardId>) {
        let are_wanted = self.sessions.iter().filter(|(_, shard)| shards.contains(shard));
        self.waiting.extend(are_wanted.map(|(session, _)| *session));
    }

    /// This agent is to be called.
    pub(crate) fn want_one(&mut self, session: SessionId) {
        self.waiting.push_back(session);
    }

    /// Whom to call now. Says each once for each time that it was wanted.
    pub(crate) fn next(&mut self, now: Timestamp) -> Option<(SessionId, ShardId)> {
        while self.called.len() < CALLS_MAX {
            let session = self.waiting.pop_front()?;
            if let Some(shard) = self.sessions.get(&session) {
                self.called.insert(session, now);
                return Some((session, *shard));
            }
        }
        None
    }

    /// When somebody that waits need not wait longer for those that were called.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        if self.waiting.is_empty() {
            return None;
        }
        self.called.values().min().map(|at| at.after(CALL_PATIENCE))
    }

    /// Those that take too long hold up nobody.
    pub(crate) fn give_up(&mut self, now: Timestamp) {
        self.called.retain(|_, at| at.after(CALL_PATIENCE) > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use muster_model::Duration;

    const SHARD: ShardId = ShardId(3);

    fn standing(count: u64) -> Standbys {
        let mut standbys = Standbys::default();
        for number in 0..count {
            assert!(standbys.add(SessionId(number), SHARD));
        }
        standbys.want(&BTreeSet::from([SHARD]));
        standbys
    }

    fn called(standbys: &mut Standbys, now: Timestamp) -> Vec<u64> {
        core::iter::from_fn(|| standbys.next(now)).map(|(session, _)| session.0).collect()
    }

    #[test]
    fn calls_are_bounded_and_go_on_as_agents_come_back() {
        let most = u64::try_from(CALLS_MAX).unwrap();
        let mut standbys = standing(most + 5);
        assert_eq!(called(&mut standbys, Timestamp::ZERO).len(), CALLS_MAX);
        standbys.greeted(SessionId(0));
        assert_eq!(called(&mut standbys, Timestamp::ZERO), [0; 0], "a hello is no picture");
        standbys.is_back(SessionId(0));
        assert_eq!(called(&mut standbys, Timestamp::ZERO), [most], "a picture");
        assert!(standbys.closed(SessionId(1)), "stood by");
        assert_eq!(called(&mut standbys, Timestamp::ZERO), [most + 1], "a lost connection");
        // One that came by itself before its turn is not called.
        standbys.greeted(SessionId(most + 2));
        standbys.is_back(SessionId(2));
        standbys.is_back(SessionId(3));
        assert_eq!(called(&mut standbys, Timestamp::ZERO), [most + 3, most + 4]);
        assert_eq!(standbys.deadline(), None, "nobody waits");
    }

    #[test]
    fn agents_that_do_not_answer_hold_up_nobody() {
        let mut standbys = standing(u64::try_from(CALLS_MAX).unwrap() + 1);
        called(&mut standbys, Timestamp::ZERO);
        let due = standbys.deadline().unwrap();
        assert_eq!(due, Timestamp::ZERO.after(CALL_PATIENCE));
        standbys.give_up(Timestamp::ZERO.after(Duration(CALL_PATIENCE.0 - 1)));
        assert_eq!(called(&mut standbys, due), [0; 0]);
        standbys.give_up(due);
        assert_eq!(called(&mut standbys, due).len(), 1);
    }
}
