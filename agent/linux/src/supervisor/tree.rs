//! Processes by descent, for containers without control groups and for what a task leaves behind.

use crate::limits::{SIGNAL_PIDS_MAX, TREE_DEPTH_MAX};

/// All processes below `pid`, nearest first; `pid` itself is not among them. As a subreaper, a supervisor keeps even those
/// whose parents ended.
pub(crate) fn descendants(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut generation = vec![pid];
    for _ in 0..TREE_DEPTH_MAX {
        let mut next = Vec::new();
        for parent in &generation {
            children(*parent, &mut next);
        }
        let room = SIGNAL_PIDS_MAX.saturating_sub(found.len());
        next.truncate(room);
        if next.is_empty() {
            break;
        }
        found.extend_from_slice(&next);
        generation = next;
    }
    found
}

/// Appends the children that any thread of `pid` made.
// 6527 6531
// 6544
fn children(pid: i32, found: &mut Vec<i32>) {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    for thread in threads.into_iter().flatten().filter_map(Result::ok) {
        // Needs CONFIG_PROC_CHILDREN, which every distribution sets.
        let text = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
    }
}
