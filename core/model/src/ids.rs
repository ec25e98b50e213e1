//! Identifiers, each a type of its own so that one cannot be passed for another.
//!
//! Text ids follow Mesos's rules: 1 to 255 bytes, no control characters, no `/` or `\`, neither `.` nor `..`.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

/// Why a text is no id or role name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("{kind} must not be empty")]
    Empty {
        /// Which kind of id was expected.
        kind: &'static str,
    },
    /// The text is longer than 255 bytes.
    #[error("{kind} is {len} bytes long; at most 255 are allowed")]
    TooLong {
        /// Which kind of id was expected.
        kind: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// The text holds a character or has a shape that is refused.
    #[error("'{text}' is no valid {kind}: {why}")]
    Refused {
        /// Which kind of id was expected.
        kind: &'static str,
        /// The refused text.
        text: String,
        /// The broken rule.
        why: &'static str,
    },
}

fn check_id(kind: &'static str, text: &str) -> Result<(), IdError> {
    let refused = |why| Err(IdError::Refused { kind, text: String::from(text), why });
    if text.is_empty() {
        return Err(IdError::Empty { kind });
    }
    if text.len() > 255 {
        return Err(IdError::TooLong { kind, len: text.len() });
    }
    if text == "." || text == ".." {
        return refused("'.' and '..' are not allowed");
    }
    let is_control = |b: u8| b < 0x20 || b == 0x7f;
    // One pass without branches for the many good ones.
    if text.bytes().fold(false, |bad, b| bad | is_control(b) | (b == b'/') | (b == b'\\')) {
        return match text.bytes().any(is_control) {
            true => refused("control characters are not allowed"),
            false => refused("'/' and '\\' are not allowed"),
        };
    }
    Ok(())
}

/// A text that keeps the rules of ids, for readers that meet it in several places: it is checked and copied once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdText(Arc<str>);

impl IdText {
    /// Checks the text by the id rules and wraps it. Errors: [`IdError`].
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check_id("id", text)?;
        Ok(Self(Arc::from(text)))
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text by the id rules and wraps it. Errors: [`IdError`].
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check_id($kind, text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The text of the id.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<IdText> for $name {
            fn from(text: IdText) -> Self {
                Self(text.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A registered agent: `<cluster id>-S<number>`, given at admission and kept for its life.
    AgentId, "agent id"
);
text_id!(
    /// A container on an agent; a UUID in text form.
    ContainerId, "container id"
);
text_id!(
    /// An executor, unique for its framework on its agent. A command task's executor id is its task id.
    ExecutorId, "executor id"
);
impl From<&TaskId> for ExecutorId {
    /// The executor of a command task.
    fn from(task_id: &TaskId) -> Self {
        Self(Arc::clone(&task_id.0))
    }
}

text_id!(
    /// A framework: `<cluster id>-<number>`, or chosen by the framework itself.
    FrameworkId, "framework id"
);
text_id!(
    /// An operation for which a framework asked feedback.
    OperationId, "operation id"
);
text_id!(
    /// A task, unique among a framework's active and unreachable tasks.
    TaskId, "task id"
);
text_id!(
    /// A control-plane node's name, unique in the cluster.
    NodeId, "node id"
);

/// One offer, given by one allocator: `<epoch>-O<number>` in text.
///
/// The epoch is the allocator's, so that an id says which allocator gave it and is never given twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OfferId {
    /// Epoch of the allocator that made the offer.
    pub epoch: u64,
    /// Counts up from 0 within the epoch.
    pub number: u64,
}

impl OfferId {
    /// Reads the text form back; `None` for a text that no allocator writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, number) = text.split_once("-O")?;
        let id = Self { epoch: epoch.parse().ok()?, number: number.parse().ok()? };
        // Only the canonical form, so that two texts never name one offer.
        (format!("{id}") == text).then_some(id)
    }
}

impl fmt::Display for OfferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-O{}", self.epoch, self.number)
    }
}

impl fmt::Debug for OfferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// 16 bytes that name something once: a status update, a stream, a boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// Makes a version 4 UUID out of 16 random bytes.
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }

    /// Reads the 36-character text form, either case.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 36 {
            return None;
        }
        let mut bytes = [0u8; 16];
        let mut digits = 0usize;
        for (index, c) in text.bytes().enumerate() {
            if matches!(index, 8 | 13 | 18 | 23) {
                if c != b'-' {
                    return None;
                }
                continue;
            }
            let digit = u8::try_from(char::from(c).to_digit(16)?).ok()?;
            let byte = bytes.get_mut(digits / 2)?;
            *byte = (*byte << 4) | digit;
            digits += 1;
        }
        Some(Self(bytes))
    }

    /// The text form: 36 characters of ASCII, lower case.
    pub fn text(&self) -> [u8; 36] {
        let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble };
        let mut text = [b'-'; 36];
        let mut places = text.iter_mut();
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                places.next();
            }
            for nibble in [byte >> 4, byte & 0xf] {
                if let Some(place) = places.next() {
                    *place = digit(nibble);
                }
            }
        }
        text
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name that resources are shared under: `*`, or a path such as `eng/web`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Role(Arc<str>);

impl Role {
    /// Checks the name by Mesos's rules (docs/roles.md) and wraps it. Errors: [`IdError`].
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let kind = "role name";
        let refused = |why| Err(IdError::Refused { kind, text: String::from(text), why });
        if text.is_empty() {
            return Err(IdError::Empty { kind });
        }
        if text == "*" {
            return Ok(Self(Arc::from(text)));
        }
        if text.starts_with('/') || text.ends_with('/') {
            return refused("it must not start or end with '/'");
        }
        for component in text.split('/') {
            match component {
                "" => return refused("it must not hold '//'"),
                "." | ".." | "*" => return refused("'.', '..' and '*' are no components of a role"),
                _ if component.starts_with('-') => return refused("a component must not start with '-'"),
                _ => {}
            }
        }
        if text.bytes().any(|b| matches!(b, 0x09..=0x0d | 0x20 | 0x7f)) {
            return refused("white space and the delete character are not allowed");
        }
        Ok(Self(Arc::from(text)))
    }

    /// The default role `*`, to which unreserved resources belong.
    pub fn star() -> Self {
        Self(Arc::from("*"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this role is `other` or lies below it in the tree (`a/b` lies below `a`).
    pub fn is_within(&self, other: &Self) -> bool {
        match self.0.strip_prefix(&*other.0) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }

    /// The role above this one: `a` for `a/b`, none for a top-level role.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(Arc::from(parent)))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A slice of the agents, `0..shard_count`; an agent's shard is a hash of its id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The shard of an agent: FNV-1a (64 bit) of its id, mixed, modulo the cluster's fixed shard count.
    ///
    /// Agents of one cluster differ in a few digits at the end. FNV alone leaves those in a few bits, so the first steps of
    /// MurmurHash3's finaliser spread them over all.
    ///
    /// Panics: if `shard_count` is 0, which is a mistake of ours.
    pub fn of(agent_id: &AgentId, shard_count: u16) -> Self {
        assert!(shard_count > 0, "a cluster has at least one shard");
        let hash = agent_id
            .as_str()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let mixed = mixed ^ (mixed >> 33);
        Self(u16::try_from(mixed % u64::from(shard_count)).unwrap_or(0))
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_rules_of_mesos() {
        for (name, text, ok) in [
            ("plain", "a-S0", true),
            ("empty", "", false),
            ("dot", ".", false),
            ("dots", "..", false),
            ("three dots", "...", true),
            ("slash", "a/b", false),
            ("backslash", "a\\b", false),
            ("newline", "a\nb", false),
            ("space", "a b", true),
            ("longest", &"x".repeat(255), true),
            ("too long", &"x".repeat(256), false),
        ] {
            assert_eq!(TaskId::parse(text).is_ok(), ok, "case: {name}");
        }
    }

    #[test]
    fn consecutive_agents_spread_over_the_shards() {
        for prefix in ["5f1c2a9e-3b7d-4c1e-8f00-0123456789ab", "c", "00000000-0000-0000-0000-000000000000"] {
            let mut counts = [0_u32; 256];
            for number in 0..1000 {
                let agent_id = AgentId::parse(&alloc::format!("{prefix}-S{number}")).unwrap();
                counts[usize::from(ShardId::of(&agent_id, 256).0)] += 1;
            }
            let used = counts.iter().filter(|count| **count > 0).count();
            let most = counts.iter().max().copied().unwrap_or(0);
            // Chance alone would use 251 of 256 and put about 11 into the fullest.
            assert!(used > 240, "{prefix}: {used} shards used");
            assert!(most <= 20, "{prefix}: {most} agents in one shard");
        }
    }

    #[test]
    fn a_shard_never_changes_between_versions() {
        for (agent, expected) in [("c-S0", 20), ("c-S1", 94), ("5f1c2a9e-3b7d-4c1e-8f00-0123456789ab-S42", 186)] {
            assert_eq!(ShardId::of(&AgentId::parse(agent).unwrap(), 256), ShardId(expected), "{agent}");
        }
    }

    #[test]
    fn roles_follow_the_rules_of_mesos() {
        for (text, ok) in [
            ("*", true),
            ("eng", true),
            ("eng/web", true),
            ("", false),
            ("/a", false),
            ("a/", false),
            ("a//b", false),
            ("a/./b", false),
            ("a/*", false),
            ("-a", false),
            ("a/-b", false),
            ("a b", false),
            ("a\tb", false),
            ("a-b", true),
        ] {
            assert_eq!(Role::parse(text).is_ok(), ok, "case: {text}");
        }
        let role = |t| Role::parse(t).unwrap();
        assert!(role("a/b").is_within(&role("a")));
        assert!(!role("ab").is_within(&role("a")));
        assert_eq!(role("a/b/c").parent(), Some(role("a/b")));
        assert_eq!(role("a").parent(), None);
    }

    #[test]
    fn offer_ids_read_back_only_their_own_text() {
        let id = OfferId { epoch: 3, number: 41 };
        assert_eq!(OfferId::parse("3-O41"), Some(id));
        for text in ["", "3-O", "-O1", "03-O41", "3-O+41", "x-O1", "3-O41 "] {
            assert_eq!(OfferId::parse(text), None, "case: {text}");
        }
    }

    #[test]
    fn uuids_read_back_what_they_print() {
        let id = Uuid::from_random([0xab; 16]);
        assert_eq!(Uuid::parse(&format!("{id}")), Some(id));
        let id = Uuid([0x00, 0x19, 0x2a, 0x3f, 0x90, 0xa9, 0xf0, 0x0f, 8, 9, 10, 11, 12, 13, 14, 0xff]);
        assert_eq!(format!("{id}"), "00192a3f-90a9-f00f-0809-0a0b0c0d0eff");
        assert_eq!(Uuid::parse("abababab-abab-4bab-abab-ababababab"), None);
        assert_eq!(Uuid::parse("gbababab-abab-4bab-abab-abababababab"), None);
    }
}
