//! One simulated agent: a real engine, its connections, and pretended containers.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use bytes::{BufMut as _, BytesMut};
use muster_agent_engine::{
    AgentEngine,
    io::{AgentConfig, ConnectionId, ContainerEnd, Input, Output, Purpose},
};
use muster_agent_wire::message::encode_from_agent;
use muster_model::{
    AgentId, Duration as ModelDuration, Milli, Rng, Uuid,
    agent::AgentInfo,
    agent_message::{FromAgent, Report},
    fence::Fence,
    record::IdentityRecord,
    resource::Resources,
    status::Exit,
};
use muster_transport::tls::ClientTls;

use super::{
    Containers, Counts, Settings,
    join::Joined,
    journal::Write,
    link::{Link, Sockets},
};

/// What ends a pretended container that was to run on.
const SIGTERM: u8 = 15;

/// One agent of the fleet.
pub(super) struct SimulatedAgent {
    pub(super) id: AgentId,
    pub(super) engine: AgentEngine,
    pub(super) tls: ClientTls,
    pub(super) sockets: Sockets,
    /// The session's and the standby's, and for a moment others that are being made.
    pub(super) links: Vec<Link>,
    pub(super) write: Write,
    pub(super) is_touched: bool,
    /// The connection on which it showed its picture.
    active_on: Option<ConnectionId>,
    reporting: Option<(ConnectionId, Duration)>,
    reported_at: Instant,
    report_sequence: u64,
}

/// What is left to do of an output.
pub(super) enum Done {
    All,
    /// Feed these.
    Inputs(Vec<Input>),
    /// Connect.
    Dial {
        connection: ConnectionId,
        address: Arc<str>,
        purpose: Purpose,
    },
}

impl SimulatedAgent {
    /// A new agent before its recovery, with the program's own times.
    pub(super) fn new(
        settings: &Settings,
        index: usize,
        joined: Joined,
        sockets: Sockets,
        rng: &mut Rng,
    ) -> anyhow::Result<Self> {
        let Joined { agent_id, tls, info } = joined;
        let identity = IdentityRecord {
            agent_id: agent_id.clone(),
            highest_fence: Fence::default(),
            ratchet_token: None,
            addresses: Vec::new(),
        };
        let mut entries: Vec<Arc<str>> = settings.entries.iter().map(|address| address.to_string().into()).collect();
        let first = index.checked_rem(entries.len()).context("a fleet needs a node's address")?;
        entries.rotate_left(first);
        let config = AgentConfig {
            identity,
            entries,
            info,
            boot_id: Uuid::from_random(rng.bytes16()),
            incarnation: 1,
            kill_grace: ModelDuration::from_secs(3),
            update_retry: ModelDuration::from_secs(10),
            update_retry_max: ModelDuration::from_secs(600),
            reconnect: ModelDuration::from_millis(100),
            reconnect_max: ModelDuration::from_secs(15),
        };
        Ok(Self {
            id: agent_id,
            engine: AgentEngine::new(config, Rng::new(rng.next_u64())),
            tls,
            sockets,
            links: Vec::new(),
            write: Write::default(),
            is_touched: false,
            active_on: None,
            reporting: None,
            reported_at: Instant::now(),
            report_sequence: 0,
        })
    }

    /// Whether it showed its picture in the session that it has.
    pub(super) const fn is_active(&self) -> bool {
        self.active_on.is_some()
    }

    /// Whether a connection is one of its own still.
    pub(super) fn has(&self, connection: ConnectionId) -> bool {
        self.links.iter().any(|link| link.id == connection)
    }

    pub(super) fn wants_report(&self) -> bool {
        self.reporting.is_some_and(|(_, every)| self.reported_at.elapsed() >= every)
    }

    fn link(&mut self, connection: ConnectionId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.id == connection)
    }

    /// Closes a connection, or forgets one that is gone.
    pub(super) fn drop_link(&mut self, connection: ConnectionId, counts: &Counts) {
        if self.link(connection).is_some_and(|link| link.stands_by) {
            counts.standbys.fetch_sub(1, Ordering::Relaxed);
        }
        self.links.retain(|link| link.id != connection);
        if self.active_on.take_if(|on| *on == connection).is_some() {
            counts.active.fetch_sub(1, Ordering::Relaxed);
        }
        self.reporting.take_if(|(on, _)| *on == connection);
    }

    /// Does what the engine asks for.
    pub(super) fn perform(
        &mut self,
        output: Output,
        settings: &Settings,
        frame: &mut Vec<u8>,
        counts: &Counts,
    ) -> anyhow::Result<Done> {
        match output {
            Output::Persist { seq, entries } => {
                self.write.entries.extend(entries);
                self.write.seqs.push(seq);
            }
            Output::PersistIdentity { seq, identity } => {
                self.write.identity = Some(identity);
                self.write.seqs.push(seq);
            }
            Output::Dial { connection, address, purpose } => return Ok(Done::Dial { connection, address, purpose }),
            Output::Close { connection } => self.drop_link(connection, counts),
            Output::Send { connection, message } => self.send(connection, &message, frame, counts)?,
            Output::Start { container_id, .. } => {
                counts.launches.fetch_add(1, Ordering::Relaxed);
                let started = Input::ContainerStarted { container_id: container_id.clone(), supervisor_pid: 1 };
                let ended = Input::ContainerEnded { container_id, end: end(Exit::Code(0)) };
                return Ok(Done::Inputs(match settings.containers {
                    Containers::EndAtOnce => vec![started, ended],
                    Containers::RunOn => vec![started],
                }));
            }
            Output::Signal { container_id, .. } if settings.containers == Containers::RunOn => {
                return Ok(Done::Inputs(vec![Input::ContainerEnded { container_id, end: end(Exit::Signal(SIGTERM)) }]));
            }
            Output::ReportEvery { connection, interval } => {
                self.reporting = Some((connection, Duration::from_nanos(interval.0)));
            }
            Output::Refused { why, may_retry: true } => counts.note("a node refused an agent for now", &why),
            Output::Refused { why, .. } => bail!("agent {} was refused: {why}", self.id),
            Output::Note { what, detail } => counts.note(what, &detail),
            // Its container has ended; there is nothing to signal and nothing left.
            Output::Signal { .. } | Output::CleanUp { .. } => {}
        }
        Ok(Done::All)
    }

    fn send(
        &mut self,
        connection: ConnectionId,
        message: &FromAgent,
        frame: &mut Vec<u8>,
        counts: &Counts,
    ) -> anyhow::Result<()> {
        let Some(link) = self.links.iter_mut().find(|link| link.id == connection) else { return Ok(()) };
        append_frame(message, frame, &mut link.out)?;
        match message {
            FromAgent::StandBy { .. } if !link.stands_by => {
                link.stands_by = true;
                counts.standbys.fetch_add(1, Ordering::Relaxed);
            }
            // The standby becomes the session.
            FromAgent::Hello(_) if link.stands_by => {
                link.stands_by = false;
                counts.standbys.fetch_sub(1, Ordering::Relaxed);
            }
            FromAgent::Picture(_) => {
                counts.pictures.fetch_add(1, Ordering::Relaxed);
                if self.active_on.replace(connection).is_none() {
                    counts.active.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes so many reports, if it has a session. Their sequence also stands as the load average, which the API shows.
    pub(super) fn report(&mut self, count: u64, frame: &mut Vec<u8>, frames: &mut BytesMut) -> anyhow::Result<bool> {
        let Some((connection, _)) = self.reporting else { return Ok(false) };
        self.reported_at = Instant::now();
        for _ in 0..count {
            self.report_sequence += 1;
            let report = Report {
                sequence: self.report_sequence,
                cpu_busy_ms: self.report_sequence.saturating_mul(100),
                mem_used_kib: 4 * 1024 * 1024,
                mem_total_kib: 16 * 1024 * 1024,
                disk_used_mib: 1024,
                load_milli: self.report_sequence.saturating_mul(1000),
                cpu_pressure_milli: 10,
                mem_pressure_milli: 0,
                containers: Vec::new(),
            };
            append_frame(&FromAgent::Report(report), frame, frames)?;
        }
        let Some(link) = self.link(connection) else { return Ok(false) };
        // A connection whose task has ended is told as lost soon.
        Ok(link.reports.send(frames.split().freeze()).is_ok())
    }
}

/// What an agent says of itself.
pub(super) fn info(settings: &Settings, index: usize) -> AgentInfo {
    AgentInfo {
        hostname: Arc::from(format!("simulated-{}", settings.first + index)),
        ip: Arc::from("127.0.0.1"),
        port: 5051,
        total: Resources::basic(Milli::whole(settings.cpus), Milli::whole(settings.mem), Milli::ZERO),
        attributes: Vec::new(),
        version: Arc::from(env!("CARGO_PKG_VERSION")),
        missing_isolation: Vec::new(),
    }
}

fn end(exit: Exit) -> ContainerEnd {
    ContainerEnd { exit: Some(exit), out_of_memory: None, output_bytes: Some((0, 0)) }
}

fn append_frame(message: &FromAgent, scratch: &mut Vec<u8>, out: &mut BytesMut) -> anyhow::Result<()> {
    scratch.clear();
    encode_from_agent(message, scratch)?;
    out.put_u32(u32::try_from(scratch.len())?);
    out.extend_from_slice(scratch);
    Ok(())
}
