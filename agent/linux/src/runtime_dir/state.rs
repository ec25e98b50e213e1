//! The text of `identity` and `exit`: one fact a line, a version first, a check line last.

use std::fmt;
use std::path::PathBuf;

use crate::cgroup::{Group, Oom, V1Group, V2Group};
use crate::proc::ProcessId;

/// Who a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The boot it belongs to; of another boot, nothing of it is alive.
    pub boot_id: String,
    /// Its supervisor.
    pub supervisor: ProcessId,
    /// Its first process; absent in the instant before it is forked.
    pub task: Option<ProcessId>,
    /// Its groups.
    pub group: Group,
}

/// Which step of a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the launch file or writing the identity.
    Prepare,
    /// Opening stdout or stderr.
    Output,
    /// Forking.
    Fork,
    /// Entering the control groups.
    Cgroup,
    /// Starting a session.
    Session,
    /// Setting resource limits.
    Rlimit,
    /// Taking the user's groups.
    Groups,
    /// Becoming the user.
    User,
    /// Entering the working directory.
    WorkDir,
    /// Executing the command.
    Exec,
}

const STAGES: [(Stage, &str, &str); 10] = [
    (Stage::Prepare, "prepare", "preparing the supervisor"),
    (Stage::Output, "output", "opening stdout and stderr"),
    (Stage::Fork, "fork", "forking"),
    (Stage::Cgroup, "cgroup", "entering the control groups"),
    (Stage::Session, "session", "starting a session"),
    (Stage::Rlimit, "rlimit", "setting resource limits"),
    (Stage::Groups, "groups", "taking the user's groups"),
    (Stage::User, "user", "becoming the user"),
    (Stage::WorkDir, "workdir", "entering the working directory"),
    (Stage::Exec, "exec", "executing the command"),
];

impl Stage {
    pub(crate) fn code(self) -> u32 {
        STAGES.iter().position(|(stage, _, _)| *stage == self).and_then(|index| u32::try_from(index).ok()).unwrap_or(0)
    }

    pub(crate) fn from_code(code: u32) -> Self {
        let found = usize::try_from(code).ok().and_then(|index| STAGES.get(index));
        found.map_or(Self::Prepare, |(stage, _, _)| *stage)
    }

    fn word(self) -> &'static str {
        STAGES.iter().find(|(stage, _, _)| *stage == self).map_or("prepare", |(_, word, _)| word)
    }

    fn from_word(word: &str) -> Option<Self> {
        STAGES.iter().find(|(_, known, _)| *known == word).map(|(stage, _, _)| *stage)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STAGES.iter().find(|(stage, _, _)| stage == self).map_or("", |(_, _, text)| text))
    }
}

/// How the first process of a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It returned this status.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
    /// It never ran its command.
    NotStarted {
        /// The step that failed.
        stage: Stage,
        /// The kernel's error number.
        errno: i32,
    },
}

/// The status file of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Which process this is about; absent when none was forked.
    pub task: Option<ProcessId>,
    /// How it ended.
    pub ended: Ended,
    /// When, in microseconds of the Unix epoch. For people only.
    pub ended_at_us: u64,
    /// Out-of-memory kills in its group.
    pub oom: Option<Oom>,
}

/// Why a state file is not believed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The check line is missing: the file was cut short.
    #[error("the file ends after {bytes} bytes without its check line; it was cut short by a crash or a full disk")]
    CutShort {
        /// Its size.
        bytes: usize,
    },
    /// The check line does not fit the text: bytes were changed.
    #[error("the check line says {said:?} but the text gives {computed:?}; the file was damaged")]
    Damaged {
        /// What the file says.
        said: String,
        /// What the text gives.
        computed: String,
    },
    /// The version line is not one that this agent reads.
    #[error("the file begins with {found:?} instead of {wanted:?}; it was written by another version of the agent")]
    Version {
        /// What stands there.
        found: String,
        /// What should.
        wanted: &'static str,
    },
    /// A line is not understood, or one is missing.
    #[error("line {key:?} is missing or not understood")]
    Line {
        /// Its first word.
        key: String,
    },
}

const IDENTITY_VERSION: &str = "muster-identity 1";
const EXIT_VERSION: &str = "muster-exit 1";

impl Identity {
    /// The file's text. Groups whose path has a line break are left out (their ids never have one).
    pub fn to_text(&self) -> String {
        let mut lines = vec![IDENTITY_VERSION.to_owned(), format!("boot {}", self.boot_id)];
        lines.push(format!("supervisor {} {}", self.supervisor.pid, self.supervisor.start_ticks));
        if let Some(task) = self.task {
            lines.push(format!("task {} {}", task.pid, task.start_ticks));
        }
        let groups = self.group.v1.iter().map(|group| ("v1", &group.controllers, &group.dir));
        let groups = groups.chain(self.group.v2.iter().map(|group| ("v2", &group.controllers, &group.dir)));
        for (version, controllers, dir) in groups {
            let dir = dir.to_string_lossy();
            if !dir.contains('\n') {
                lines.push(format!("cgroup {version} {} {dir}", controllers.join(",")));
            }
        }
        seal(lines)
    }

    /// Reads the file's text.
    ///
    /// Errors: [`StateError`].
    pub fn from_text(text: &[u8]) -> Result<Self, StateError> {
        let lines = unseal(text, IDENTITY_VERSION)?;
        let mut identity = Self {
            boot_id: String::new(),
            supervisor: ProcessId { pid: 0, start_ticks: 0 },
            task: None,
            group: Group::default(),
        };
        let mut supervisor = None;
        for line in lines {
            let (key, rest) = line.split_once(' ').unwrap_or((line, ""));
            let known = match key {
                "boot" => {
                    identity.boot_id = rest.to_owned();
                    Some(())
                }
                "supervisor" => process(rest).map(|process| supervisor = Some(process)),
                "task" => process(rest).map(|process| identity.task = Some(process)),
                "cgroup" => group_line(rest, &mut identity.group),
                _ => None,
            };
            known.ok_or_else(|| StateError::Line { key: key.to_owned() })?;
        }
        identity.supervisor = supervisor.ok_or_else(|| StateError::Line { key: "supervisor".to_owned() })?;
        Ok(identity)
    }
}

impl Exit {
    /// The file's text.
    pub fn to_text(&self) -> String {
        let mut lines = vec![EXIT_VERSION.to_owned()];
        if let Some(task) = self.task {
            lines.push(format!("task {} {}", task.pid, task.start_ticks));
        }
        lines.push(match self.ended {
            Ended::Code(code) => format!("code {code}"),
            Ended::Signal(signal) => format!("signal {signal}"),
            Ended::NotStarted { stage, errno } => format!("not-started {} {errno}", stage.word()),
        });
        lines.push(format!("ended-at-us {}", self.ended_at_us));
        if let Some(oom) = self.oom {
            lines.push(format!("oom {} {} {}", oom.kills, oom.peak_bytes, oom.limit_bytes));
        }
        seal(lines)
    }

    /// Reads the file's text.
    ///
    /// Errors: [`StateError`].
    pub fn from_text(text: &[u8]) -> Result<Self, StateError> {
        let lines = unseal(text, EXIT_VERSION)?;
        let (mut task, mut ended, mut ended_at_us, mut oom) = (None, None, None, None);
        for line in lines {
            let (key, rest) = line.split_once(' ').unwrap_or((line, ""));
            let known = match key {
                "task" => process(rest).map(|process| task = Some(process)),
                "code" => rest.parse().ok().map(|code| ended = Some(Ended::Code(code))),
                "signal" => rest.parse().ok().map(|signal| ended = Some(Ended::Signal(signal))),
                "not-started" => not_started(rest).map(|why| ended = Some(why)),
                "ended-at-us" => rest.parse().ok().map(|at| ended_at_us = Some(at)),
                "oom" => oom_line(rest).map(|numbers| oom = Some(numbers)),
                _ => None,
            };
            known.ok_or_else(|| StateError::Line { key: key.to_owned() })?;
        }
        let ended = ended.ok_or_else(|| StateError::Line { key: "code".to_owned() })?;
        let ended_at_us = ended_at_us.ok_or_else(|| StateError::Line { key: "ended-at-us".to_owned() })?;
        Ok(Self { task, ended, ended_at_us, oom })
    }
}

fn process(text: &str) -> Option<ProcessId> {
    let (pid, start) = text.split_once(' ')?;
    Some(ProcessId { pid: pid.parse().ok()?, start_ticks: start.parse().ok()? })
}

fn not_started(text: &str) -> Option<Ended> {
    let (stage, errno) = text.split_once(' ')?;
    Some(Ended::NotStarted { stage: Stage::from_word(stage)?, errno: errno.parse().ok()? })
}

fn oom_line(text: &str) -> Option<Oom> {
    let mut parts = text.split(' ').map(str::parse);
    let mut next = || parts.next()?.ok();
    Some(Oom { kills: next()?, peak_bytes: next()?, limit_bytes: next()? })
}

fn group_line(text: &str, group: &mut Group) -> Option<()> {
    let (version, rest) = text.split_once(' ')?;
    let (controllers, dir) = rest.split_once(' ')?;
    let controllers: Vec<String> = controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let dir = PathBuf::from(dir);
    match version {
        "v1" => group.v1.push(V1Group { controllers, dir }),
        "v2" => group.v2 = Some(V2Group { controllers, dir }),
        _ => return None,
    }
    Some(())
}

fn seal(lines: Vec<String>) -> String {
    let mut text = lines.join("\n");
    text.push('\n');
    let check = check_of(text.as_bytes());
    text.push_str(&format!("end {check}\n"));
    text
}

/// The lines between version and check line.
fn unseal<'a>(text: &'a [u8], version: &'static str) -> Result<Vec<&'a str>, StateError> {
    let cut = || StateError::CutShort { bytes: text.len() };
    let damaged = |said: &str| StateError::Damaged { said: said.to_owned(), computed: "no text".to_owned() };
    let whole = std::str::from_utf8(text).map_err(|_| damaged("bytes that are no text"))?;
    let body_end = whole.strip_suffix('\n').ok_or_else(cut)?.rfind('\n').ok_or_else(cut)? + 1;
    let (body, last) = whole.split_at(body_end);
    let said = last.trim_end().strip_prefix("end ").ok_or_else(cut)?;
    let computed = check_of(body.as_bytes());
    if said != computed {
        return Err(StateError::Damaged { said: said.to_owned(), computed });
    }
    let mut lines = body.lines();
    let found = lines.next().unwrap_or_default();
    if found != version {
        return Err(StateError::Version { found: found.to_owned(), wanted: version });
    }
    Ok(lines.collect())
}

/// FNV-1a, 64 bits: enough against torn and flipped bytes of a file this small (Fowler, Noll, Vo; draft-eastlake-fnv).
fn check_of(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            boot_id: "8a2b8d6c-0b5e-4f2f-9a76-63c6d3b6a6e1".into(),
            supervisor: ProcessId { pid: 12, start_ticks: 3456 },
            task: Some(ProcessId { pid: 13, start_ticks: 3457 }),
            group: Group {
                v1: vec![V1Group { controllers: vec!["cpu".into(), "cpuacct".into()], dir: "/a b/c1".into() }],
                v2: Some(V2Group { controllers: vec![], dir: "/u/muster/c1".into() }),
            },
        }
    }

    fn exits() -> Vec<Exit> {
        let task = Some(ProcessId { pid: 13, start_ticks: 3457 });
        let oom = Some(Oom { kills: 1, peak_bytes: 2, limit_bytes: 3 });
        let mut exits: Vec<Exit> = STAGES
            .iter()
            .map(|(stage, _, _)| Exit {
                task: None,
                ended: Ended::NotStarted { stage: *stage, errno: 2 },
                ended_at_us: 1,
                oom: None,
            })
            .collect();
        exits.push(Exit { task, ended: Ended::Code(255), ended_at_us: u64::MAX, oom: None });
        exits.push(Exit { task, ended: Ended::Signal(9), ended_at_us: 0, oom });
        exits
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(Identity::from_text(identity().to_text().as_bytes()), Ok(identity()));
        let unborn = Identity { task: None, group: Group::default(), ..identity() };
        assert_eq!(Identity::from_text(unborn.to_text().as_bytes()), Ok(unborn));
        for exit in exits() {
            assert_eq!(Exit::from_text(exit.to_text().as_bytes()), Ok(exit));
        }
        for (stage, _, _) in STAGES {
            assert_eq!(Stage::from_code(stage.code()), stage);
        }
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_noticed() {
        for text in [identity().to_text(), exits().pop().unwrap().to_text()] {
            for length in 0..text.len() {
                let cut = &text.as_bytes()[..length];
                assert!(Identity::from_text(cut).is_err() && Exit::from_text(cut).is_err(), "length {length}");
            }
            for index in 0..text.len() * 8 {
                let mut flipped = text.clone().into_bytes();
                flipped[index / 8] ^= 1 << (index % 8);
                assert!(Identity::from_text(&flipped).is_err() && Exit::from_text(&flipped).is_err(), "bit {index}");
            }
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let text = identity().to_text();
        assert_eq!(Identity::from_text(&text.as_bytes()[..40]), Err(StateError::CutShort { bytes: 40 }));
        assert!(matches!(Exit::from_text(text.as_bytes()), Err(StateError::Version { .. })));
        let unknown = seal(vec![EXIT_VERSION.into(), "code 999".into()]);
        assert_eq!(Exit::from_text(unknown.as_bytes()), Err(StateError::Line { key: "code".into() }));
        let nothing = seal(vec![IDENTITY_VERSION.into()]);
        assert_eq!(Identity::from_text(nothing.as_bytes()), Err(StateError::Line { key: "supervisor".into() }));
    }
}
