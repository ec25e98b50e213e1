//! Words around numbers and around names that the API writes in capitals.
//!
//! Pure.

use muster_http_api::muster_v1::count;

/// What is said of things that do not end in time: `1 task does not end and is left running`.
pub(crate) fn left_running(number: u64, noun: &str) -> String {
    let rest = if number == 1 { "does not end and is left running" } else { "do not end and are left running" };
    format!("{} {rest}", count(number, noun))
}

/// A name of the API for people: `REASON_CONTAINER_LAUNCH_FAILED` without its prefix is `container launch failed`.
pub(crate) fn spoken(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        for (number, expected, left) in [
            (0, "0 tasks", "0 tasks do not end and are left running"),
            (1, "1 task", "1 task does not end and is left running"),
            (2, "2 tasks", "2 tasks do not end and are left running"),
            (21, "21 tasks", "21 tasks do not end and are left running"),
        ] {
            assert_eq!(count(number, "task"), expected);
            assert_eq!(left_running(number, "task"), left);
        }
    }

    #[test]
    fn names_are_spoken_without_their_prefix() {
        for (name, prefix, expected) in [
            ("REASON_CONTAINER_LAUNCH_FAILED", "REASON_", "container launch failed"),
            ("TASK_RUNNING", "TASK_", "running"),
            ("SOMETHING_NEW", "REASON_", "something new"),
        ] {
            assert_eq!(spoken(name, prefix), expected, "case: {name}");
        }
    }
}
