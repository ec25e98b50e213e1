//! What to start: the launch file, written by the agent and read once by the supervisor.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use crate::cgroup::{Group, V1Group, V2Group};
use crate::limits::LAUNCH_BYTES_MAX;

/// The command of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `/bin/sh -c VALUE`.
    Shell(String),
    /// A program (searched in the task's PATH when it has no slash) with its arguments, the zeroth included.
    Program {
        /// What to execute.
        path: String,
        /// Its arguments.
        argv: Vec<String>,
    },
}

/// One resource limit by the kernel's number. `u64::MAX` means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// Such as 7 for RLIMIT_NOFILE.
    pub resource: u32,
    /// What counts now.
    pub soft: u64,
    /// Up to where the task may raise it.
    pub hard: u64,
}

/// Everything a supervisor needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchSpec {
    /// What to run.
    pub command: Command,
    /// Its whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Where it starts.
    pub work_dir: PathBuf,
    /// uid, gid and all groups to become; `None` stays the agent's user.
    pub user: Option<(u32, u32, Vec<u32>)>,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// File that standard output is appended to.
    pub stdout: PathBuf,
    /// File that standard error is appended to.
    pub stderr: PathBuf,
    /// Control groups to enter; they exist and are limited already.
    pub group: Group,
}

/// Why a launch was refused before anything was started.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The kernel ends texts at a zero byte.
    #[error("{what} {text:?} holds a zero byte; remove it")]
    ZeroByte {
        /// Which part.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// An environment name that no program could look up.
    #[error("environment variable name {name:?} is empty or holds '='; rename it")]
    EnvName {
        /// The name.
        name: String,
    },
    /// Too much.
    #[error("command, arguments and environment have {bytes} bytes; at most {LAUNCH_BYTES_MAX} can be started")]
    TooLarge {
        /// How much.
        bytes: usize,
    },
    /// The command is empty.
    #[error("the command names no program; set its value")]
    NoProgram,
}

/// PATH of a task that has none; Mesos's launcher supplies the same.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const HEAD: &[u8] = b"muster-launch 1\n";

impl LaunchSpec {
    /// Checks the parts and encodes them: after a head line, texts as length and bytes, numbers as eight bytes.
    ///
    /// Errors: [`SpecError`].
    pub(super) fn encode(&self) -> Result<Vec<u8>, SpecError> {
        let mut out = HEAD.to_vec();
        match &self.command {
            Command::Shell(value) => {
                put_number(&mut out, 0);
                put_text(&mut out, "command", value)?;
            }
            Command::Program { path, argv } => {
                if path.is_empty() {
                    return Err(SpecError::NoProgram);
                }
                put_number(&mut out, 1);
                put_text(&mut out, "program", path)?;
                put_number(&mut out, argv.len() as u64);
                argv.iter().try_for_each(|argument| put_text(&mut out, "argument", argument))?;
            }
        }
        put_number(&mut out, self.env.len() as u64);
        for (name, value) in &self.env {
            if name.is_empty() || name.contains('=') {
                return Err(SpecError::EnvName { name: name.clone() });
            }
            put_text(&mut out, "environment variable", name)?;
            put_text(&mut out, "environment value", value)?;
        }
        for (what, path) in [("working directory", &self.work_dir), ("stdout", &self.stdout), ("stderr", &self.stderr)]
        {
            put_path(&mut out, what, path)?;
        }
        match &self.user {
            None => put_number(&mut out, 0),
            Some((uid, gid, groups)) => {
                put_number(&mut out, 1);
                put_number(&mut out, u64::from(*uid));
                put_number(&mut out, u64::from(*gid));
                put_number(&mut out, groups.len() as u64);
                groups.iter().for_each(|group| put_number(&mut out, u64::from(*group)));
            }
        }
        put_number(&mut out, self.rlimits.len() as u64);
        for limit in &self.rlimits {
            [u64::from(limit.resource), limit.soft, limit.hard].into_iter().for_each(|word| put_number(&mut out, word));
        }
        put_number(&mut out, self.group.v1.len() as u64);
        for group in &self.group.v1 {
            put_text(&mut out, "controllers", &group.controllers.join(","))?;
            put_path(&mut out, "cgroup", &group.dir)?;
        }
        put_number(&mut out, u64::from(self.group.v2.is_some()));
        if let Some(group) = &self.group.v2 {
            put_text(&mut out, "controllers", &group.controllers.join(","))?;
            put_path(&mut out, "cgroup", &group.dir)?;
        }
        if out.len() > LAUNCH_BYTES_MAX {
            return Err(SpecError::TooLarge { bytes: out.len() });
        }
        Ok(out)
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes.strip_prefix(HEAD)?);
        let command = match input.number()? {
            0 => Command::Shell(input.text()?),
            1 => Command::Program { path: input.text()?, argv: input.list(Input::text)? },
            _ => return None,
        };
        let env = input.list(|input| Some((input.text()?, input.text()?)))?;
        let (work_dir, stdout, stderr) = (input.path()?, input.path()?, input.path()?);
        let user = match input.number()? {
            0 => None,
            _ => Some((input.word()?, input.word()?, input.list(Input::word)?)),
        };
        let rlimits = input
            .list(|input| Some(Rlimit { resource: input.word()?, soft: input.number()?, hard: input.number()? }))?;
        let v1 = input.list(|input| Some(V1Group { controllers: input.names()?, dir: input.path()? }))?;
        let v2 = match input.number()? {
            0 => None,
            _ => Some(V2Group { controllers: input.names()?, dir: input.path()? }),
        };
        let whole = input.0.is_empty();
        let group = Group { v1, v2 };
        whole.then_some(Self { command, env, work_dir, user, rlimits, stdout, stderr, group })
    }

    /// The programs to try in turn, and the arguments.
    pub(super) fn programs(&self) -> Option<(Vec<CString>, Vec<CString>)> {
        let texts = |argv: &[&str]| argv.iter().map(|text| CString::new(*text).ok()).collect::<Option<Vec<_>>>();
        match &self.command {
            Command::Shell(value) => Some((texts(&["/bin/sh"])?, texts(&["sh", "-c", value])?)),
            Command::Program { path, argv } => {
                let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
                let argv = texts(
                    if argv.is_empty() { std::slice::from_ref(path) as &[String] } else { &[] }
                        .iter()
                        .map(String::as_str)
                        .chain(argv)
                        .collect::<Vec<_>>()
                        .as_slice(),
                )?;
                if path.contains('/') {
                    return Some((texts(&[path])?, argv));
                }
                let search =
                    self.env.iter().rev().find(|(name, _)| name == "PATH").map_or(DEFAULT_PATH, |(_, value)| value);
                // An empty entry means the working directory (execvp(3)).
                let candidates = search.split(':').map(|dir| if dir.is_empty() { "." } else { dir });
                let candidates: Vec<String> = candidates.map(|dir| format!("{dir}/{path}")).collect();
                Some((texts(&candidates.iter().map(String::as_str).collect::<Vec<_>>())?, argv))
            }
        }
    }

    /// The environment as `NAME=value`.
    pub(super) fn environment(&self) -> Option<Vec<CString>> {
        self.env.iter().map(|(name, value)| CString::new(format!("{name}={value}")).ok()).collect()
    }
}

fn put_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, what: &'static str, text: &str) -> Result<(), SpecError> {
    if text.contains('\0') {
        return Err(SpecError::ZeroByte { what, text: text.to_owned() });
    }
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn put_path(out: &mut Vec<u8>, what: &'static str, path: &Path) -> Result<(), SpecError> {
    put_text(out, what, &path.to_string_lossy())
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn number(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_at_checked(8)?;
        self.0 = rest;
        Some(u64::from_le_bytes(head.try_into().ok()?))
    }

    fn word(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn path(&mut self) -> Option<PathBuf> {
        self.text().map(PathBuf::from)
    }

    fn names(&mut self) -> Option<Vec<String>> {
        Some(self.text()?.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.number()?;
        // Each item takes eight bytes at least, so a wild count ends here and not in the allocator.
        if count > (self.0.len() / 8) as u64 {
            return None;
        }
        (0..count).map(|_| item(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> LaunchSpec {
        LaunchSpec {
            command: Command::Program { path: "tool".into(), argv: vec!["tool".into(), "".into(), "é ö".into()] },
            env: vec![("PATH".into(), "/a::/b".into()), ("X".into(), "a=b\nc".into())],
            work_dir: "/sandbox".into(),
            user: Some((1000, 1001, vec![1001, 4])),
            rlimits: vec![Rlimit { resource: 7, soft: 64, hard: u64::MAX }],
            stdout: "/sandbox/stdout".into(),
            stderr: "/sandbox/stderr".into(),
            group: Group {
                v1: vec![V1Group { controllers: vec!["cpu".into(), "cpuacct".into()], dir: "/c/c1".into() }],
                v2: Some(V2Group { controllers: vec![], dir: "/u/c1".into() }),
            },
        }
    }

    #[test]
    fn a_launch_file_is_read_back_and_a_cut_one_refused() {
        let bytes = spec().encode().unwrap();
        assert_eq!(LaunchSpec::decode(&bytes), Some(spec()));
        for length in 0..bytes.len() {
            assert_eq!(LaunchSpec::decode(&bytes[..length]), None, "length {length}");
        }
        let shell =
            LaunchSpec { command: Command::Shell("echo".into()), user: None, group: Group::default(), ..spec() };
        assert_eq!(LaunchSpec::decode(&shell.encode().unwrap()), Some(shell));
    }

    #[test]
    fn programs_are_searched_in_the_tasks_own_path() {
        let text = |list: Vec<CString>| list.into_iter().map(|item| item.into_string().unwrap()).collect::<Vec<_>>();
        let (programs, argv) = spec().programs().unwrap();
        assert_eq!(text(programs), ["/a/tool", "./tool", "/b/tool"]);
        assert_eq!(text(argv), ["tool", "", "é ö"]);
        let absolute = LaunchSpec { command: Command::Program { path: "/x/y".into(), argv: vec![] }, ..spec() };
        let (programs, argv) = absolute.programs().unwrap();
        assert_eq!((text(programs), text(argv)), (vec!["/x/y".to_owned()], vec!["/x/y".to_owned()]));
        let shell = LaunchSpec { command: Command::Shell("a b".into()), ..spec() };
        assert_eq!(text(shell.programs().unwrap().1), ["sh", "-c", "a b"]);
    }

    #[test]
    fn bad_parts_are_refused_with_their_name() {
        let with = |change: fn(&mut LaunchSpec)| {
            let mut spec = spec();
            change(&mut spec);
            spec.encode().unwrap_err()
        };
        assert!(matches!(
            with(|spec| spec.command = Command::Shell("a\0b".into())),
            SpecError::ZeroByte { what: "command", .. }
        ));
        assert!(matches!(with(|spec| spec.env.push(("A=B".into(), String::new()))), SpecError::EnvName { .. }));
        assert!(matches!(with(|spec| spec.env.push((String::new(), String::new()))), SpecError::EnvName { .. }));
        assert!(matches!(
            with(|spec| spec.command = Command::Shell("x".repeat(LAUNCH_BYTES_MAX))),
            SpecError::TooLarge { .. }
        ));
        let none = Command::Program { path: String::new(), argv: vec![] };
        assert_eq!(LaunchSpec { command: none, ..spec() }.encode(), Err(SpecError::NoProgram));
    }
}
