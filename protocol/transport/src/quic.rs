//! QUIC with mutual TLS: endpoints, connections, streams of frames.
//!
//! One connection between two programs; streams carry frames (a length and that many bytes) by priority, datagrams carry
//! what may be lost. A client that changes its address keeps its connection.

mod close;
mod connection;
mod endpoint;
mod frame;
mod reset;
mod tuning;

pub use close::{CloseCode, ConnectionLost};
pub use connection::{Connection, DatagramError, Priority};
pub use endpoint::{AcceptError, BindError, ConnectError, Endpoint, Incoming};
pub use frame::{ReadFrameError, RecvStream, SendStream, WriteFrameError};
pub use tuning::Tuning;
