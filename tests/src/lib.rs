//! Drives the built binaries as users do: starts them as processes, speaks HTTP to them, kills them.
//!
//! Knows nothing of their insides. The binaries are taken from `MUSTER_BIN_DIR`, else from where cargo built this test
//! (`cargo build --workspace --bins` first). Start reading at [`cluster::Cluster`].

pub mod cluster;
pub mod etcd;
pub mod haproxy;
pub mod http;
pub mod netns;
pub mod nodes;
pub mod process;
pub mod relay;
pub mod scheduler;
pub mod vm;
pub mod wait;
