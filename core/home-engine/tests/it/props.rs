//! Random calls and messages.
