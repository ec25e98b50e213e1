//! Tests of the allocator as its shell sees it: inputs in, outputs out.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod naive;
mod owner_model;
mod owners;
mod props;
mod rows;
mod world;
