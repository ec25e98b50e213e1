//! Counters of the shell, and the Prometheus page; gauges are read from the picture when somebody asks.

use muster_http_api::mesos_v1::metrics::{Counts, Machine, values};
use muster_model::scheduler::{Event, FrameworkCall};
use muster_model::task::TaskState;
use muster_model::view::{ClusterView, Presence};
use muster_model::{Duration, WallTime};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Kinds of calls that are counted apart, in the order of [`Metrics::call`].
pub const CALLS: [&str; 17] = [
    "subscribe",
    "teardown",
    "accept",
    "decline",
    "revive",
    "suppress",
    "kill",
    "shutdown",
    "acknowledge",
    "reconcile",
    "message",
    "request",
    "update_framework",
    "inverse_offers",
    "acknowledge_operation_status",
    "reconcile_operations",
    "operator",
];

/// Kinds of events that are counted apart, in the order of [`Metrics::event_sent`].
pub const EVENTS: [&str; 10] = [
    "subscribed",
    "offers",
    "rescind",
    "update",
    "update_operation_status",
    "message",
    "failure",
    "error",
    "heartbeat",
    "offers_sent",
];

/// The counters. Cheap to count, read only when somebody asks.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: AtomicU64,
    turns: AtomicU64,
    turn_nanos: AtomicU64,
    turn_nanos_max: AtomicU64,
    store_operations: AtomicU64,
    link_frames: AtomicU64,
    link_messages: AtomicU64,
    link_bytes: AtomicU64,
    /// Why the store cannot be used at the moment.
    store_trouble: Mutex<Option<Arc<str>>>,
    calls: [AtomicU64; CALLS.len()],
    events: [AtomicU64; EVENTS.len()],
    terminal: [AtomicU64; 14],
}

fn count(counters: &[AtomicU64], index: usize, by: u64) {
    if let Some(counter) = counters.get(index) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

impl Metrics {
    /// One HTTP request arrived.
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// One SUBSCRIBE arrived.
    pub fn subscribe_call(&self) {
        count(&self.calls, 0, 1);
    }

    /// One operator call arrived.
    pub fn operator_call(&self) {
        count(&self.calls, 16, 1);
    }

    /// One call of a framework arrived.
    pub fn call(&self, call: &FrameworkCall) {
        let index = match call {
            FrameworkCall::Teardown => 1,
            FrameworkCall::Accept(_) => 2,
            FrameworkCall::Decline { .. } => 3,
            FrameworkCall::Revive(_) => 4,
            FrameworkCall::Suppress(_) => 5,
            FrameworkCall::Kill { .. } => 6,
            FrameworkCall::Shutdown { .. } => 7,
            FrameworkCall::Acknowledge { .. } => 8,
            FrameworkCall::Reconcile(_) => 9,
            FrameworkCall::Message { .. } => 10,
            FrameworkCall::Request => 11,
            FrameworkCall::UpdateFramework { .. } => 12,
            FrameworkCall::InverseOffers => 13,
            FrameworkCall::AcknowledgeOperation => 14,
            FrameworkCall::ReconcileOperations(_) => 15,
        };
        count(&self.calls, index, 1);
    }

    /// One event goes to a framework.
    pub fn event_sent(&self, event: &Event) {
        let index = match event {
            Event::Subscribed { .. } => 0,
            Event::Offers(offers) => {
                count(&self.events, 9, offers.len() as u64);
                1
            }
            Event::Rescind(_) => 2,
            Event::Update(status) => {
                if status.state.is_terminal() {
                    count(&self.terminal, state_index(status.state), 1);
                }
                3
            }
            Event::TaskRefused { state, .. } => {
                count(&self.terminal, state_index(*state), 1);
                3
            }
            Event::OperationFailed { .. } | Event::OperationUnknown { .. } => 4,
            Event::Message { .. } => 5,
            Event::Failure { .. } => 6,
            Event::Error(_) => 7,
            Event::Heartbeat => 8,
        };
        count(&self.events, index, 1);
    }

    /// One turn of the loop took so long.
    pub fn turn(&self, took: Duration) {
        self.turns.fetch_add(1, Ordering::Relaxed);
        self.turn_nanos.fetch_add(took.0, Ordering::Relaxed);
        self.turn_nanos_max.fetch_max(took.0, Ordering::Relaxed);
    }

    /// One store operation was handed over.
    pub fn store_operation(&self) {
        self.store_operations.fetch_add(1, Ordering::Relaxed);
    }

    /// One frame of so many messages goes to another node.
    pub fn link_frame(&self, messages: usize, bytes: usize) {
        self.link_frames.fetch_add(1, Ordering::Relaxed);
        self.link_messages.fetch_add(messages as u64, Ordering::Relaxed);
        self.link_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The store cannot be followed, and why; or it can again.
    pub fn set_store_trouble(&self, why: Option<Arc<str>>) {
        *self.store_trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Why the store cannot be followed, while that is so.
    pub fn store_trouble(&self) -> Option<Arc<str>> {
        self.store_trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The count of one kind of call, by its index in [`CALLS`].
    pub fn calls(&self) -> BTreeMap<&'static str, u64> {
        CALLS.iter().zip(&self.calls).map(|(name, value)| (*name, value.load(Ordering::Relaxed))).collect()
    }

    /// The count of each kind of event.
    pub fn events(&self) -> BTreeMap<&'static str, u64> {
        EVENTS.iter().zip(&self.events).map(|(name, value)| (*name, value.load(Ordering::Relaxed))).collect()
    }

    /// How often frameworks were told that a task ended in this state.
    pub fn ended(&self, state: TaskState) -> u64 {
        self.terminal.get(state_index(state)).map_or(0, |value| value.load(Ordering::Relaxed))
    }

    /// The keys that exporters of Mesos read.
    pub fn mesos_values(&self, view: &ClusterView, started: WallTime, now: WallTime) -> Vec<(String, f64)> {
        let ends = [
            TaskState::Finished,
            TaskState::Failed,
            TaskState::Killed,
            TaskState::Lost,
            TaskState::Error,
            TaskState::Dropped,
            TaskState::Gone,
            TaskState::GoneByOperator,
        ];
        let counts = Counts {
            calls: self.calls(),
            events: self.events(),
            ended: ends.map(|state| (state, self.ended(state))).to_vec(),
            machine: machine(),
        };
        values(view, &counts, started, now)
    }

    /// The page for Prometheus: counters of the shell and gauges of the picture.
    pub fn prometheus(&self, view: &ClusterView) -> String {
        let mut page = String::new();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        counter(&mut page, "muster_server_http_requests_total", "HTTP requests", load(&self.requests));
        counter(&mut page, "muster_server_turns_total", "turns of the event loop", load(&self.turns));
        seconds(
            &mut page,
            "muster_server_turn_seconds_total",
            "counter",
            "time in the event loop",
            load(&self.turn_nanos),
        );
        seconds(&mut page, "muster_server_turn_seconds_max", "gauge", "longest turn", load(&self.turn_nanos_max));
        counter(&mut page, "muster_store_operations_total", "store operations", load(&self.store_operations));
        for (name, help, value) in [
            ("muster_link_frames_sent_total", "frames sent to other nodes", &self.link_frames),
            ("muster_link_messages_sent_total", "messages sent to other nodes", &self.link_messages),
            ("muster_link_bytes_sent_total", "bytes of frames sent to other nodes", &self.link_bytes),
        ] {
            counter(&mut page, name, help, load(value));
        }
        head(&mut page, "muster_store_away", "gauge", "1 while the store cannot be followed");
        let _ = writeln!(page, "muster_store_away {}", u8::from(self.store_trouble().is_some()));
        head(&mut page, "muster_scheduler_calls_total", "counter", "calls of frameworks");
        for (kind, value) in self.calls() {
            let _ = writeln!(page, "muster_scheduler_calls_total{{kind=\"{kind}\"}} {value}");
        }
        head(&mut page, "muster_scheduler_events_total", "counter", "events sent to frameworks");
        for (kind, value) in self.events() {
            let _ = writeln!(page, "muster_scheduler_events_total{{kind=\"{kind}\"}} {value}");
        }
        counter(&mut page, "muster_allocator_cycles_total", "allocation cycles", view.allocator.cycles);
        head(&mut page, "muster_agents", "gauge", "agents by presence");
        let mut presences = BTreeMap::from([("connected", 0_u64), ("disconnected", 0), ("recovered", 0)]);
        let mut states: BTreeMap<&str, u64> = BTreeMap::new();
        for agent in view.owner.agents.values() {
            let presence = match agent.presence {
                Presence::Connected => "connected",
                Presence::Disconnected { .. } => "disconnected",
                Presence::Recovered => "recovered",
            };
            *presences.entry(presence).or_default() += 1;
            for task in agent.tasks.values() {
                *states.entry(task.state.as_str()).or_default() += 1;
            }
        }
        for (presence, value) in presences {
            let _ = writeln!(page, "muster_agents{{presence=\"{presence}\"}} {value}");
        }
        head(&mut page, "muster_tasks", "gauge", "tasks on agents by state");
        for (state, value) in states {
            let _ = writeln!(page, "muster_tasks{{state=\"{state}\"}} {value}");
        }
        head(&mut page, "muster_frameworks", "gauge", "frameworks by connection");
        let connected = view.home.frameworks.values().filter(|framework| framework.is_connected).count();
        let _ = writeln!(page, "muster_frameworks{{connected=\"true\"}} {connected}");
        let _ = writeln!(page, "muster_frameworks{{connected=\"false\"}} {}", view.home.frameworks.len() - connected);
        let offers: usize = view.home.frameworks.values().map(|framework| framework.offers.len()).sum();
        head(&mut page, "muster_offers_open", "gauge", "open offers");
        let _ = writeln!(page, "muster_offers_open {offers}");
        page
    }
}

/// The machine, as /proc shows it; what can't be read is 0.
pub fn machine() -> Machine {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    // MemTotal:       24683116 kB
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    // 0.52 0.58 0.59 1/467 12345
    let loadavg = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut loads = loadavg.split_whitespace().map(|field| field.parse::<f64>().unwrap_or(0.0));
    let mut load = || loads.next().unwrap_or(0.0);
    Machine {
        cpus: std::thread::available_parallelism().map_or(0, usize::from) as f64,
        mem_total_bytes: kib("MemTotal") * 1024.0,
        mem_free_bytes: kib("MemFree") * 1024.0,
        load: [load(), load(), load()],
    }
}

fn state_index(state: TaskState) -> usize {
    match state {
        TaskState::Staging => 0,
        TaskState::Starting => 1,
        TaskState::Running => 2,
        TaskState::Killing => 3,
        TaskState::Finished => 4,
        TaskState::Failed => 5,
        TaskState::Killed => 6,
        TaskState::Error => 7,
        TaskState::Lost => 8,
        TaskState::Dropped => 9,
        TaskState::Unreachable => 10,
        TaskState::Gone => 11,
        TaskState::GoneByOperator => 12,
        TaskState::Unknown => 13,
    }
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn counter(page: &mut String, name: &str, help: &str, value: u64) {
    head(page, name, "counter", help);
    let _ = writeln!(page, "{name} {value}");
}

fn seconds(page: &mut String, name: &str, kind: &str, help: &str, nanos: u64) {
    head(page, name, kind, help);
    let _ = writeln!(page, "{name} {}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
}
