//! Behaviour of a home from outside: one file per subject, texts as clients see them.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

mod accept;
mod calls;
mod harness;
mod homes;
mod offers;
mod owners_reset;
mod props;
mod session;
mod store;
mod subscribe;
mod two_homes;
