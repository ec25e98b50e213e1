//! The older JSON endpoints.
