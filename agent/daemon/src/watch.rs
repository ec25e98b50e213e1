//! Descriptors of the kernel that the loop waits for: the launcher's socket and the pidfds of containers.

use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the runtime.
///
/// Errors: no descriptor or memory is left in the kernel.
#[expect(
    deprecated,
    reason = "the constructors without unsafe are deprecated for types that may close or change their descriptor; an OwnedFd does neither while it is owned here"
)]
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}
