//! From how a container ended to what its task's last status says. Wording: Mesos's command executor and its memory
//! isolator.

use crate::io::{ContainerEnd, OutOfMemory};
use crate::limits::MESSAGE_BYTES_MAX;
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use muster_model::Milli;
use muster_model::resource::Resources;
use muster_model::status::{Exit, Reason, Source};
use muster_model::task::TaskState;

/// Why a task's container ended, as far as the agent had a part in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    /// By itself.
    Itself,
    /// It was asked to.
    Kill,
    /// Its time was over.
    TimeOver,
}

/// What the last status says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    pub(crate) state: TaskState,
    pub(crate) source: Source,
    pub(crate) reason: Option<Reason>,
    pub(crate) message: Arc<str>,
    pub(crate) limitation: Option<Resources>,
}

/// Judges an end. A kill that was asked for wins over everything: the framework gets what it asked for.
pub(crate) fn judge(cause: Cause, end: &ContainerEnd) -> Verdict {
    let by_executor = |state, reason| Verdict {
        state,
        source: Source::Executor,
        reason,
        message: describe(end.exit).into(),
        limitation: None,
    };
    match (cause, end.out_of_memory, end.exit) {
        (Cause::TimeOver, _, _) => by_executor(TaskState::Failed, Some(Reason::MaxCompletionTimeReached)),
        (Cause::Kill, _, _) => by_executor(TaskState::Killed, None),
        (Cause::Itself, Some(memory), _) => out_of_memory(memory),
        (Cause::Itself, None, Some(Exit::Code(0))) => by_executor(TaskState::Finished, None),
        (Cause::Itself, None, Some(Exit::Code(_) | Exit::Signal(_))) => by_executor(TaskState::Failed, None),
        (Cause::Itself, None, None) => {
            Verdict { source: Source::Agent, ..by_executor(TaskState::Failed, Some(Reason::ExecutorTerminated)) }
        }
    }
}

fn out_of_memory(memory: OutOfMemory) -> Verdict {
    let (limit, peak) = (bytes(memory.limit_bytes), bytes(memory.peak_bytes));
    // The limitation's resource is the highest use in MiB; three decimals, rounded down.
    let mib = u64::try_from(u128::from(memory.peak_bytes) * 1000 / (1024 * 1024)).unwrap_or(u64::MAX);
    Verdict {
        state: TaskState::Failed,
        source: Source::Agent,
        reason: Some(Reason::ContainerLimitationMemory),
        message: format!("Memory limit exceeded: Requested: {limit} Maximum Used: {peak}").into(),
        limitation: Some(Resources::basic(Milli::ZERO, Milli(mib), Milli::ZERO)),
    }
}

/// Bytes in the largest unit that divides them, as Mesos writes them: `32MB`, `1536KB`, `7B`.
fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
    match UNITS.iter().find(|(size, _)| count > 0 && count.is_multiple_of(*size)) {
        Some((size, unit)) => format!("{}{unit}", count / size),
        None => format!("{count}B"),
    }
}

fn describe(exit: Option<Exit>) -> String {
    match exit {
        Some(Exit::Code(code)) => format!("Command exited with status {code}"),
        Some(Exit::Signal(signal)) => format!("Command terminated with signal {}", signal_name(signal)),
        None => String::from("Command terminated with unknown status"),
    }
}

/// What strsignal(3) of glibc says, which is what Mesos prints. The numbers are those of x86-64 and arm64.
fn signal_name(signal: u8) -> Cow<'static, str> {
    Cow::Borrowed(match signal {
        1 => "Hangup",
        2 => "Interrupt",
        3 => "Quit",
        4 => "Illegal instruction",
        5 => "Trace/breakpoint trap",
        6 => "Aborted",
        7 => "Bus error",
        8 => "Floating point exception",
        9 => "Killed",
        10 => "User defined signal 1",
        11 => "Segmentation fault",
        12 => "User defined signal 2",
        13 => "Broken pipe",
        14 => "Alarm clock",
        15 => "Terminated",
        16 => "Stack fault",
        17 => "Child exited",
        18 => "Continued",
        19 => "Stopped (signal)",
        20 => "Stopped",
        21 => "Stopped (tty input)",
        22 => "Stopped (tty output)",
        23 => "Urgent I/O condition",
        24 => "CPU time limit exceeded",
        25 => "File size limit exceeded",
        26 => "Virtual timer expired",
        27 => "Profiling timer expired",
        28 => "Window changed",
        29 => "I/O possible",
        30 => "Power failure",
        31 => "Bad system call",
        34..=64 => return Cow::Owned(format!("Real-time signal {}", signal.saturating_sub(34))),
        other => return Cow::Owned(format!("Unknown signal {other}")),
    })
}

/// Cuts a text of the host to the longest message, between two characters.
pub(crate) fn cut(text: &str) -> &str {
    let mut end = text.len().min(MESSAGE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_become_the_statuses_that_frameworks_know() {
        let memory = OutOfMemory { limit_bytes: 32 << 20, peak_bytes: (32 << 20) + 1024 };
        let (none, oom) = (None, Some(memory));
        let (zero, three, killed) = (Some(Exit::Code(0)), Some(Exit::Code(3)), Some(Exit::Signal(9)));
        use Cause::{Itself, Kill, TimeOver};
        use TaskState::{Failed, Finished, Killed};
        let over = Some(Reason::MaxCompletionTimeReached);
        let limit = Some(Reason::ContainerLimitationMemory);
        let limit_text = "Memory limit exceeded: Requested: 32MB Maximum Used: 32769KB";
        for (name, cause, exit, out_of_memory, state, reason, message) in [
            ("success", Itself, zero, none, Finished, None, "Command exited with status 0"),
            ("failure", Itself, three, none, Failed, None, "Command exited with status 3"),
            ("signal", Itself, killed, none, Failed, None, "Command terminated with signal Killed"),
            ("killed", Kill, killed, none, Killed, None, "Command terminated with signal Killed"),
            ("killed, exits well", Kill, zero, none, Killed, None, "Command exited with status 0"),
            ("killed, memory", Kill, killed, oom, Killed, None, "Command terminated with signal Killed"),
            ("memory", Itself, killed, oom, Failed, limit, limit_text),
            ("time", TimeOver, killed, none, Failed, over, "Command terminated with signal Killed"),
            (
                "unseen",
                Itself,
                none_exit(),
                none,
                Failed,
                Some(Reason::ExecutorTerminated),
                "Command terminated with unknown status",
            ),
        ] {
            let verdict = judge(cause, &ContainerEnd { exit, out_of_memory, output_bytes: None });
            assert_eq!((verdict.state, verdict.reason, &*verdict.message), (state, reason, message), "case: {name}");
            let has_limitation = verdict.limitation.is_some();
            assert_eq!(has_limitation, reason == limit, "case: {name}");
        }
        assert_eq!(out_of_memory(memory).limitation, Some(Resources::basic(Milli::ZERO, Milli(32_000), Milli::ZERO)));
    }

    fn none_exit() -> Option<Exit> {
        None
    }

    #[test]
    fn signals_and_sizes_read_as_mesos_writes_them() {
        for (signal, name) in [(1, "Hangup"), (15, "Terminated"), (34, "Real-time signal 0"), (99, "Unknown signal 99")]
        {
            assert_eq!(signal_name(signal), name);
        }
        for (count, text) in [(0, "0B"), (7, "7B"), (1536 << 10, "1536KB"), (2 << 30, "2GB"), (3 << 40, "3TB")] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "é".repeat(MESSAGE_BYTES_MAX);
        assert_eq!(cut(&text).len(), MESSAGE_BYTES_MAX);
        let text = alloc::format!("x{text}");
        assert_eq!(cut(&text).len(), MESSAGE_BYTES_MAX - 1);
        assert_eq!(cut("short"), "short");
    }
}
