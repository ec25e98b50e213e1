//! Processes by /proc/PID/stat: who a pid is, told apart from a later process with the same number.

use std::path::Path;

use super::file::{fields, number};

/// A process, by number and start time; equal only if it is the same process (within one boot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// The number.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat: clock ticks after boot.
    pub start_ticks: u64,
}

impl ProcessId {
    /// Looks up who has number `pid` now; `None` when nobody has.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start_ticks: ProcessStat::of(pid)?.start_ticks })
    }

    /// Whether this very process exists and is not a zombie.
    pub fn is_alive(&self) -> bool {
        match ProcessStat::of(self.pid) {
            Some(stat) => stat.start_ticks == self.start_ticks && stat.state != b'Z' && stat.state != b'X',
            None => false,
        }
    }
}

/// The fields of /proc/PID/stat that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// One letter; `Z` is a zombie.
    pub state: u8,
    /// Parent.
    pub parent: i32,
    /// Session.
    pub session: i32,
    /// Threads.
    pub thread_count: u64,
    /// Start in clock ticks after boot.
    pub start_ticks: u64,
    /// Resident pages.
    pub resident_pages: u64,
    /// Where the arguments begin; zero for other users' processes.
    pub arg_start: u64,
    /// Where the arguments end.
    pub arg_end: u64,
}

impl ProcessStat {
    /// Reads the file of `pid`; `None` when there is no such process.
    pub fn of(pid: i32) -> Option<Self> {
        read_stat(Path::new("/proc").join(pid.to_string()).join("stat").as_path())
    }

    /// Reads the file of this process.
    pub fn of_self() -> Option<Self> {
        read_stat(Path::new("/proc/self/stat"))
    }
}

fn read_stat(path: &Path) -> Option<ProcessStat> {
    parse_stat(&std::fs::read(path).ok()?)
}

/// Parses the text of /proc/PID/stat; `None` when it is not one.
// 6536 (cat) R 6528 6528 3517 0 -1 4194304 99 0 0 0 0 0 0 0 20 0 1 0 101256 3133440 384 18446744073709551615 …
// 211 (a) b) S 1 211 211 0 -1 4194560 41 0 0 0 0 0 0 0 20 0 1 0 1043 1200128 12 18446744073709551615 …
// The name stands in parentheses and may itself hold blanks and parentheses: what counts begins after the last one.
pub fn parse_stat(text: &[u8]) -> Option<ProcessStat> {
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let mut parts = fields(text.get(close + 1..)?);
    // Numbers in the comments are those of proc(5), where the state is field 3.
    let state = *parts.next()?.first()?;
    let parent = i32::try_from(number(parts.next()?)?).ok()?; // 4
    let session = i32::try_from(number(parts.nth(1)?)?).ok()?; // 6
    let thread_count = number(parts.nth(13)?)?; // 20
    let start_ticks = number(parts.nth(1)?)?; // 22
    let resident_pages = number(parts.nth(1)?)?; // 24
    let arg_start = parts.nth(23).and_then(number).unwrap_or(0); // 48
    let arg_end = parts.next().and_then(number).unwrap_or(0); // 49
    Some(ProcessStat { state, parent, session, thread_count, start_ticks, resident_pages, arg_start, arg_end })
}

/// The random id of this boot of the kernel, 36 characters; empty when /proc lacks it.
// 8a2b8d6c-0b5e-4f2f-9a76-63c6d3b6a6e1
// 0d9f6f0e-5f64-4f0c-a8d3-5a1f6f1f9f2c
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let tail = "S 6528 6528 3517 0 -1 4194304 99 0 0 0 0 0 0 0 20 0 1 0 101256 3133440 384 18446744073709551615 \
                    94868083412992 94868083432873 140725040950480 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 94868083448880 \
                    94868083450496 94868487098368 140725040958178 140725040958198 140725040958198 140725040959467 0";
        for name in ["cat", "a b", "a) R 1 (b", "))((", ""] {
            let stat = parse_stat(format!("6536 ({name}) {tail}\n").as_bytes()).unwrap();
            assert_eq!((stat.state, stat.parent, stat.session), (b'S', 6528, 3517), "name: {name}");
            assert_eq!((stat.thread_count, stat.start_ticks, stat.resident_pages), (1, 101_256, 384), "name: {name}");
            assert_eq!((stat.arg_start, stat.arg_end), (140_725_040_958_178, 140_725_040_958_198), "name: {name}");
        }
    }

    #[test]
    fn cut_text_is_refused() {
        for text in ["", "1 (a", "1 (a) S", "1 (a) S 1 1 1 0 -1 4194304 99 0 0 0 0 0 0 0 20 0 1 0"] {
            assert_eq!(parse_stat(text.as_bytes()), None, "text: {text}");
        }
    }

    #[test]
    fn this_process_is_alive_and_another_start_time_is_not() {
        let me = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessId { start_ticks: me.start_ticks + 1, ..me }.is_alive());
        assert_eq!(boot_id().len(), 36);
    }
}
