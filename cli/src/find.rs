//! Finds a task by what a user calls it: its id or, where no task has that id, its name.

use std::collections::BTreeSet;

use muster_http_api::muster_v1::{Task, Tasks};
use muster_transport::http::StatusCode;

use crate::{
    api::{Api, ApiError},
    endpoints,
    words::spoken,
};

/// Of tasks of one name; the whole list may be long.
const SHOWN_MAX: usize = 20;

/// Why there is not one task.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("{count} tasks have the name '{name}'; give the id of one:\n{}", list.join("\n"))]
    Several { name: String, count: usize, list: Vec<String> },
}

/// The newest task of this id, or the one task of this name; of one framework if that is given.
pub(crate) async fn task(api: &Api, called: &str, framework_id: Option<&str>) -> Result<Task, FindError> {
    let unknown = match endpoints::task(api, called, framework_id).await {
        Ok(task) => return Ok(task),
        Err(error) if is_unknown(&error) => error,
        Err(error) => return Err(error.into()),
    };
    match named(api, called, framework_id).await? {
        // An id may have been used again by its framework: the newest counts.
        Some((id, framework_id)) => Ok(endpoints::task(api, &id, Some(&framework_id)).await?),
        None => Err(unknown.into()),
    }
}

/// The ids of the one task of this name, and of its framework, if there is one.
pub(crate) async fn named(
    api: &Api,
    name: &str,
    framework_id: Option<&str>,
) -> Result<Option<(String, String)>, FindError> {
    let all: Tasks = endpoints::list(api, "tasks").await?;
    Ok(pick(&all.tasks, name, framework_id)?.map(|(id, framework_id)| (id.to_owned(), framework_id.to_owned())))
}

/// Whether the control plane says that there is none.
pub(crate) fn is_unknown(error: &ApiError) -> bool {
    matches!(error, ApiError::Refused { status: StatusCode::NOT_FOUND, .. })
}

/// The ids of the task and its framework. Errors: several tasks have the name.
fn pick<'a>(
    tasks: &'a [Task],
    name: &str,
    framework_id: Option<&str>,
) -> Result<Option<(&'a str, &'a str)>, FindError> {
    let mut seen = BTreeSet::new();
    let wanted = tasks.iter().filter(|task| task.name == name && framework_id.is_none_or(|id| task.framework_id == id));
    let found: Vec<&Task> = wanted.filter(|task| seen.insert((&task.framework_id, &task.id))).collect();
    match found.as_slice() {
        [] => Ok(None),
        [task] => Ok(Some((&task.id, &task.framework_id))),
        several => {
            let line = |task: &&Task| {
                format!("  {}  {}  framework {}", task.id, spoken(&task.state, "TASK_"), task.framework_id)
            };
            let mut list: Vec<String> = several.iter().take(SHOWN_MAX).map(line).collect();
            if several.len() > SHOWN_MAX {
                list.push(format!("  and {} more, see `muster tasks`", several.len() - SHOWN_MAX));
            }
            Err(FindError::Several { name: name.to_owned(), count: several.len(), list })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str, name: &str, framework_id: &str, state: &str) -> Task {
        let task = serde_json::json!({"id": id, "name": name, "framework_id": framework_id, "agent_id": "a", "role": "*",
            "state": state, "resources": {}, "statuses": []});
        serde_json::from_value(task).unwrap()
    }

    #[test]
    fn a_name_is_good_if_one_task_has_it() {
        let tasks = [
            task("t1", "web", "f1", "TASK_RUNNING"),
            task("t2", "db", "f1", "TASK_RUNNING"),
            task("t3", "web", "f2", "TASK_GONE_BY_OPERATOR"),
            task("again", "batch", "f1", "TASK_RUNNING"),
            task("again", "batch", "f1", "TASK_FINISHED"),
        ];
        for (name, framework_id, expected) in [
            ("db", None, Some(("t2", "f1"))),
            ("web", Some("f2"), Some(("t3", "f2"))),
            ("batch", None, Some(("again", "f1"))),
            ("db", Some("f2"), None),
            ("t1", None, None),
            ("we", None, None),
        ] {
            assert_eq!(pick(&tasks, name, framework_id).unwrap(), expected, "case: {name} {framework_id:?}");
        }
        assert_eq!(
            pick(&tasks, "web", None).unwrap_err().to_string(),
            "2 tasks have the name 'web'; give the id of one:\n  t1  running  framework f1\n  t3  gone by operator  framework f2"
        );
    }

    #[test]
    fn a_long_list_is_cut() {
        let tasks: Vec<Task> =
            (0..SHOWN_MAX + 3).map(|number| task(&format!("t{number}"), "n", "f", "TASK_FINISHED")).collect();
        let said = pick(&tasks, "n", None).unwrap_err().to_string();
        assert!(said.starts_with("23 tasks ") && said.ends_with("\n  and 3 more, see `muster tasks`"), "{said}");
        assert_eq!(said.lines().count(), SHOWN_MAX + 2);
    }
}
