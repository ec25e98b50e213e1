//! Frameworks that generate load: ordinary clients of the public scheduler API, which Muster and Mesos both serve.
//!
//! Each one subscribes, fills offers with as many tasks as they hold (below its window), acknowledges every update and
//! counts until all its tasks are where they should get.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use muster_http_api::{
    mesos_v1::content::Encoding,
    proto::{
        CommandInfo, Filters, FrameworkId, FrameworkInfo, Offer, Resource, TaskId, TaskInfo, TaskState, TaskStatus,
        framework_info::{self, capability},
        offer::{self, operation},
        scheduler::{Call, Event, call, event},
        value,
    },
    recordio::Decoder,
};
use tokio::sync::mpsc;

use crate::http::{Answer, Arrived, Pipeline, Post, Stream};

const PATH: &str = "/api/v1/scheduler";
const ENDED: &str = "the control plane ended the event stream";
const EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where a task must get for the run to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// It ends well.
    Finished,
    /// It runs, and goes on running until the framework is torn down.
    Running,
}

/// What one framework does.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// Its name; its role too.
    pub(crate) name: String,
    /// Tasks in all.
    pub(crate) tasks: usize,
    /// Tasks in one ACCEPT at most.
    pub(crate) tasks_per_accept: usize,
    /// Tasks that are launched and not yet at their goal, at most.
    pub(crate) in_flight: usize,
    /// Connections that carry acknowledgements.
    pub(crate) connections: usize,
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// Each task's share of a processor, and its memory in MiB.
    pub(crate) cpus: f64,
    /// See `cpus`.
    pub(crate) mem: f64,
    /// When a task counts as done.
    pub(crate) goal: Goal,
    /// Silence after which the run is given up.
    pub(crate) patience: Duration,
}

/// What one framework saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// From ACCEPT to TASK_RUNNING, in milliseconds, one per task.
    pub(crate) to_running: Vec<f64>,
    /// From ACCEPT to the end, in milliseconds, one per task.
    pub(crate) to_finished: Vec<f64>,
    /// ACCEPT calls.
    pub(crate) accepts: u64,
    /// ACKNOWLEDGE calls, each answered with 202.
    pub(crate) acknowledgements: u64,
    /// Updates, repeated ones included.
    pub(crate) updates: u64,
    /// Offers.
    pub(crate) offers: u64,
    /// Offers taken back.
    pub(crate) rescinded: u64,
    /// First ACCEPT.
    pub(crate) begun: Option<Instant>,
    /// Answer to the last acknowledgement.
    pub(crate) ended: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct TaskSeen {
    accepted: Instant,
    is_running: bool,
    is_ended: bool,
}

/// A framework that is subscribed.
pub(crate) struct Framework {
    work: Work,
    address: SocketAddr,
    id: FrameworkId,
    post: Post,
    stream: Stream,
    decoder: Decoder,
    calls: Pipeline,
    acknowledging: Vec<Pipeline>,
    answers: mpsc::UnboundedReceiver<anyhow::Result<Answer>>,
    /// Calls without an answer.
    unanswered: usize,
    offers: VecDeque<Offer>,
    tasks: Vec<TaskSeen>,
    done: usize,
    /// Whether it said that it wants no more offers: whatever runs on would else be offered all that is left.
    is_suppressed: bool,
    seen: Seen,
}

impl Framework {
    /// Subscribes.
    pub(crate) async fn subscribe(address: SocketAddr, work: Work) -> anyhow::Result<Self> {
        let capability = |kind: capability::Type| framework_info::Capability { r#type: Some(kind.into()) };
        let framework_info = FrameworkInfo {
            user: "root".to_owned(),
            name: work.name.clone(),
            roles: vec![work.name.clone()],
            capabilities: vec![capability(capability::Type::MultiRole), capability(capability::Type::PartitionAware)],
            ..FrameworkInfo::default()
        };
        let subscribe = call::Subscribe { framework_info, ..call::Subscribe::default() };
        let call = Call { subscribe: Some(Box::new(subscribe)), ..of_type(call::Type::Subscribe) };
        let request = Post::to(PATH, address, "").request(&Encoding::Protobuf.encode(&call));
        let (head, mut stream) = Stream::open(address, request).await?;
        let stream_id = head.header("mesos-stream-id").context("the answer has no Mesos-Stream-Id")?;
        let post = Post::to(PATH, address, &format!("Mesos-Stream-Id: {stream_id}\r\n"));
        let mut decoder = Decoder::new(EVENT_BYTES_MAX);
        let mut others = VecDeque::new();
        let id = 'subscribed: loop {
            while let Some(event) = next_event(&mut decoder)? {
                match event.subscribed {
                    Some(subscribed) => break 'subscribed subscribed.framework_id,
                    None => others.push_back(event),
                }
            }
            decoder.push(&stream.next().await?.context("the stream ended before SUBSCRIBED")?);
        };
        let (send, answers) = mpsc::unbounded_channel();
        let calls = Pipeline::open(address, send.clone()).await?;
        let mut acknowledging = Vec::new();
        for _ in 0..work.connections {
            acknowledging.push(Pipeline::open(address, send.clone()).await?);
        }
        let mut framework = Self {
            address,
            id,
            post,
            stream,
            decoder,
            calls,
            acknowledging,
            answers,
            unanswered: 0,
            offers: VecDeque::new(),
            tasks: Vec::with_capacity(work.tasks),
            done: 0,
            is_suppressed: false,
            seen: Seen::default(),
            work,
        };
        for event in others {
            framework.hear(event)?;
        }
        Ok(framework)
    }

    /// Launches all tasks and returns when each is at its goal and every acknowledgement is answered.
    pub(crate) async fn run(&mut self) -> anyhow::Result<Seen> {
        self.launch()?;
        self.flush()?;
        while self.done < self.work.tasks || self.unanswered > 0 {
            tokio::select! {
                bytes = self.stream.next() => {
                    let mut bytes = bytes?.context(ENDED)?;
                    // All that has arrived is heard before anything is said.
                    loop {
                        self.decoder.push(&bytes);
                        while let Some(event) = next_event(&mut self.decoder)? {
                            self.hear(event)?;
                        }
                        bytes = match self.stream.arrived()? {
                            Arrived::Bytes(bytes) => bytes,
                            Arrived::End => bail!(ENDED),
                            Arrived::Nothing => break,
                        };
                    }
                    self.launch()?;
                    self.flush()?;
                }
                answer = self.answers.recv() => self.take_answer(answer.context("all connections are gone")??)?,
                () = tokio::time::sleep(self.work.patience) => bail!(
                    "{}: nothing happened for {} s: {} of {} tasks launched, {} done, {} calls without an answer, {} offers in hand",
                    self.work.name, self.work.patience.as_secs(), self.tasks.len(), self.work.tasks, self.done,
                    self.unanswered, self.offers.len()
                ),
            }
        }
        Ok(std::mem::take(&mut self.seen))
    }

    /// Ends the framework and what runs of it.
    pub(crate) async fn tear_down(mut self) -> anyhow::Result<()> {
        // A server may have closed connections on which nothing was asked for half a minute.
        let (send, answers) = mpsc::unbounded_channel();
        self.calls = Pipeline::open(self.address, send).await?;
        self.answers = answers;
        self.call(Call { ..of_type(call::Type::Teardown) });
        self.flush()?;
        while self.unanswered > 0 {
            let answer = tokio::time::timeout(self.work.patience, self.answers.recv()).await;
            let answer = answer.context("TEARDOWN got no answer")?.context("all connections are gone")??;
            self.take_answer(answer)?;
        }
        Ok(())
    }

    fn take_answer(&mut self, answer: Answer) -> anyhow::Result<()> {
        if answer.status != 202 {
            bail!(
                "{}: a call was answered with {}: {}",
                self.work.name,
                answer.status,
                String::from_utf8_lossy(&answer.body)
            );
        }
        self.unanswered -= answer.count;
        self.seen.ended = Some(answer.at);
        Ok(())
    }

    fn hear(&mut self, event: Event) -> anyhow::Result<()> {
        let Event { r#type, offers, rescind, update, failure, error, .. } = event;
        if let Some(offers) = offers {
            self.seen.offers += u64::try_from(offers.offers.len())?;
            self.offers.extend(offers.offers);
        }
        if let Some(rescind) = rescind {
            self.seen.rescinded += 1;
            self.offers.retain(|offer| offer.id != rescind.offer_id);
        }
        if let Some(update) = update {
            self.update(update.status)?;
        }
        if let Some(error) = error {
            bail!("{}: the control plane says ERROR: {}", self.work.name, error.message);
        }
        if r#type == Some(event::Type::Failure.into()) {
            eprintln!("{}: FAILURE: {failure:?}", self.work.name);
        }
        Ok(())
    }

    fn update(&mut self, status: TaskStatus) -> anyhow::Result<()> {
        self.seen.updates += 1;
        let now = Instant::now();
        let index: usize =
            status.task_id.value.rsplit('-').next().unwrap_or_default().parse().context("unknown task")?;
        let task = self.tasks.get_mut(index).with_context(|| format!("update for task {index}, never launched"))?;
        let waited = now.duration_since(task.accepted).as_secs_f64() * 1000.0;
        match status.state() {
            TaskState::TaskStaging | TaskState::TaskStarting => {}
            TaskState::TaskRunning => {
                if !task.is_running {
                    task.is_running = true;
                    self.seen.to_running.push(waited);
                    self.done += usize::from(self.work.goal == Goal::Running);
                }
            }
            TaskState::TaskFinished if self.work.goal == Goal::Finished => {
                if !task.is_ended {
                    task.is_ended = true;
                    self.seen.to_finished.push(waited);
                    self.done += 1;
                }
            }
            state => bail!("task {} is {state:?}: {}", status.task_id.value, status.message.unwrap_or_default()),
        }
        let (Some(uuid), Some(agent_id)) = (status.uuid, status.agent_id) else { return Ok(()) };
        let acknowledge = call::Acknowledge { agent_id, task_id: status.task_id, uuid };
        let call = Call {
            framework_id: Some(self.id.clone()),
            acknowledge: Some(acknowledge),
            ..of_type(call::Type::Acknowledge)
        };
        let index = index % self.acknowledging.len().max(1);
        let connection = self.acknowledging.get_mut(index).unwrap_or(&mut self.calls);
        connection.add(&self.post, &Encoding::Protobuf.encode(&call));
        self.unanswered += 1;
        self.seen.acknowledgements += 1;
        Ok(())
    }

    /// Fills offers while the window has room; leaves them lying else.
    fn launch(&mut self) -> anyhow::Result<()> {
        while self.tasks.len() < self.work.tasks {
            let room = self.work.in_flight.saturating_sub(self.tasks.len() - self.done);
            // Small rooms gather into one larger call, as a real framework with a queue would do.
            if room < self.work.tasks_per_accept.min(self.work.in_flight).min(self.work.tasks - self.tasks.len()) {
                return Ok(());
            }
            let Some(offer) = self.offers.pop_front() else { return Ok(()) };
            let count =
                self.fitting(&offer).min(room).min(self.work.tasks_per_accept).min(self.work.tasks - self.tasks.len());
            if count == 0 {
                let decline = call::Decline { offer_ids: vec![offer.id], filters: Some(refuse(0.1)) };
                self.call(Call { decline: Some(decline), ..of_type(call::Type::Decline) });
                continue;
            }
            let first = self.tasks.len();
            let task_infos = (first..first + count).map(|index| self.task(index, &offer)).collect();
            let operation = offer::Operation {
                r#type: Some(offer::operation::Type::Launch.into()),
                launch: Some(operation::Launch { task_infos }),
                ..offer::Operation::default()
            };
            let accept =
                call::Accept { offer_ids: vec![offer.id], operations: vec![operation], filters: Some(refuse(0.0)) };
            let now = Instant::now();
            self.seen.begun.get_or_insert(now);
            self.seen.accepts += 1;
            self.tasks.resize(first + count, TaskSeen { accepted: now, is_running: false, is_ended: false });
            self.call(Call { accept: Some(accept), ..of_type(call::Type::Accept) });
        }
        if !self.offers.is_empty() {
            let offer_ids = self.offers.drain(..).map(|offer| offer.id).collect();
            let decline = call::Decline { offer_ids, filters: Some(refuse(31_536_000.0)) };
            self.call(Call { decline: Some(decline), ..of_type(call::Type::Decline) });
        }
        if self.work.goal == Goal::Running && !self.is_suppressed {
            self.is_suppressed = true;
            self.call(Call { ..of_type(call::Type::Suppress) });
        }
        Ok(())
    }

    fn call(&mut self, call: Call) {
        let call = Call { framework_id: Some(self.id.clone()), ..call };
        self.calls.add(&self.post, &Encoding::Protobuf.encode(&call));
        self.unanswered += 1;
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        [&mut self.calls].into_iter().chain(&mut self.acknowledging).try_for_each(Pipeline::flush)
    }

    /// How many tasks an offer holds.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "amounts of offers are small and positive"
    )]
    fn fitting(&self, offer: &Offer) -> usize {
        let amount = |name: &str| -> f64 {
            offer.resources.iter().filter(|r| r.name == name).filter_map(|r| r.scalar).map(|scalar| scalar.value).sum()
        };
        let by = |name: &str, each: f64| if each > 0.0 { (amount(name) / each + 1e-9) as usize } else { usize::MAX };
        by("cpus", self.work.cpus).min(by("mem", self.work.mem))
    }

    fn task(&self, index: usize, offer: &Offer) -> TaskInfo {
        let scalar = |name: &str, value: f64| Resource {
            name: name.to_owned(),
            r#type: value::Type::Scalar.into(),
            scalar: Some(value::Scalar { value }),
            ..Resource::default()
        };
        let command = CommandInfo {
            shell: Some(false),
            value: self.work.command.first().cloned(),
            arguments: self.work.command.clone(),
            ..CommandInfo::default()
        };
        TaskInfo {
            name: "bench".to_owned(),
            task_id: TaskId { value: format!("{}-{index}", self.work.name) },
            agent_id: offer.agent_id.clone(),
            resources: vec![scalar("cpus", self.work.cpus), scalar("mem", self.work.mem)],
            command: Some(command),
            ..TaskInfo::default()
        }
    }
}

fn of_type(kind: call::Type) -> Call {
    Call { r#type: Some(kind.into()), ..Call::default() }
}

fn refuse(seconds: f64) -> Filters {
    Filters { refuse_seconds: Some(seconds) }
}

fn next_event(decoder: &mut Decoder) -> anyhow::Result<Option<Event>> {
    let Some(record) = decoder.next_record()? else { return Ok(None) };
    Ok(Some(Encoding::Protobuf.decode(&record)?))
}
