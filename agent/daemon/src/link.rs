//! The connection to the control plane: tries addresses with growing, jittered pauses, follows referrals, and carries
//! frames between the network and the event loop. Decides nothing about their content.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use muster_agent_wire::limits::FRAME_BYTES_MAX;
use muster_agent_wire::message::{decode_to_agent, encode_from_agent};
use muster_model::Rng;
use muster_model::agent_message::{FromAgent, ToAgent};
use muster_transport::quic::{CloseCode, Connection, Endpoint, Priority, RecvStream, SendStream, Tuning};
use muster_transport::resolve::Resolver;
use muster_transport::tls::ClientTls;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::files::FileServer;
use crate::join::chain_of;
use crate::limits::{DRAIN_TIMEOUT, OUTBOX_MAX, REFERRALS_MAX, WELCOME_TIMEOUT};

/// What the event loop hears.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A connection stands; messages go to this outbox, reports to the other (which takes one at a time).
    Connected { address: String, outbox: mpsc::Sender<FromAgent>, reports: mpsc::Sender<FromAgent> },
    /// A message of the owner.
    Message(ToAgent),
    /// The connection is gone.
    Lost,
}

/// What the event loop orders.
#[derive(Debug)]
pub(crate) enum LinkOrder {
    /// Leave this connection and try this address first.
    Follow { address: String },
    /// Leave this connection and come again after a pause.
    LeaveForNow,
    /// Leave this connection and do not come again.
    LeaveForGood,
    /// The program ends: close and say so.
    Stop,
}

/// What the link needs to know.
pub(crate) struct LinkSettings {
    pub(crate) tls: ClientTls,
    pub(crate) addresses: Vec<String>,
    pub(crate) bind: Option<SocketAddr>,
    pub(crate) keep_alive: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) reconnect: Duration,
    pub(crate) reconnect_max: Duration,
    pub(crate) files: FileServer,
}

/// Why a session ended.
enum SessionEnd {
    Lost(String),
    Ordered(LinkOrder),
    LoopGone,
}

/// Runs until it is stopped or the event loop is gone.
pub(crate) async fn run(
    settings: LinkSettings,
    events: mpsc::Sender<LinkEvent>,
    mut orders: mpsc::Receiver<LinkOrder>,
    mut rng: Rng,
) {
    let mut addresses: VecDeque<String> = settings.addresses.iter().cloned().collect();
    let mut referral: Option<String> = None;
    let (mut pause, mut referral_count, mut last_why) = (settings.reconnect, 0, String::new());
    loop {
        let address = match referral.take() {
            Some(address) => address,
            None => {
                // In turn; the first again after the last.
                let Some(address) = addresses.pop_front() else { return };
                addresses.push_back(address.clone());
                address
            }
        };
        let (ended, was_welcome) = tokio::select! {
            biased;
            ended = attempt(&settings, &address, &events) => match ended {
                Ok(connection) => session(&settings, &address, connection, &events, &mut orders).await,
                Err(why) => (SessionEnd::Lost(why), false),
            },
            // Nothing to leave yet; only what ends the link counts.
            order = last_order(&mut orders) => (SessionEnd::Ordered(order), false),
        };
        if was_welcome {
            (pause, referral_count) = (settings.reconnect, 0);
            last_why.clear();
        }
        match ended {
            SessionEnd::LoopGone | SessionEnd::Ordered(LinkOrder::Stop) => return,
            SessionEnd::Ordered(LinkOrder::Follow { address: next }) => {
                referral_count += 1;
                info!(%address, %next, "following a referral");
                referral = Some(next);
                if referral_count <= REFERRALS_MAX {
                    continue;
                }
            }
            SessionEnd::Ordered(LinkOrder::LeaveForGood) => return until_stopped(&mut orders).await,
            SessionEnd::Ordered(LinkOrder::LeaveForNow) => {}
            SessionEnd::Lost(why) if why == last_why => debug!(%address, error = %why, "still not connected"),
            SessionEnd::Lost(why) => {
                warn!(%address, error = %why, "not connected to the control plane; containers run on");
                last_why = why;
            }
        }
        let wait = jittered(pause, &mut rng);
        pause = (pause * 2).min(settings.reconnect_max);
        tokio::select! {
            () = sleep(wait) => {}
            // The other side may have closed before our own engine had said to leave.
            order = last_order(&mut orders) => match order {
                LinkOrder::LeaveForGood => return until_stopped(&mut orders).await,
                LinkOrder::Stop | LinkOrder::Follow { .. } | LinkOrder::LeaveForNow => return,
            },
        }
    }
}

/// Between half of the pause and all of it.
fn jittered(pause: Duration, rng: &mut Rng) -> Duration {
    let half = u64::try_from(pause.as_millis() / 2).unwrap_or(u64::MAX);
    Duration::from_millis(half.saturating_add(rng.below(half.saturating_add(1))))
}

/// Waits for an order that ends the link: to stop (or the loop's end), or to leave for good. All others are left out.
async fn last_order(orders: &mut mpsc::Receiver<LinkOrder>) -> LinkOrder {
    loop {
        match orders.recv().await {
            None | Some(LinkOrder::Stop) => return LinkOrder::Stop,
            Some(LinkOrder::LeaveForGood) => return LinkOrder::LeaveForGood,
            Some(LinkOrder::Follow { .. } | LinkOrder::LeaveForNow) => {}
        }
    }
}

/// Does nothing until the program ends.
async fn until_stopped(orders: &mut mpsc::Receiver<LinkOrder>) {
    while let LinkOrder::LeaveForGood = last_order(orders).await {}
}

/// One connection, with the socket that carries it.
struct Attached {
    endpoint: Endpoint,
    connection: Connection,
}

async fn attempt(settings: &LinkSettings, address: &str, events: &mpsc::Sender<LinkEvent>) -> Result<Attached, String> {
    if events.is_closed() {
        return Err("the agent ends".to_owned());
    }
    let found = Resolver::system().lookup(address).await.map_err(|error| chain_of(&error))?;
    let mut reasons = Vec::new();
    for socket in found {
        let wildcard = if socket.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let bind = settings.bind.or_else(|| wildcard.parse().ok());
        let tuning = Tuning::agent(settings.keep_alive, settings.idle_timeout);
        let endpoint = Endpoint::client(bind, tuning).map_err(|error| chain_of(&error))?;
        match endpoint.connect(socket, &settings.tls).await {
            Ok(connection) => return Ok(Attached { endpoint, connection }),
            Err(error) => reasons.push(chain_of(&error)),
        }
    }
    Err(reasons.join("; "))
}

/// One connection from its first stream to its end. Says whether the owner welcomed the agent.
async fn session(
    settings: &LinkSettings,
    address: &str,
    attached: Attached,
    events: &mpsc::Sender<LinkEvent>,
    orders: &mut mpsc::Receiver<LinkOrder>,
) -> (SessionEnd, bool) {
    let Attached { endpoint, connection } = attached;
    let control = match connection.open_bi(Priority::Control).await {
        Ok(control) => control,
        Err(error) => return (SessionEnd::Lost(chain_of(&error)), false),
    };
    let (outbox, to_send) = mpsc::channel(OUTBOX_MAX);
    let (reports, to_report) = mpsc::channel(1);
    let connected = LinkEvent::Connected { address: address.to_owned(), outbox, reports };
    if events.send(connected).await.is_err() {
        return (SessionEnd::LoopGone, false);
    }
    let mut was_welcome = false;
    let ended = tokio::select! {
        end = write_messages(control.0, to_send) => end,
        end = read_messages(control.1, events, &mut was_welcome) => end,
        end = write_reports(&connection, to_report) => end,
        end = accept_files(&connection, &settings.files) => end,
        order = orders.recv() => order.map_or(SessionEnd::LoopGone, SessionEnd::Ordered),
        lost = connection.closed() => SessionEnd::Lost(chain_of(&lost)),
    };
    // A close by the other side says why; what a stream saw of it is less.
    let ended = match (ended, connection.close_reason()) {
        (SessionEnd::Lost(_), Some(reason)) => SessionEnd::Lost(chain_of(&reason)),
        (ended, _) => ended,
    };
    let code =
        if matches!(ended, SessionEnd::Ordered(LinkOrder::Stop)) { CloseCode::STOPPING } else { CloseCode::DONE };
    connection.close(code, "the agent leaves");
    endpoint.close(code, "the agent leaves");
    let _given_up = timeout(DRAIN_TIMEOUT, endpoint.drained()).await;
    if events.send(LinkEvent::Lost).await.is_err() {
        return (SessionEnd::LoopGone, was_welcome);
    }
    (ended, was_welcome)
}

async fn write_messages(mut send: SendStream, mut to_send: mpsc::Receiver<FromAgent>) -> SessionEnd {
    while let Some(message) = to_send.recv().await {
        let mut frame = Vec::new();
        if let Err(error) = encode_from_agent(&message, &mut frame) {
            return SessionEnd::Lost(chain_of(&error));
        }
        if let Err(error) = send.write_frame(frame.into(), FRAME_BYTES_MAX).await {
            return SessionEnd::Lost(chain_of(&error));
        }
    }
    SessionEnd::Lost("too many messages wait for the network".to_owned())
}

async fn read_messages(
    mut receive: RecvStream,
    events: &mpsc::Sender<LinkEvent>,
    was_welcome: &mut bool,
) -> SessionEnd {
    let mut first = true;
    loop {
        let read = receive.read_frame(FRAME_BYTES_MAX);
        let frame = if first {
            match timeout(WELCOME_TIMEOUT, read).await {
                Ok(frame) => frame,
                Err(_) => {
                    return SessionEnd::Lost(format!("no answer to Hello within {} s", WELCOME_TIMEOUT.as_secs()));
                }
            }
        } else {
            read.await
        };
        first = false;
        let message = match frame {
            Ok(Some(frame)) => decode_to_agent(&frame),
            Ok(None) => return SessionEnd::Lost("the control plane ended the session".to_owned()),
            Err(error) => return SessionEnd::Lost(chain_of(&error)),
        };
        match message {
            Ok(message) => {
                *was_welcome |= matches!(message, ToAgent::Welcome(_));
                if events.send(LinkEvent::Message(message)).await.is_err() {
                    return SessionEnd::LoopGone;
                }
            }
            Err(error) => return SessionEnd::Lost(chain_of(&error)),
        }
    }
}

/// The latest report wins: while one is being written the loop cannot put a second in.
async fn write_reports(connection: &Connection, mut to_report: mpsc::Receiver<FromAgent>) -> SessionEnd {
    let mut stream: Option<SendStream> = None;
    while let Some(report) = to_report.recv().await {
        let mut frame = Vec::new();
        if encode_from_agent(&report, &mut frame).is_err() {
            continue;
        }
        let mut open = match stream.take() {
            Some(open) => open,
            None => match connection.open_uni(Priority::Reports).await {
                Ok(open) => open,
                Err(error) => return SessionEnd::Lost(chain_of(&error)),
            },
        };
        if let Err(error) = open.write_frame(frame.into(), FRAME_BYTES_MAX).await {
            return SessionEnd::Lost(chain_of(&error));
        }
        stream = Some(open);
    }
    // The loop lets go of a session's outbox when it has ended; the other branches say why.
    std::future::pending().await
}

async fn accept_files(connection: &Connection, files: &FileServer) -> SessionEnd {
    loop {
        match connection.accept_bi().await {
            Ok((send, receive)) => drop(tokio::spawn(files.clone().serve(send, receive))),
            Err(error) => return SessionEnd::Lost(chain_of(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_spread_between_half_and_all() {
        let mut rng = Rng::new(1);
        for _ in 0..1000 {
            let wait = jittered(Duration::from_millis(1000), &mut rng);
            assert!((500..=1000).contains(&wait.as_millis()), "{wait:?}");
        }
    }
}
