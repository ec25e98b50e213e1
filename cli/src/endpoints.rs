//! The paths of Muster's own API, and how its answers are fetched.

use bytes::Bytes;
use muster_http_api::muster_v1::{Agent, Agents, Cluster, CreatedToken, Fault, NewToken, Task};
use muster_transport::http::{Method, StreamingResponse};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::api::{Api, ApiError, escape};

const BASE: &str = "/api/muster/v1";

/// One of the plain lists.
pub(crate) async fn list<T: DeserializeOwned>(api: &Api, name: &str) -> Result<T, ApiError> {
    api.get(&format!("{BASE}/{name}")).await
}

/// The cluster and the node that answers.
pub(crate) async fn cluster(api: &Api) -> Result<Cluster, ApiError> {
    list(api, "cluster").await
}

/// All agents.
pub(crate) async fn agents(api: &Api) -> Result<Agents, ApiError> {
    list(api, "agents").await
}

/// One agent.
pub(crate) async fn agent(api: &Api, agent_id: &str) -> Result<Agent, ApiError> {
    api.get(&format!("{BASE}/agents/{}", escape(agent_id))).await
}

/// The newest task of an id, of one framework if that is given.
pub(crate) async fn task(api: &Api, task_id: &str, framework_id: Option<&str>) -> Result<Task, ApiError> {
    let query = framework_id.map(|id| format!("?framework={}", escape(id))).unwrap_or_default();
    api.get(&format!("{BASE}/tasks/{}{query}", escape(task_id))).await
}

/// The last decisions about a framework, a task or an agent.
pub(crate) async fn why<T: DeserializeOwned>(api: &Api, kind: &str, id: &str) -> Result<T, ApiError> {
    api.get(&format!("{BASE}/why/{kind}/{}", escape(id))).await
}

/// The last decisions about a task of a framework.
pub(crate) async fn why_task<T: DeserializeOwned>(api: &Api, id: &str, framework_id: &str) -> Result<T, ApiError> {
    api.get(&format!("{BASE}/why/tasks/{}?framework={}", escape(id), escape(framework_id))).await
}

/// Makes a join token.
pub(crate) async fn create_token(api: &Api, token: &NewToken) -> Result<CreatedToken, ApiError> {
    api.post(&format!("{BASE}/tokens"), &json!(token)).await
}

/// Ends an agent's certificate.
pub(crate) async fn revoke_agent(api: &Api, id: &str) -> Result<(), ApiError> {
    api.delete(&format!("{BASE}/agents/{}/certificate", escape(id))).await
}

/// Stops offers on an agent.
pub(crate) async fn deactivate_agent(api: &Api, id: &str) -> Result<(), ApiError> {
    let path = format!("{BASE}/agents/{}/deactivation", escape(id));
    api.call(Method::PUT, &path, &[], Bytes::new()).await.map(|_| ())
}

/// Lets offers be made on an agent again.
pub(crate) async fn reactivate_agent(api: &Api, id: &str) -> Result<(), ApiError> {
    api.delete(&format!("{BASE}/agents/{}/deactivation", escape(id))).await
}

/// Ends a join token.
pub(crate) async fn revoke_token(api: &Api, name: &str) -> Result<(), ApiError> {
    api.delete(&format!("{BASE}/tokens/{}", escape(name))).await
}

/// A file in a task's sandbox, and where in it to begin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct File<'a> {
    pub(crate) agent_id: &'a str,
    pub(crate) framework_id: &'a str,
    pub(crate) task_id: &'a str,
    pub(crate) path: &'a str,
    pub(crate) offset: u64,
    pub(crate) follow: bool,
}

/// Opens a file of a task's sandbox. With `follow` it goes on until the task has ended.
pub(crate) async fn open_file(api: &Api, file: File<'_>) -> Result<StreamingResponse, ApiError> {
    let path = format!(
        "{BASE}/agents/{}/files?framework={}&task={}&path={}&offset={}&follow={}",
        escape(file.agent_id),
        escape(file.framework_id),
        escape(file.task_id),
        escape(file.path),
        file.offset,
        file.follow
    );
    api.stream(Method::GET, &path, &[], Bytes::new()).await
}

/// What an error answer of Muster's own API says; `None` if the text is none.
pub(crate) fn fault(text: &str) -> Option<String> {
    serde_json::from_str::<Fault>(text).ok().map(|fault| fault.error)
}
