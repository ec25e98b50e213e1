//! The loop around the engines of the fleet: joins agents, turns events into inputs, and does what the engines ask.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering, mpsc::SyncSender},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use bytes::BytesMut;
use muster_agent_engine::io::{ConnectionId, Input};
use muster_model::{Rng, Timestamp, Uuid, WallTime, agent_message::ToAgent, time::Now};
use muster_transport::quic::{Endpoint, Tuning};
use tokio::sync::mpsc;

use super::{
    Command, Counts, Settings,
    agent::{Done, SimulatedAgent},
    join::{Joined, join},
    journal::{self, Batch},
    link::{Sockets, dial},
};

/// Events that wait for the loop; at the bound connections stop reading.
const EVENTS_MAX: usize = 65_536;
/// Events of one turn.
const TURN_MAX: usize = 1024;
/// Agents that share one UDP socket.
const AGENTS_PER_SOCKET: usize = 256;
/// Agents that join at the same time; the cluster's record changes with each, so more only wait for each other.
const JOINING_MAX: usize = 4;
/// How often deadlines of agents without a session are looked at, and a part of all others.
const TICK: Duration = Duration::from_millis(50);
/// In so many ticks each agent's turn comes.
const TICKS_OF_A_ROUND: usize = 10;
/// An agent's signs of life and when it gives a silent node up, as the agent's program has them by default.
const KEEP_ALIVE: Duration = Duration::from_secs(12);
/// See `KEEP_ALIVE`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(25);

/// What happens to the fleet.
pub(super) enum FleetEvent {
    Joined(Box<Newcomer>),
    Connected { index: usize, connection: ConnectionId },
    Message { index: usize, connection: ConnectionId, message: ToAgent },
    Lost { index: usize, connection: ConnectionId, why: String },
    Journalled { done: Vec<(usize, Vec<u64>)>, position: u64 },
}

/// An agent that joined, or could not.
pub(super) struct Newcomer {
    index: usize,
    joined: anyhow::Result<Joined>,
    sockets: Sockets,
}

/// Joins, connects and runs until the fleet is dropped.
pub(super) async fn run(
    settings: Settings,
    counts: &Arc<Counts>,
    mut commands: mpsc::UnboundedReceiver<Command>,
) -> anyhow::Result<()> {
    let (events, mut queue) = mpsc::channel(EVENTS_MAX);
    let mut fleet = FleetLoop {
        agents: (0..settings.agents).map(|_| None).collect(),
        clock: Instant::now(),
        touched: Vec::new(),
        restless: BTreeSet::new(),
        sweep: 0,
        counts: Arc::clone(counts),
        journal: journal::start(&settings.dir, counts, events.clone())?,
        is_journalling: false,
        frame: Vec::new(),
        rng: Rng::new(u64::from(std::process::id()) ^ wall_micros() ^ (u64::try_from(settings.first)? << 32)),
        joining: 0,
        started: 0,
        sockets: None,
        settings: Arc::new(settings),
        events,
    };
    let mut batch = Vec::with_capacity(TURN_MAX);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !counts.is_stopping() {
        fleet.join_more()?;
        tokio::select! {
            _ = queue.recv_many(&mut batch, TURN_MAX) => {
                for event in batch.drain(..) {
                    fleet.take(event)?;
                }
            }
            Some(command) = commands.recv() => match command {
                Command::Report(credit) => {
                    for (index, count) in credit {
                        fleet.report(index, count)?;
                    }
                }
                Command::Reconnect => fleet.reconnect()?,
            },
            _ = tick.tick() => fleet.tick()?,
        }
        fleet.end_turn()?;
    }
    Ok(())
}

/// One socket carries many connections, so its buffers are larger than an agent's.
fn open(keep_alive: Duration, idle_timeout: Duration) -> anyhow::Result<Endpoint> {
    let mut tuning = Tuning::agent(keep_alive, idle_timeout);
    tuning.socket_receive_bytes = 8 * 1024 * 1024;
    tuning.socket_send_bytes = 4 * 1024 * 1024;
    Ok(Endpoint::client("127.0.0.1:0".parse().ok(), tuning)?)
}

fn wall_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

struct FleetLoop {
    settings: Arc<Settings>,
    /// By the number in their host names; absent until they joined.
    agents: Vec<Option<SimulatedAgent>>,
    clock: Instant,
    /// Agents with something to send or to journal.
    touched: Vec<usize>,
    /// Agents without a session, whose next attempt is a matter of milliseconds.
    restless: BTreeSet<usize>,
    /// Where the next part of a round begins.
    sweep: usize,
    counts: Arc<Counts>,
    journal: SyncSender<Batch>,
    is_journalling: bool,
    frame: Vec<u8>,
    rng: Rng,
    events: mpsc::Sender<FleetEvent>,
    joining: usize,
    started: usize,
    sockets: Option<Sockets>,
}

impl FleetLoop {
    fn now(&self) -> Now {
        let mono = Timestamp(u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX));
        Now { mono, wall: WallTime(wall_micros()) }
    }

    /// Starts joins until as many are under way as may be.
    fn join_more(&mut self) -> anyhow::Result<()> {
        while self.started < self.agents.len() && self.joining < JOINING_MAX {
            let index = self.started;
            let sockets = match self.sockets.take().filter(|_| !index.is_multiple_of(AGENTS_PER_SOCKET)) {
                Some(sockets) => sockets,
                // As the agent's program: a standby's connection is kept alive, and given up, after 5/3 of the time.
                None => Sockets {
                    session: open(KEEP_ALIVE, IDLE_TIMEOUT)?,
                    standby: open(KEEP_ALIVE * 5 / 3, IDLE_TIMEOUT * 5 / 3)?,
                },
            };
            self.sockets = Some(sockets.clone());
            let (settings, events, nonce) =
                (Arc::clone(&self.settings), self.events.clone(), Uuid::from_random(self.rng.bytes16()));
            tokio::spawn(async move {
                let joined = join(&settings, index, &sockets.session, nonce).await;
                let _ = events.send(FleetEvent::Joined(Box::new(Newcomer { index, joined, sockets }))).await;
            });
            self.started += 1;
            self.joining += 1;
        }
        Ok(())
    }

    fn take(&mut self, event: FleetEvent) -> anyhow::Result<()> {
        match event {
            FleetEvent::Joined(newcomer) => {
                let Newcomer { index, joined, sockets } = *newcomer;
                self.joining -= 1;
                self.counts.joined.fetch_add(1, Ordering::Relaxed);
                let joined = joined.with_context(|| format!("agent {index} cannot join"))?;
                let agent = SimulatedAgent::new(&self.settings, index, joined, sockets, &mut self.rng)?;
                let place = self.agents.get_mut(index).context("an agent too many")?;
                *place = Some(agent);
                self.restless.insert(index);
                let recovered = Input::Recovered {
                    entries: Vec::new(),
                    journal_position: 0,
                    journal_doubt: None,
                    containers: Vec::new(),
                };
                self.feed(index, recovered)
            }
            FleetEvent::Connected { index, connection } => {
                self.counts.handshakes.fetch_add(1, Ordering::Relaxed);
                match self.agents.get(index) {
                    Some(Some(agent)) if agent.has(connection) => self.feed(index, Input::Connected { connection }),
                    Some(_) | None => Ok(()),
                }
            }
            FleetEvent::Message { index, connection, message } => {
                // What a connection that was closed from here still said is void.
                match self.agents.get(index) {
                    Some(Some(agent)) if agent.has(connection) => {
                        self.feed(index, Input::FromNode { connection, message })
                    }
                    Some(_) | None => Ok(()),
                }
            }
            FleetEvent::Lost { index, connection, why } => {
                let Some(Some(agent)) = self.agents.get_mut(index) else { return Ok(()) };
                if !agent.has(connection) {
                    return Ok(());
                }
                self.counts.note("a connection was lost", &why);
                agent.drop_link(connection, &self.counts);
                self.feed(index, Input::Disconnected { connection })
            }
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

    /// Gives an engine an input and does what it asks for.
    fn feed(&mut self, index: usize, input: Input) -> anyhow::Result<()> {
        let now = self.now();
        let agent = self.agents.get_mut(index).and_then(Option::as_mut).context("an event for an agent not there")?;
        if !agent.is_touched {
            agent.is_touched = true;
            self.touched.push(index);
        }
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            agent.engine.handle(input, now);
            while let Some(output) = agent.engine.poll_output() {
                match agent.perform(output, &self.settings, &mut self.frame, &self.counts)? {
                    Done::All => {}
                    Done::Inputs(more) => inputs.extend(more),
                    Done::Dial { connection, address, purpose } => {
                        let link =
                            dial(index, connection, &address, purpose, &agent.sockets, &agent.tls, &self.events)?;
                        agent.links.push(link);
                    }
                }
            }
        }
        if agent.is_active() {
            self.restless.remove(&index);
        } else {
            self.restless.insert(index);
        }
        Ok(())
    }

    /// Sends what the turn made, and hands what is to be journalled to the journal when that is free.
    fn end_turn(&mut self) -> anyhow::Result<()> {
        let mut waiting = Vec::new();
        let mut batch = Batch::new();
        for index in std::mem::take(&mut self.touched) {
            let Some(Some(agent)) = self.agents.get_mut(index) else { continue };
            for link in agent.links.iter_mut().filter(|link| !link.out.is_empty()) {
                match link.control.try_send(link.out.split().freeze()) {
                    // Its end is under way.
                    Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                    Err(full) => return Err(full).with_context(|| format!("agent {}: outbox", agent.id)),
                }
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

    /// Deadlines of engines and the reports that are due, of a part of the agents and of all that have no session.
    fn tick(&mut self) -> anyhow::Result<()> {
        let part = self.agents.len().div_ceil(TICKS_OF_A_ROUND);
        let end = (self.sweep + part).min(self.agents.len());
        let due: Vec<usize> = (self.sweep..end).chain(self.restless.iter().copied()).collect();
        self.sweep = if end >= self.agents.len() { 0 } else { end };
        let now = self.now();
        for index in due {
            let Some(Some(agent)) = self.agents.get_mut(index) else { continue };
            let is_due = agent.engine.deadline().is_some_and(|(at, _)| at <= now.mono);
            let wants_report = agent.wants_report();
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

    /// Writes so many reports of an agent.
    fn report(&mut self, index: usize, count: u64) -> anyhow::Result<()> {
        let Some(Some(agent)) = self.agents.get_mut(index) else { return Ok(()) };
        let mut frames = BytesMut::new();
        if agent.report(count, &mut self.frame, &mut frames)? {
            self.counts.reports.fetch_add(count, Ordering::Relaxed);
        }
        Ok(())
    }

    /// All connections are gone at once, as far as the engines know.
    fn reconnect(&mut self) -> anyhow::Result<()> {
        for index in 0..self.agents.len() {
            let Some(Some(agent)) = self.agents.get_mut(index) else { continue };
            let connections: Vec<ConnectionId> = agent.links.iter().map(|link| link.id).collect();
            for connection in connections {
                let Some(Some(agent)) = self.agents.get_mut(index) else { continue };
                agent.drop_link(connection, &self.counts);
                self.feed(index, Input::Disconnected { connection })?;
            }
        }
        Ok(())
    }
}
