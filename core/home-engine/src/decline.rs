//! DECLINE: gives offers back, one order without tasks per agent.

use crate::engine::HomeEngine;
use crate::io::{Answer, RequestId};
use alloc::vec::Vec;
use muster_model::offer::Refusal;
use muster_model::scheduler::OfferRef;

impl HomeEngine {
    /// Unknown ids are ignored one by one. Whose an offer is, is not checked: Mesos does not check it either.
    pub(crate) fn decline(&mut self, request: RequestId, offers: &[OfferRef], refusal: Refusal) {
        self.answer(request, Answer::Accepted);
        let taken: Vec<_> = offers.iter().filter_map(|offer| self.take_named(offer)).collect();
        self.give_back(taken, refusal);
    }
}
