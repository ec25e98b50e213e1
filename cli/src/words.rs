//! Words around numbers and around names that the API writes in capitals.
//!
//! Pure.

/// A name of the API for people: `REASON_CONTAINER_LAUNCH_FAILED` without its prefix is `container launch failed`.
pub(crate) fn spoken(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

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
