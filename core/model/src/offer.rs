//! Offers: resources on one agent proposed to one framework for one role.

use crate::agent::AgentInfo;
use crate::fence::Fence;
use crate::resource::Resources;
use crate::{AgentId, Duration, FrameworkId, OfferId, Role};
use alloc::sync::Arc;

/// What the allocator gives away: entered in the book of the agent's owner, shown to the framework as an offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The offer's id.
    pub offer_id: OfferId,
    /// On which agent.
    pub agent_id: AgentId,
    /// To which framework.
    pub framework_id: FrameworkId,
    /// The framework's home fence that the allocator knew; an older one than the owner's voids the grant.
    pub home_fence: Fence,
    /// For which of the framework's roles.
    pub role: Role,
    /// What.
    pub resources: Resources,
}

/// A grant as its framework gets to see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The grant.
    pub grant: Arc<Grant>,
    /// What the agent says of itself.
    pub agent: Arc<AgentInfo>,
}

/// How long resources that a framework left over are not offered to it again. `None` means not at all.
///
/// The home turns `Filters.refuse_seconds` into this (docs/SPECIFICATION.md, "Filters"); the allocator lengthens it to one
/// allocation interval at least.
pub type Refusal = Option<Duration>;

/// Why an offer was taken back, for people and for the rescind event's log line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RescindReason {
    /// It stayed unanswered longer than the offer timeout.
    TimedOut,
    /// Its agent's connection was lost.
    AgentDisconnected,
    /// Its agent was removed: unreachable, gone or deactivated.
    AgentRemoved,
    /// Its agent's shard changed owner, or the link to the owner is down.
    OwnerLost,
    /// The framework left the role.
    RoleLeft,
    /// The agent's resources shrank below what was offered.
    AgentChanged,
    /// The owner's book did not have the resources free.
    NotFree,
}

impl RescindReason {
    /// The reason as a phrase.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TimedOut => "offer timed out",
            Self::AgentDisconnected => "agent disconnected",
            Self::AgentRemoved => "agent removed",
            Self::OwnerLost => "the agent's owner changed",
            Self::RoleLeft => "framework left the role",
            Self::AgentChanged => "agent's resources changed",
            Self::NotFree => "resources were not free",
        }
    }
}
