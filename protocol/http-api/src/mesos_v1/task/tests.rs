//! Tests of tasks on the wire.

use super::*;
use crate::json::decode;
use muster_model::Milli;

fn launch(fields: &str) -> LaunchTask {
    let text = format!("{{\"name\":\"n\",\"task_id\":{{\"value\":\"t\"}},\"agent_id\":{{\"value\":\"a\"}},{fields}}}");
    task_from_wire(&decode(text.as_bytes()).unwrap(), &FrameworkId::parse("f").unwrap())
}

const CPUS: &str = "\"resources\":[{\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{\"value\":0.1},\"allocation_info\":{\"role\":\"r\"}}]";

#[test]
fn a_command_task_keeps_all_that_is_decided_on() {
    let LaunchTask::Task(task) = launch(&format!(
        "{CPUS},\"command\":{{\"shell\":false,\"value\":\"/bin/echo\",\"arguments\":[\"echo\",\"hi\"],\"user\":\"u\",\
         \"environment\":{{\"variables\":[{{\"name\":\"A\",\"value\":\"1\"}}]}}}},\
         \"kill_policy\":{{\"grace_period\":{{\"nanoseconds\":5000000000}}}},\"max_completion_time\":{{\"nanoseconds\":1}},\
         \"container\":{{\"type\":\"MESOS\"}},\"labels\":{{\"labels\":[{{\"key\":\"k\"}}]}}"
    )) else {
        panic!("refused");
    };
    assert_eq!(task.resources, Resources::basic(Milli(100), Milli::ZERO, Milli::ZERO));
    assert_eq!(task.role.as_str(), "r");
    assert_eq!(
        task.command.program,
        Program::Exec { path: "/bin/echo".into(), arguments: vec!["echo".into(), "hi".into()] }
    );
    assert_eq!(task.command.environment, [("A".into(), "1".into())]);
    assert_eq!(task.command.user.as_deref(), Some("u"));
    assert_eq!(task.kill_grace, Some(Duration::from_secs(5)));
    assert_eq!(task.completion_time_max, Some(Duration(1)));
    assert_eq!(task_spec(&task).labels.unwrap().labels.len(), 1);
}

#[test]
fn tasks_that_cannot_be_run_as_described_are_refused() {
    let command = "\"command\":{\"value\":\"true\"}";
    for (fields, expected) in [
        (CPUS.to_owned(), "at least one (but not both)"),
        (
            format!("{CPUS},{command},\"executor\":{{\"executor_id\":{{\"value\":\"e\"}},\"command\":{{}}}}"),
            "at least one (but not both)",
        ),
        (format!("{CPUS},\"executor\":{{\"executor_id\":{{\"value\":\"e\"}},\"command\":{{}}}}"), "own executor"),
        (command.to_owned(), "uses no resources"),
        (
            format!("{command},\"resources\":[{{\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{{\"value\":-1}}}}]"),
            "Resource 'cpus:-1' is invalid: Invalid scalar resource: value <= 0",
        ),
        (format!("{CPUS},{command},\"health_check\":{{}}"), "health check"),
        (format!("{CPUS},{command},\"check\":{{}}"), "check"),
        (format!("{CPUS},{command},\"limits\":{{\"mem\":{{\"value\":\"Infinity\"}}}}"), "limits"),
        (format!("{CPUS},{command},\"kill_policy\":{{\"grace_period\":{{\"nanoseconds\":-1}}}}"), "non-negative"),
        (format!("{CPUS},{command},\"max_completion_time\":{{\"nanoseconds\":-1}}"), "non-negative"),
        (format!("{CPUS},{command},\"container\":{{\"type\":\"DOCKER\",\"docker\":{{\"image\":\"i\"}}}}"), "DOCKER"),
        (
            format!(
                "{CPUS},{command},\"container\":{{\"type\":\"MESOS\",\"volumes\":[{{\"mode\":\"RW\",\"container_path\":\"p\"}}]}}"
            ),
            "volumes",
        ),
        (format!("{CPUS},\"command\":{{}}"), "Shell command is not specified"),
        (format!("{CPUS},\"command\":{{\"shell\":false}}"), "Executable is not specified"),
        (format!("{CPUS},\"command\":{{\"value\":\"a\\u0000b\"}}"), "NUL"),
        (format!("{CPUS},\"command\":{{\"value\":\"x\",\"uris\":[{{\"value\":\"http://a/b\"}}]}}"), "URIs"),
        (
            format!("{CPUS},\"command\":{{\"value\":\"x\",\"environment\":{{\"variables\":[{{\"name\":\"A\"}}]}}}}"),
            "must have a value set",
        ),
        (
            format!(
                "{CPUS},\"command\":{{\"value\":\"x\",\"environment\":{{\"variables\":[{{\"name\":\"A=B\",\"value\":\"\"}}]}}}}"
            ),
            "no process can get",
        ),
        (
            format!(
                "{CPUS},\"command\":{{\"value\":\"x\",\"environment\":{{\"variables\":[{{\"name\":\"A\",\"type\":\"SECRET\"}}]}}}}"
            ),
            "secret",
        ),
    ] {
        match launch(&fields) {
            LaunchTask::Invalid { task_id, message } => {
                assert_eq!(&*task_id, "t");
                assert!(message.contains(expected), "{fields} gave: {message}");
            }
            LaunchTask::Task(_) => panic!("accepted: {fields}"),
        }
    }
}

#[test]
fn an_invalid_id_is_named_as_the_client_wrote_it() {
    let text = format!("{{\"name\":\"n\",\"task_id\":{{\"value\":\"a/b\"}},\"agent_id\":{{\"value\":\"a\"}},{CPUS}}}");
    let refused = task_from_wire(&decode(text.as_bytes()).unwrap(), &FrameworkId::parse("f").unwrap());
    assert!(matches!(refused, LaunchTask::Invalid { task_id, .. } if &*task_id == "a/b"));
}
