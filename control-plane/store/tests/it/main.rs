//! The embedded store on real files: what every store must do, and what only files can suffer.
#![expect(clippy::unwrap_used, reason = "a failed step ends the test")]

mod conformance;
mod damage;
mod durable;
mod full;
mod records;
