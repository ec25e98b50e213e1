//! Why a framework got no offer of an agent: a closed list, each with a phrase for people.

use muster_model::WallTime;

/// Why a framework got no offer of an agent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Skip {
    /// The framework is not connected, or not subscribed to the role.
    FrameworkInactive,
    /// The framework asked for no offers for the role.
    Suppressed,
    /// The agent is not connected, or an operator stopped offers on it.
    AgentInactive,
    /// All that the agent has is in use or in open offers.
    NothingFree,
    /// What is free is reserved for other roles.
    NothingUsable,
    /// What is free may be taken back at any time, and the framework does not take such resources.
    OnlyRevocable,
    /// The agent has GPUs, and the framework did not declare that it wants such agents.
    HasGpus,
    /// What is free is less than the smallest offer that the framework takes.
    TooSmall,
    /// The framework refused these resources for a time that is not over.
    Refused,
    /// Others with a smaller share come first.
    NotItsTurn,
}

impl Skip {
    /// Every reason, in order.
    pub const ALL: [Self; 10] = [
        Self::FrameworkInactive,
        Self::Suppressed,
        Self::AgentInactive,
        Self::NothingFree,
        Self::NothingUsable,
        Self::OnlyRevocable,
        Self::HasGpus,
        Self::TooSmall,
        Self::Refused,
        Self::NotItsTurn,
    ];

    /// The reason as a phrase.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FrameworkInactive => "the framework is not connected",
            Self::Suppressed => "the framework suppressed offers for this role",
            Self::AgentInactive => "the agent is not connected or takes no offers",
            Self::NothingFree => "everything on the agent is in use or offered",
            Self::NothingUsable => "what is free on the agent is reserved for other roles",
            Self::OnlyRevocable => "only revocable resources are free and the framework does not take them",
            Self::HasGpus => "the agent has GPUs and the framework does not declare GPU_RESOURCES",
            Self::TooSmall => "what is free on the agent is less than the smallest offer",
            Self::Refused => "the framework refused these resources for now",
            Self::NotItsTurn => "others with a smaller share come first",
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// What one cycle decided for one framework and role. It restarts with the first agent of a newer cycle.
#[derive(Clone, Default, Debug)]
pub(crate) struct Tally {
    cycle: u64,
    at: WallTime,
    agent_count: u32,
    offer_count: u32,
    skips: [(u32, u32); Skip::ALL.len()],
}

/// The cycle that tallies are made in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CycleStamp {
    /// Its number, from 1.
    pub(crate) cycle: u64,
    /// When it ran.
    pub(crate) at: WallTime,
    /// How many agents it looks at.
    pub(crate) agent_count: u32,
}

impl Tally {
    pub(crate) fn cycle(&self) -> u64 {
        self.cycle
    }

    pub(crate) fn at(&self) -> WallTime {
        self.at
    }

    pub(crate) fn offer_count(&self) -> u32 {
        self.offer_count
    }

    pub(crate) fn add_offer(&mut self, stamp: CycleStamp) {
        self.restart(stamp);
        self.offer_count = self.offer_count.saturating_add(1);
    }

    pub(crate) fn add_skip(&mut self, skip: Skip, agent: u32, stamp: CycleStamp) {
        self.restart(stamp);
        let (count, example) = &mut self.skips[skip.index()];
        if *count == 0 {
            *example = agent;
        }
        *count = count.saturating_add(1);
    }

    /// The reasons with how many agents they concerned and one of these, if one is known.
    pub(crate) fn skips(&self) -> impl Iterator<Item = (Skip, u32, Option<u32>)> + '_ {
        let seen = self.skips.iter().fold(self.offer_count, |sum, (count, _)| sum.saturating_add(*count));
        let rest = self.agent_count.saturating_sub(seen);
        let counted = Skip::ALL.into_iter().zip(&self.skips).filter(|(_, (count, _))| *count > 0);
        counted.map(|(skip, (count, example))| (skip, *count, Some(*example))).chain((rest > 0).then_some((
            Skip::NotItsTurn,
            rest,
            None,
        )))
    }

    fn restart(&mut self, stamp: CycleStamp) {
        if self.cycle != stamp.cycle {
            *self = Self { cycle: stamp.cycle, at: stamp.at, agent_count: stamp.agent_count, ..Self::default() };
        }
    }
}
