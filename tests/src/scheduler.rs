//! A framework as small as can be, over the public scheduler API in JSON. Acknowledges every update unless told not to.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use anyhow::Context;
use serde_json::{Value, json};

use crate::{
    http::{self, Answer, Records},
    wait,
};

const PATH: &str = "/api/v1/scheduler";

/// One subscription.
#[derive(Debug)]
pub struct Scheduler {
    /// Where calls go.
    server: SocketAddr,
    /// The id the control plane gave.
    pub framework_id: String,
    stream_id: String,
    seen: Arc<Seen>,
    /// Ids of offers that the test has had.
    returned: Mutex<BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct Seen {
    events: Mutex<Events>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Events {
    list: Vec<Value>,
    has_ended: bool,
}

/// Whether updates are acknowledged as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledge {
    /// Each one.
    All,
    /// None.
    Nothing,
}

/// A framework without an id yet, in one role, which the server keeps for a while when the subscription breaks.
#[must_use]
pub fn framework(name: &str) -> Value {
    json!({"user": "root", "name": name, "roles": ["*"], "failover_timeout": 600.0, "checkpoint": true,
        "capabilities": [{"type": "MULTI_ROLE"}, {"type": "PARTITION_AWARE"}]})
}

/// A command task of 0.1 cpus and 32 MB on the agent of an offer.
#[must_use]
pub fn task(id: &str, command: &str, offer: &Value) -> Value {
    json!({"name": id, "task_id": {"value": id}, "agent_id": offer["agent_id"], "command": {"value": command},
        "resources": [scalar("cpus", 0.1), scalar("mem", 32.0)]})
}

/// A scalar resource.
#[must_use]
pub fn scalar(name: &str, value: f64) -> Value {
    json!({"name": name, "type": "SCALAR", "scalar": {"value": value}})
}

impl Scheduler {
    /// Subscribes, anew or (when `framework` holds an id) again.
    ///
    /// Errors: when the server refuses or does not answer.
    pub fn subscribe(server: SocketAddr, framework: &Value, acknowledge: Acknowledge) -> anyhow::Result<Self> {
        Self::subscribe_through(server, server, framework, acknowledge)
    }

    /// As [`Scheduler::subscribe`], with all calls sent to another node than the stream is from, as behind a load balancer.
    ///
    /// Errors: as there.
    pub fn subscribe_through(
        stream_from: SocketAddr,
        server: SocketAddr,
        framework: &Value,
        acknowledge: Acknowledge,
    ) -> anyhow::Result<Self> {
        let mut call = json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": framework}});
        if let Some(id) = framework.get("id") {
            call["framework_id"] = id.clone();
        }
        let mut records = Records::open(stream_from, PATH, &call)?;
        let stream_id = records.header("mesos-stream-id").context("the answer has no Mesos-Stream-Id")?.to_owned();
        let first = records.next_record()?.context("the stream ended at once")?;
        anyhow::ensure!(first["type"] == "SUBSCRIBED", "the first event is {first}");
        let framework_id = text(&first["subscribed"]["framework_id"]["value"])?;
        let seen = Arc::new(Seen::default());
        let returned = Mutex::default();
        let scheduler = Self { server, framework_id, stream_id, seen: Arc::clone(&seen), returned };
        let caller =
            Caller { server, framework_id: scheduler.framework_id.clone(), stream_id: scheduler.stream_id.clone() };
        thread::spawn(move || {
            while let Ok(Some(event)) = records.next_record() {
                if acknowledge == Acknowledge::All {
                    // A failure shows as an update that comes again.
                    let _ = caller.acknowledge(&event);
                }
                seen.lock().list.push(event);
                seen.more.notify_all();
            }
            seen.lock().has_ended = true;
            seen.more.notify_all();
        });
        Ok(scheduler)
    }

    /// Sends a call with this framework's id and stream.
    ///
    /// Errors: when the server does not answer. A refusal is an answer.
    pub fn call(&self, call: Value) -> anyhow::Result<Answer> {
        let stream_id = self.stream_id.clone();
        Caller { server: self.server, framework_id: self.framework_id.clone(), stream_id }.call(call)
    }

    /// Sends a call that must be accepted.
    ///
    /// Errors: when it is not.
    pub fn send(&self, call: Value) -> anyhow::Result<()> {
        let kind = call["type"].to_string();
        let answer = self.call(call)?;
        anyhow::ensure!(answer.status == 202, "{kind} got {}: {}", answer.status, answer.text());
        Ok(())
    }

    /// All events so far.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.seen.lock().list.clone()
    }

    /// Waits until the events so far answer a question.
    ///
    /// Errors: when they do not in time, with the events.
    pub fn wait<T>(&self, what: &str, ask: impl Fn(&[Value]) -> Option<T>) -> anyhow::Result<T> {
        let end = Instant::now() + wait::PATIENCE;
        let mut events = self.seen.lock();
        loop {
            if let Some(answer) = ask(&events.list) {
                return Ok(answer);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || events.has_ended {
                let list: Vec<String> = events.list.iter().map(Value::to_string).collect();
                anyhow::bail!("waited in vain for {what} (stream ended: {}):\n{}", events.has_ended, list.join("\n"));
            }
            events = self.seen.more.wait_timeout(events, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for an offer that was not returned here before and was not rescinded.
    ///
    /// Errors: when none comes in time.
    pub fn next_offer(&self) -> anyhow::Result<Value> {
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        let offer = self.wait("an offer", |events| {
            let rescinded: Vec<&Value> = events.iter().map(|event| &event["rescind"]["offer_id"]).collect();
            let mut offers = events.iter().filter_map(|event| event["offers"]["offers"].as_array()).flatten();
            offers
                .find(|offer| !rescinded.contains(&&offer["id"]) && !returned.contains(&offer["id"].to_string()))
                .cloned()
        })?;
        returned.insert(offer["id"].to_string());
        Ok(offer)
    }

    /// The states of a task, in the order they came.
    #[must_use]
    pub fn states(&self, task_id: &str) -> Vec<String> {
        states(&self.seen.lock().list, task_id)
    }

    /// Waits until a task was in a state, and returns that status.
    ///
    /// Errors: when it does not come in time.
    pub fn wait_state(&self, task_id: &str, state: &str) -> anyhow::Result<Value> {
        self.wait(&format!("{task_id} to be {state}"), |events| {
            let statuses = events.iter().map(|event| &event["update"]["status"]);
            statuses
                .into_iter()
                .find(|status| status["task_id"]["value"] == task_id && status["state"] == state)
                .cloned()
        })
    }

    /// Accepts one offer with tasks; what is left may be offered again at once.
    ///
    /// Errors: when the call is refused.
    pub fn launch(&self, offer: &Value, tasks: &[Value]) -> anyhow::Result<()> {
        self.send(json!({"type": "ACCEPT", "accept": {"offer_ids": [offer["id"]], "filters": {"refuse_seconds": 0.0},
            "operations": [{"type": "LAUNCH", "launch": {"task_infos": tasks}}]}}))
    }

    /// Asks for the end of a task.
    ///
    /// Errors: when the call is refused.
    pub fn kill(&self, task_id: &str) -> anyhow::Result<()> {
        self.send(json!({"type": "KILL", "kill": {"task_id": {"value": task_id}}}))
    }

    /// Ends the framework.
    ///
    /// Errors: when the call is refused.
    pub fn teardown(&self) -> anyhow::Result<()> {
        self.send(json!({"type": "TEARDOWN"}))
    }
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Caller {
    server: SocketAddr,
    framework_id: String,
    stream_id: String,
}

impl Caller {
    fn call(&self, mut call: Value) -> anyhow::Result<Answer> {
        call["framework_id"] = json!({"value": self.framework_id});
        http::post_json(self.server, PATH, &[("Mesos-Stream-Id", &self.stream_id)], &call)
    }

    fn acknowledge(&self, event: &Value) -> anyhow::Result<()> {
        let status = &event["update"]["status"];
        if status["uuid"].is_string() {
            self.call(json!({"type": "ACKNOWLEDGE", "acknowledge":
                {"agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"]}}))?;
        }
        Ok(())
    }
}

fn states(events: &[Value], task_id: &str) -> Vec<String> {
    let statuses = events.iter().map(|event| &event["update"]["status"]);
    let own = statuses.filter(|status| status["task_id"]["value"] == task_id);
    own.filter_map(|status| status["state"].as_str().map(str::to_owned)).collect()
}

fn text(value: &Value) -> anyhow::Result<String> {
    Ok(value.as_str().with_context(|| format!("{value} is no text"))?.to_owned())
}
