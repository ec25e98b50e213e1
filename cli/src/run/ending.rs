//! How a task ended, and the exit status that this becomes.
//!
//! Pure.

use muster_http_api::{muster_v1::Task, proto::TaskState};

use crate::words::spoken;

/// The task was lost, or its agent became unreachable.
pub(super) const LOST: u8 = 124;
/// What becomes of a task whose end a run does not wait for.
pub(super) const FRAMEWORK_ENDS: &str =
    "the run's framework ends with it: a task that still runs is killed, on an agent that is away once that is back";
/// Muster itself failed, not the command.
pub(crate) const OWN_ERROR: u8 = 125;
/// Interrupted before there was a task: 128 + SIGINT.
pub(super) const INTERRUPTED: u8 = 130;

/// Whether a run is over with this state. Unreachable is not the end of a task, but of waiting for it.
pub(super) fn is_end(state: TaskState) -> bool {
    match state {
        TaskState::TaskFinished
        | TaskState::TaskFailed
        | TaskState::TaskKilled
        | TaskState::TaskError
        | TaskState::TaskLost
        | TaskState::TaskDropped
        | TaskState::TaskUnreachable
        | TaskState::TaskGone
        | TaskState::TaskGoneByOperator => true,
        TaskState::TaskStaging
        | TaskState::TaskStarting
        | TaskState::TaskRunning
        | TaskState::TaskKilling
        | TaskState::TaskUnknown => false,
    }
}

/// The exit status for a task that ended so; `facts` is what Muster's own API knows of its process.
pub(super) fn status(state: TaskState, facts: Option<&Task>) -> u8 {
    let process = facts.and_then(|task| match (task.exit_status, task.exit_signal) {
        (Some(status), _) => Some(status),
        (None, Some(signal)) => Some(128u8.saturating_add(signal)),
        (None, None) => None,
    });
    match state {
        TaskState::TaskFinished => process.unwrap_or(0),
        // Without a process there was none: it could not be started, and that is not the command's own failure.
        TaskState::TaskFailed => process.unwrap_or(OWN_ERROR),
        TaskState::TaskKilled => process.unwrap_or(128 + 9),
        TaskState::TaskLost
        | TaskState::TaskDropped
        | TaskState::TaskUnreachable
        | TaskState::TaskGone
        | TaskState::TaskGoneByOperator => LOST,
        TaskState::TaskError
        | TaskState::TaskStaging
        | TaskState::TaskStarting
        | TaskState::TaskRunning
        | TaskState::TaskKilling
        | TaskState::TaskUnknown => OWN_ERROR,
    }
}

/// `TASK_RUNNING` for people: `running`.
pub(super) fn phrase(state: TaskState) -> String {
    spoken(state.as_str_name(), "TASK_")
}

/// The one line that tells a task's end: its state, the exit status, and what else is known of it.
pub(super) fn summary(state: TaskState, status: u8, message: Option<&str>) -> String {
    // "Command exited with status 3" says the status again.
    let told = format!("Command exited with status {status}");
    let message = message.filter(|message| *message != told).map(|message| format!(": {message}"));
    format!("{}, exit status {status}{}", phrase(state), message.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_told_in_one_line() {
        for (name, state, status, message, expected) in [
            ("success", TaskState::TaskFinished, 0, "Command exited with status 0", "finished, exit status 0"),
            ("failure", TaskState::TaskFailed, 3, "Command exited with status 3", "failed, exit status 3"),
            (
                "signal",
                TaskState::TaskFailed,
                137,
                "Command terminated with signal Killed",
                "failed, exit status 137: Command terminated with signal Killed",
            ),
            (
                "could not start",
                TaskState::TaskFailed,
                OWN_ERROR,
                "no such program",
                "failed, exit status 125: no such program",
            ),
            (
                "another status than the command's",
                TaskState::TaskFailed,
                OWN_ERROR,
                "Command exited with status 3",
                "failed, exit status 125: Command exited with status 3",
            ),
            ("several words", TaskState::TaskGoneByOperator, LOST, "", "gone by operator, exit status 124"),
        ] {
            let message = Some(message).filter(|message| !message.is_empty());
            assert_eq!(summary(state, status, message), expected, "case: {name}");
        }
    }

    fn facts(exit_status: Option<u8>, exit_signal: Option<u8>) -> Task {
        let empty = serde_json::json!({"id": "", "name": "", "framework_id": "", "agent_id": "", "role": "", "state": "",
            "resources": {}, "statuses": [], "exit_status": exit_status, "exit_signal": exit_signal});
        serde_json::from_value(empty).unwrap()
    }

    #[test]
    fn the_status_is_the_tasks_own_where_it_has_one() {
        for (name, state, exit_status, exit_signal, expected) in [
            ("success", TaskState::TaskFinished, Some(0), None, 0),
            ("failure", TaskState::TaskFailed, Some(3), None, 3),
            ("crash", TaskState::TaskFailed, None, Some(11), 139),
            ("killed by its framework", TaskState::TaskKilled, None, Some(15), 143),
            ("killed but ended by itself", TaskState::TaskKilled, Some(0), None, 0),
            ("killed before it began", TaskState::TaskKilled, None, None, 137),
            ("could not start", TaskState::TaskFailed, None, None, OWN_ERROR),
            ("lost", TaskState::TaskLost, None, None, LOST),
            ("unreachable", TaskState::TaskUnreachable, None, None, LOST),
            ("gone", TaskState::TaskGone, None, None, LOST),
            ("never launched", TaskState::TaskDropped, None, None, LOST),
            ("not accepted", TaskState::TaskError, None, None, OWN_ERROR),
        ] {
            assert!(is_end(state), "case: {name}");
            assert_eq!(status(state, Some(&facts(exit_status, exit_signal))), expected, "case: {name}");
        }
        assert_eq!(status(TaskState::TaskFinished, None), 0);
    }
}
