//! Bounds of what the allocator keeps, each with its reason and with what happens at the bound.

/// Refusals kept at once. About 200 bytes each, so at most 800 MiB; a cluster of 10,000 agents and 400 frameworks that all
/// decline everything for a year fits. At the bound a further refusal is not kept: the resources are offered again in the
/// next interval.
pub const REFUSALS_MAX: usize = 4_000_000;

/// Refusals kept for one framework, role and agent. They differ in resources; more than a few means that a framework
/// declines ever smaller parts. At the bound the one that ends first is replaced.
pub const REFUSALS_PER_AGENT_MAX: usize = 8;

/// Names of scalars that count for shares. A cluster has four well-known ones and a few of its own. At the bound a
/// further name is offered like any other, but does not count for shares.
pub const SHARE_NAMES_MAX: usize = 64;

/// Void grants of one agent whose end its owner has not told. An owner tells each within a round trip. At the bound the
/// oldest is forgotten: what was used of it shows in the agent's next book.
pub const VOID_GRANTS_PER_AGENT_MAX: usize = 256;

/// Void grants of agents that left, about 400 bytes each. At the bound the oldest is forgotten, as above.
pub const ORPHAN_GRANTS_MAX: usize = 16_384;

const _: () = assert!(REFUSALS_PER_AGENT_MAX < REFUSALS_MAX, "one agent's refusals fit the whole");
const _: () = assert!(SHARE_NAMES_MAX >= 4, "the well-known scalars always count");
