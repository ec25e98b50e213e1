//! The loop around the engines of the fleet.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering, mpsc::SyncSender},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use bytes::{BufMut as _, BytesMut};
use muster_agent_engine::{
    AgentEngine,
    io::{AgentConfig, ConnectionId, ContainerEnd, Input, Output, Purpose},
};
use muster_agent_wire::message::encode_from_agent;
use muster_model::{
    AgentId, Duration as ModelDuration, Milli, Rng, Timestamp, Uuid, WallTime,
    agent::AgentInfo,
    agent_message::{FromAgent, Report, ToAgent},
    fence::Fence,
    record::IdentityRecord,
    resource::Resources,
    status::Exit,
    time::Now,
};
use muster_transport::quic::{Endpoint, Tuning};
use tokio::sync::mpsc;

use super::{
    Counts, Settings,
    join::{Joined, join},
    journal::{self, Batch, Write},
    link::{Link, connect},
};

/// Events that wait for the loop; at the bound connections stop reading.
const EVENTS_MAX: usize = 65_536;
/// Events of one turn.
const TURN_MAX: usize = 1024;
/// Agents that share one UDP socket.
const AGENTS_PER_SOCKET: usize = 256;
/// Agents that join at the same time; the cluster's record changes with each, so more only wait for each other.
const JOINING_MAX: usize = 4;
/// How often deadlines and reports are looked at.
const TICK: Duration = Duration::from_millis(500);

/// What happens to the fleet.
pub(super) enum FleetEvent {
    Message { index: usize, message: ToAgent },
    Lost { index: usize, why: String },
    Journalled { done: Vec<(usize, Vec<u64>)>, position: u64 },
}

struct SimulatedAgent {
    id: AgentId,
    engine: AgentEngine,
    /// What its engine calls its connection.
    connection: ConnectionId,
    link: Link,
    /// Frames of this turn.
    out: BytesMut,
    write: Write,
    is_touched: bool,
    report_every: Option<Duration>,
    reported_at: Instant,
    report_sequence: u64,
}

/// A join under way, with what the agent needs after it.
type Joining = tokio::task::JoinHandle<anyhow::Result<(Joined, Arc<AgentInfo>, Endpoint)>>;

/// Joins, connects and runs until the fleet is dropped.
pub(super) async fn run(
    settings: Settings,
    counts: &Arc<Counts>,
    mut credits: mpsc::UnboundedReceiver<Vec<(usize, u64)>>,
) -> anyhow::Result<()> {
    let (events, mut queue) = mpsc::channel(EVENTS_MAX);
    let journal = journal::start(&settings.dir, counts, events.clone())?;
    let mut fleet = FleetLoop {
        agents: Vec::with_capacity(settings.agents),
        clock: Instant::now(),
        touched: Vec::new(),
        counts: Arc::clone(counts),
        journal,
        is_journalling: false,
        frame: Vec::new(),
    };
    let settings = Arc::new(settings);
    let mut rng = Rng::new(u64::from(std::process::id()) ^ wall_micros());
    let mut endpoint: Option<Endpoint> = None;
    let mut joining: VecDeque<Joining> = VecDeque::new();
    let mut started = 0;
    while fleet.agents.len() < settings.agents && !counts.is_stopping() {
        while started < settings.agents && joining.len() < JOINING_MAX {
            let open = match endpoint.take().filter(|_| started % AGENTS_PER_SOCKET != 0) {
                Some(open) => open,
                None => Endpoint::client("127.0.0.1:0".parse().ok(), tuning())?,
            };
            let (info, nonce) = (Arc::new(info(&settings, started)?), Uuid::from_random(rng.bytes16()));
            let (settings, own) = (Arc::clone(&settings), open.clone());
            joining.push_back(tokio::spawn(async move {
                let joined = join(&settings, &own, &info, nonce).await?;
                Ok((joined, info, own))
            }));
            endpoint = Some(open);
            started += 1;
        }
        let Some(next) = joining.pop_front() else { break };
        let (joined, info, own) = next.await??;
        let index = fleet.agents.len();
        let link = connect(index, &settings, &own, &joined, events.clone()).await?;
        fleet.add(joined.agent_id, info, link, &mut rng);
        while let Ok(event) = queue.try_recv() {
            fleet.take(event)?;
        }
        fleet.end_turn()?;
    }
    drop(events);
    let mut batch = Vec::with_capacity(TURN_MAX);
    let mut tick = tokio::time::interval(TICK);
    while !counts.is_stopping() {
        tokio::select! {
            count = queue.recv_many(&mut batch, TURN_MAX) => {
                if count == 0 {
                    bail!("the journal and all connections are gone");
                }
                for event in batch.drain(..) {
                    fleet.take(event)?;
                }
            }
            Some(credit) = credits.recv() => {
                for (index, count) in credit {
                    fleet.report(index, count)?;
                }
            }
            _ = tick.tick() => fleet.tick()?,
        }
        fleet.end_turn()?;
    }
    Ok(())
}

/// One socket carries many connections, so its buffers are larger than an agent's.
fn tuning() -> Tuning {
    let mut tuning = Tuning::agent(Duration::from_secs(5), Duration::from_secs(30));
    tuning.socket_receive_bytes = 8 * 1024 * 1024;
    tuning.socket_send_bytes = 4 * 1024 * 1024;
    tuning
}

fn info(settings: &Settings, index: usize) -> anyhow::Result<AgentInfo> {
    Ok(AgentInfo {
        hostname: Arc::from(format!("simulated-{index}")),
        ip: Arc::from("127.0.0.1"),
        port: 5051,
        total: Resources::basic(Milli::whole(settings.cpus), Milli::whole(settings.mem), Milli::ZERO),
        attributes: Vec::new(),
        version: Arc::from(env!("CARGO_PKG_VERSION")),
        missing_isolation: Vec::new(),
    })
}

fn wall_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

struct FleetLoop {
    agents: Vec<SimulatedAgent>,
    clock: Instant,
    /// Agents with something to send or to journal.
    touched: Vec<usize>,
    counts: Arc<Counts>,
    journal: SyncSender<Batch>,
    is_journalling: bool,
    frame: Vec<u8>,
}

impl FleetLoop {
    fn now(&self) -> Now {
        let mono = Timestamp(u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX));
        Now { mono, wall: WallTime(wall_micros()) }
    }

    fn add(&mut self, id: AgentId, info: Arc<AgentInfo>, link: Link, rng: &mut Rng) {
        let identity = IdentityRecord {
            agent_id: id.clone(),
            highest_fence: Fence::default(),
            ratchet_token: None,
            addresses: Vec::new(),
        };
        let config = AgentConfig {
            identity,
            entries: vec![Arc::from("owner:1")],
            info,
            boot_id: Uuid::from_random(rng.bytes16()),
            incarnation: 1,
            kill_grace: ModelDuration::from_secs(3),
            update_retry: ModelDuration::from_secs(10),
            update_retry_max: ModelDuration::from_secs(600),
            reconnect: ModelDuration::ZERO,
            reconnect_max: ModelDuration::ZERO,
        };
        let engine = AgentEngine::new(config, Rng::new(rng.next_u64()));
        let index = self.agents.len();
        self.agents.push(SimulatedAgent {
            id,
            engine,
            connection: ConnectionId(0),
            link,
            out: BytesMut::new(),
            write: Write::default(),
            is_touched: false,
            report_every: None,
            reported_at: Instant::now(),
            report_sequence: 0,
        });
        let recovered =
            Input::Recovered { entries: Vec::new(), journal_position: 0, journal_doubt: None, containers: Vec::new() };
        if let Err(error) = self.feed(index, recovered) {
            self.counts.fail(format!("{error:#}"));
        }
    }

    fn take(&mut self, event: FleetEvent) -> anyhow::Result<()> {
        match event {
            FleetEvent::Message { index, message } => {
                let connection = self.agents.get(index).context("a message for an agent that is not there")?.connection;
                self.feed(index, Input::FromNode { connection, message })
            }
            FleetEvent::Lost { index, why } => bail!("agent {index} lost its connection: {why}"),
            FleetEvent::Journalled { done, position } => {
                self.is_journalling = false;
                for (index, seqs) in done {
                    self.feed(index, Input::JournalGrew { position })?;
                    for seq in seqs {
                        self.feed(index, Input::Persisted { seq })?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Gives an engine an input and does what it asks for; a started container runs and ends at once.
    fn feed(&mut self, index: usize, input: Input) -> anyhow::Result<()> {
        let now = self.now();
        let agent = self.agents.get_mut(index).context("an event for an agent that is not there")?;
        if !agent.is_touched {
            agent.is_touched = true;
            self.touched.push(index);
        }
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            agent.engine.handle(input, now);
            while let Some(output) = agent.engine.poll_output() {
                match output {
                    Output::Persist { seq, entries } => {
                        agent.write.entries.extend(entries);
                        agent.write.seqs.push(seq);
                    }
                    Output::PersistIdentity { seq, identity } => {
                        agent.write.identity = Some(identity);
                        agent.write.seqs.push(seq);
                    }
                    // Its connection stands before its engine is made.
                    Output::Dial { connection, purpose: Purpose::Session, .. } => {
                        agent.connection = connection;
                        inputs.push_back(Input::Connected { connection });
                    }
                    Output::Dial { purpose: Purpose::Standby, .. } => {}
                    Output::Close { connection } if connection == agent.connection => {
                        bail!("agent {} leaves its owner", agent.id)
                    }
                    Output::Close { .. } => {}
                    Output::Send { message, .. } => {
                        if matches!(message, FromAgent::Picture(_)) {
                            self.counts.active.fetch_add(1, Ordering::Relaxed);
                        }
                        append_frame(&message, &mut self.frame, &mut agent.out)?;
                    }
                    Output::Start { container_id, .. } => {
                        self.counts.launches.fetch_add(1, Ordering::Relaxed);
                        let end =
                            ContainerEnd { exit: Some(Exit::Code(0)), out_of_memory: None, output_bytes: Some((0, 0)) };
                        let started = Input::ContainerStarted { container_id: container_id.clone(), supervisor_pid: 1 };
                        inputs.extend([started, Input::ContainerEnded { container_id, end }]);
                    }
                    Output::ReportEvery { interval, .. } => {
                        agent.report_every = Some(Duration::from_nanos(interval.0));
                    }
                    Output::Refused { why, .. } => bail!("agent {} was refused: {why}", agent.id),
                    Output::Note { what, detail } => self.counts.note(what, &detail),
                    // Its container has ended; there is nothing to signal and nothing left.
                    Output::Signal { .. } | Output::CleanUp { .. } => {}
                }
            }
        }
        Ok(())
    }

    /// Sends what the turn made, and hands what is to be journalled to the journal when that is free.
    fn end_turn(&mut self) -> anyhow::Result<()> {
        let mut waiting = Vec::new();
        let mut batch = Batch::new();
        for index in std::mem::take(&mut self.touched) {
            let Some(agent) = self.agents.get_mut(index) else { continue };
            if !agent.out.is_empty() {
                let frames = agent.out.split().freeze();
                agent.link.control.try_send(frames).with_context(|| format!("agent {}: outbox", agent.id))?;
            }
            if agent.write.seqs.is_empty() {
                agent.is_touched = false;
            } else if self.is_journalling {
                waiting.push(index);
            } else {
                batch.push((index, agent.id.clone(), std::mem::take(&mut agent.write)));
                agent.is_touched = false;
            }
        }
        self.touched = waiting;
        if !batch.is_empty() {
            self.journal.send(batch).context("the journal is gone")?;
            self.is_journalling = true;
        }
        Ok(())
    }

    /// Deadlines of engines, and the reports that are due.
    fn tick(&mut self) -> anyhow::Result<()> {
        let now = self.now();
        for index in 0..self.agents.len() {
            let Some(agent) = self.agents.get_mut(index) else { continue };
            let is_due = agent.engine.deadline().is_some_and(|(at, _)| at <= now.mono);
            let wants_report = agent.report_every.is_some_and(|every| agent.reported_at.elapsed() >= every);
            if is_due {
                agent.engine.handle_deadline(now);
                // Picks up the outputs of the deadline with an input that changes nothing.
                self.feed(index, Input::JournalGrew { position: 0 })?;
            }
            if wants_report {
                self.report(index, 1)?;
            }
        }
        Ok(())
    }

    /// Writes so many reports of an agent. Their sequence also stands as the load average, which the API shows.
    fn report(&mut self, index: usize, count: u64) -> anyhow::Result<()> {
        let Some(agent) = self.agents.get_mut(index) else { return Ok(()) };
        agent.reported_at = Instant::now();
        let mut frames = BytesMut::new();
        for _ in 0..count {
            agent.report_sequence += 1;
            let report = Report {
                sequence: agent.report_sequence,
                cpu_busy_ms: agent.report_sequence.saturating_mul(100),
                mem_used_kib: 4 * 1024 * 1024,
                mem_total_kib: 16 * 1024 * 1024,
                disk_used_mib: 1024,
                load_milli: agent.report_sequence.saturating_mul(1000),
                cpu_pressure_milli: 10,
                mem_pressure_milli: 0,
                containers: Vec::new(),
            };
            append_frame(&FromAgent::Report(report), &mut self.frame, &mut frames)?;
        }
        self.counts.reports.fetch_add(count, Ordering::Relaxed);
        agent.link.reports.send(frames.freeze()).context("a stream of reports is gone")
    }
}

fn append_frame(message: &FromAgent, scratch: &mut Vec<u8>, out: &mut BytesMut) -> anyhow::Result<()> {
    scratch.clear();
    encode_from_agent(message, scratch)?;
    out.put_u32(u32::try_from(scratch.len())?);
    out.extend_from_slice(scratch);
    Ok(())
}
