//! Drives the built binaries as users do.
