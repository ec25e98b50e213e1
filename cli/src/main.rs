//! Operator's command line over the HTTP API, and `muster up`.
fn main() {}
