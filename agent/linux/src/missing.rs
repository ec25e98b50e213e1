//! What this machine or this user cannot give, in words for the operator.

use std::borrow::Cow;
use std::fmt;

/// One piece of isolation that is left out, and why. It is shown in the agent's state and at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The piece, such as `memory limits`.
    pub what: Cow<'static, str>,
    /// The reason, with what to do where there is something.
    pub why: Cow<'static, str>,
}

impl Missing {
    /// Names a piece and its reason.
    pub fn new(what: impl Into<Cow<'static, str>>, why: impl Into<Cow<'static, str>>) -> Self {
        Self { what: what.into(), why: why.into() }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}
