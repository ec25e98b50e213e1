//! Links to the other nodes of the control plane: one QUIC connection per pair, and who is there at the moment.
//!
//! The node with the smaller name dials. Both sides say hello first and check the
//! other's certificate, cluster, protocol version and registered run; whoever refuses says why, and both sides log it.
//! Then messages between engines go over one control stream in batches, and each request (a picture, a forwarded HTTP
//! call) over a stream of its own. What a link loses is lost: the engines exchange everything anew on the next one.

mod handle;
mod table;

pub use handle::{LinkId, PeerHandle, SendError};
pub use table::{OtherNode, PeerTable};
