//! Tests of claims and placement as their shell sees them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod claims;
mod hand_over;
mod membership;
mod placement;
mod several;
