//! Behaviour of a home from outside: one file per subject, texts as clients see them.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

mod harness;
mod subscribe;
mod session;
mod accept;
mod offers;
mod calls;
mod store;
mod props;
