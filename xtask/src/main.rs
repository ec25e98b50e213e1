//! Project chores: up, test, tidy, gen, bench, dist.
fn main() {}
