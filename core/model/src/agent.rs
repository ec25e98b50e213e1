//! What is known about an agent apart from what runs on it.

use crate::attribute::Attribute;
use crate::resource::Resources;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// What an agent says of itself. It may change while the agent lives: identity is the certificate.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AgentInfo {
    /// Host name, as declared or detected.
    pub hostname: Arc<str>,
    /// Address that people and frameworks see, as text (IPv4 or IPv6); orders never go there.
    pub ip: Arc<str>,
    /// Port of the agent's own HTTP API (default 5051); shown to frameworks in offers.
    pub port: u16,
    /// All resources of the agent, whoever uses them.
    pub total: Resources,
    /// Attributes, in the order declared.
    pub attributes: Vec<Attribute>,
    /// Version of the agent's program.
    pub version: Arc<str>,
    /// Which isolation is missing and why, as lines for people; empty when nothing is.
    pub missing_isolation: Vec<Arc<str>>,
}
