//! The control plane: HTTP and QUIC listeners and the event loop around the engines.
//!
//! Start reading at [`node::run`]. Decisions are in `core/*`; here is only IO: [`event`] is everything that can happen,
//! [`event_loop`] hands it to the engines, and what they put out is performed in one place, `event_loop/perform.rs`.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests may panic")
)]

pub mod admin;
pub mod answer;
pub mod authority;
pub mod bootstrap;
pub mod config;
pub mod event;
pub mod event_loop;
pub mod http;
pub mod join;
pub mod limits;
pub mod metrics;
pub mod node;
pub mod peers;
pub mod probes;
pub mod registration;
pub mod sessions;
pub mod store_worker;
