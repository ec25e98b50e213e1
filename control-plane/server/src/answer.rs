//! Where the answer to a call goes: to one request, or to a place among the calls of a connection that came together.

use muster_home_engine::io::Answer;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Takes one answer. Dropped without one, it tells its request that the control plane is stopping.
#[derive(Debug)]
pub enum ReplyTo {
    /// A request that waits alone.
    One(oneshot::Sender<Answer>),
    /// A place among several, which are told together when the last is answered.
    Place(Place),
}

impl ReplyTo {
    /// Gives the answer; a client that has left misses it.
    pub fn send(self, answer: Answer) {
        match self {
            Self::One(sender) => {
                let _ = sender.send(answer);
            }
            Self::Place(mut place) => place.settle(Some(answer)),
        }
    }
}

/// One place of [`places`].
#[derive(Debug)]
pub struct Place {
    index: usize,
    /// Absent once it is settled.
    round: Option<Arc<Mutex<Round>>>,
}

/// The answers of a round in their order; none where a place was dropped without one.
pub type Answers = Vec<Option<Answer>>;

#[derive(Debug)]
struct Round {
    answers: Answers,
    missing: usize,
    done: Option<oneshot::Sender<Answers>>,
}

/// So many places, and where their answers come out together.
pub fn places(count: usize) -> (impl Iterator<Item = ReplyTo>, oneshot::Receiver<Answers>) {
    let (done, answers) = oneshot::channel();
    let empty = std::iter::repeat_with(|| None).take(count).collect();
    let round = Arc::new(Mutex::new(Round { answers: empty, missing: count, done: Some(done) }));
    let places = (0..count).map(move |index| ReplyTo::Place(Place { index, round: Some(Arc::clone(&round)) }));
    (places, answers)
}

impl Place {
    fn settle(&mut self, answer: Option<Answer>) {
        let Some(round) = self.round.take() else { return };
        let mut round = round.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = round.answers.get_mut(self.index) {
            *place = answer;
        }
        round.missing = round.missing.saturating_sub(1);
        if round.missing == 0
            && let Some(done) = round.done.take()
        {
            let _ = done.send(std::mem::take(&mut round.answers));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.settle(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_together_and_in_order_whatever_the_order_they_were_given_in() {
        let (places, mut answers) = places(3);
        let mut places: Vec<_> = places.collect();
        places.pop().unwrap().send(Answer::Done);
        places.remove(0).send(Answer::Accepted);
        assert!(answers.try_recv().is_err(), "one is missing");
        places.pop().unwrap().send(Answer::Bad("no".into()));
        let expected = [Answer::Accepted, Answer::Bad("no".into()), Answer::Done].map(Some);
        assert_eq!(answers.try_recv().unwrap(), expected);
    }

    #[test]
    fn a_place_that_is_dropped_is_told_with_the_answers_of_the_others() {
        let (places, mut answers) = places(2);
        let mut places: Vec<_> = places.collect();
        places.pop().unwrap().send(Answer::Done);
        assert!(answers.try_recv().is_err(), "one is missing");
        drop(places);
        assert_eq!(answers.try_recv().unwrap(), [None, Some(Answer::Done)]);
    }
}
