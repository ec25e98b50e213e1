//! A bad network in a process: a UDP relay that loses, delays, doubles and reorders packets, has a narrow pipe, and
//! changes its outer ports as a NAT does that forgot its mappings. The same seed makes the same decisions.

use std::{
    collections::{BTreeMap, BinaryHeap},
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How often a waiting thread looks whether it shall end.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Packets that are under way; more are lost, as in a full router.
const UNDER_WAY_MAX: usize = 65_536;
/// Longest wait for the narrow pipe; a packet that would wait longer is lost.
const PIPE_WAIT_MAX: Duration = Duration::from_millis(200);
/// Largest packet.
const PACKET_BYTES_MAX: usize = 65_536;

/// What the network does to packets, the same each way.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Lost, in thousandths.
    pub loss_milli: u32,
    /// Time under way.
    pub delay: Duration,
    /// Up to so much more, for each packet anew. Packets overtake each other by it.
    pub jitter: Duration,
    /// Delivered twice, in thousandths.
    pub doubled_milli: u32,
    /// Sent at once, before all that are under way, in thousandths.
    pub early_milli: u32,
    /// Bytes a second; `None` for no bound.
    pub bytes_per_second: Option<u32>,
}

impl Weather {
    /// Nothing happens to packets.
    pub const FAIR: Self = Self {
        loss_milli: 0,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        doubled_milli: 0,
        early_milli: 0,
        bytes_per_second: None,
    };
}

/// What was done so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Packets that came in.
    pub taken: AtomicU64,
    /// Lost by chance.
    pub lost: AtomicU64,
    /// Lost because the pipe or the relay was full.
    pub overflowed: AtomicU64,
    /// Delivered twice.
    pub doubled: AtomicU64,
    /// Sent before others.
    pub early: AtomicU64,
}

/// A relay in front of one server. It ends when this value goes away.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    inner: UdpSocket,
    state: Mutex<State>,
    more: Condvar,
    is_over: AtomicBool,
    counts: Counts,
}

#[derive(Debug)]
struct State {
    weather: Weather,
    random: u64,
    /// By client: the socket whose port the server sees.
    outer: BTreeMap<SocketAddr, Arc<UdpSocket>>,
    under_way: BinaryHeap<Packet>,
    number: u64,
    /// When the pipe of each direction (to the server, to a client) is free.
    free_at: [Option<Instant>; 2],
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum To {
    Server { from: SocketAddr },
    Client(SocketAddr),
}

#[derive(Debug, PartialEq, Eq)]
struct Packet {
    due: Instant,
    number: u64,
    to: To,
    bytes: Vec<u8>,
}

impl Ord for Packet {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // The heap's greatest is the earliest.
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Packet {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Relay {
    /// Starts one on a free port of the loopback.
    ///
    /// Errors: when there is no port or no thread.
    pub fn start(server: SocketAddr, weather: Weather, seed: u64) -> anyhow::Result<Self> {
        let inner = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        inner.set_read_timeout(Some(LOOK_INTERVAL))?;
        let address = inner.local_addr()?;
        let state = State {
            weather,
            random: seed,
            outer: BTreeMap::new(),
            under_way: BinaryHeap::new(),
            number: 0,
            free_at: [None, None],
        };
        let (more, is_over, counts) = (Condvar::new(), AtomicBool::new(false), Counts::default());
        let shared = Arc::new(Shared { server, inner, state: Mutex::new(state), more, is_over, counts });
        let (reader, sender) = (Arc::clone(&shared), Arc::clone(&shared));
        thread::Builder::new().name("relay-in".to_owned()).spawn(move || reader.read_clients())?;
        thread::Builder::new().name("relay-out".to_owned()).spawn(move || sender.deliver())?;
        Ok(Self { address, shared })
    }

    /// Where clients send to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Changes the weather for packets to come.
    pub fn set(&self, weather: Weather) {
        self.shared.lock().weather = weather;
    }

    /// Forgets every mapping: from now on the server sees each client at another port, and what it sends to the old one
    /// is lost.
    pub fn rebind(&self) {
        let mut state = self.shared.lock();
        state.outer.clear();
        state.under_way.retain(|packet| !matches!(packet.to, To::Client(_)));
    }

    /// The ports at which the server sees the clients now.
    #[must_use]
    pub fn outer_ports(&self) -> Vec<u16> {
        let sockets: Vec<Arc<UdpSocket>> = self.shared.lock().outer.values().cloned().collect();
        sockets.iter().filter_map(|socket| socket.local_addr().ok()).map(|address| address.port()).collect()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.shared.more.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn read_clients(&self) {
        let mut bytes = vec![0; PACKET_BYTES_MAX];
        while !self.is_over() {
            if let Ok((count, from)) = self.inner.recv_from(&mut bytes) {
                self.take(To::Server { from }, bytes.get(..count).unwrap_or_default());
            }
        }
    }

    /// Reads what the server answers to one client, for as long as the mapping lives.
    fn read_server(&self, client: SocketAddr, outer: &Arc<UdpSocket>) {
        let mut bytes = vec![0; PACKET_BYTES_MAX];
        while !self.is_over() {
            let received = outer.recv(&mut bytes);
            let is_mapped = self.lock().outer.get(&client).is_some_and(|mapped| Arc::ptr_eq(mapped, outer));
            if !is_mapped {
                return;
            }
            match received {
                Ok(count) => self.take(To::Client(client), bytes.get(..count).unwrap_or_default()),
                // The server is away for a while.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => thread::sleep(Duration::from_millis(1)),
                Err(_) => {}
            }
        }
    }

    fn take(&self, to: To, bytes: &[u8]) {
        self.counts.taken.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        let weather = state.weather;
        if state.chance(weather.loss_milli) {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let copies = if state.chance(weather.doubled_milli) {
            self.counts.doubled.fetch_add(1, Ordering::Relaxed);
            2
        } else {
            1
        };
        for _ in 0..copies {
            let now = Instant::now();
            let Some(through_pipe) = state.through_pipe(&to, bytes.len(), now) else {
                self.counts.overflowed.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let due = if state.chance(weather.early_milli) {
                self.counts.early.fetch_add(1, Ordering::Relaxed);
                now
            } else {
                through_pipe + weather.delay + weather.jitter.mul_f64(state.share())
            };
            if state.under_way.len() >= UNDER_WAY_MAX {
                self.counts.overflowed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            state.number += 1;
            let number = state.number;
            state.under_way.push(Packet { due, number, to: to.clone(), bytes: bytes.to_vec() });
        }
        drop(state);
        self.more.notify_one();
    }

    fn deliver(self: Arc<Self>) {
        let mut state = self.lock();
        while !self.is_over() {
            let now = Instant::now();
            let wait = state.under_way.peek().map_or(LOOK_INTERVAL, |next| next.due.saturating_duration_since(now));
            if !wait.is_zero() {
                let wait = wait.min(LOOK_INTERVAL);
                state = self.more.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let Some(packet) = state.under_way.pop() else { continue };
            match packet.to {
                // A packet that the kernel refuses is a lost one.
                To::Client(client) => drop(self.inner.send_to(&packet.bytes, client)),
                To::Server { from } => {
                    if let Some(outer) = self.outer_of(&mut state, from) {
                        drop(outer.send(&packet.bytes));
                    }
                }
            }
        }
    }

    /// The socket that stands for a client, made when there is none.
    fn outer_of(self: &Arc<Self>, state: &mut State, client: SocketAddr) -> Option<Arc<UdpSocket>> {
        if let Some(outer) = state.outer.get(&client) {
            return Some(Arc::clone(outer));
        }
        let outer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        outer.connect(self.server).ok()?;
        outer.set_read_timeout(Some(LOOK_INTERVAL)).ok()?;
        let outer = Arc::new(outer);
        state.outer.insert(client, Arc::clone(&outer));
        let (shared, socket) = (Arc::clone(self), Arc::clone(&outer));
        thread::spawn(move || shared.read_server(client, &socket));
        Some(outer)
    }
}

impl State {
    /// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn chance(&mut self, milli: u32) -> bool {
        self.next() % 1000 < u64::from(milli)
    }

    /// From zero to one.
    fn share(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
    }

    /// When a packet has passed the pipe; `None` when it would wait too long.
    fn through_pipe(&mut self, to: &To, bytes: usize, now: Instant) -> Option<Instant> {
        let Some(rate) = self.weather.bytes_per_second else { return Some(now) };
        let [to_server, to_client] = &mut self.free_at;
        let free_at = if matches!(to, To::Server { .. }) { to_server } else { to_client };
        let begins = free_at.map_or(now, |at| at.max(now));
        if begins.duration_since(now) > PIPE_WAIT_MAX {
            return None;
        }
        let micros = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(1_000_000) / u64::from(rate.max(1));
        let ends = begins + Duration::from_micros(micros);
        *free_at = Some(ends);
        Some(ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(weather: Weather) -> (Relay, UdpSocket, UdpSocket) {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        }
        let relay = Relay::start(server.local_addr().unwrap(), weather, 7).unwrap();
        client.connect(relay.address()).unwrap();
        (relay, server, client)
    }

    #[test]
    fn packets_pass_both_ways_and_a_forgotten_mapping_shows_another_port() {
        let (relay, server, client) = pair(Weather::FAIR);
        let mut bytes = [0; 16];
        client.send(b"one").unwrap();
        let (count, first) = server.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"one");
        server.send_to(b"back", first).unwrap();
        assert_eq!(client.recv(&mut bytes).unwrap(), 4);
        relay.rebind();
        client.send(b"two").unwrap();
        let (_, second) = server.recv_from(&mut bytes).unwrap();
        assert_ne!(first, second);
        server.send_to(b"to nobody", first).unwrap();
        server.send_to(b"here", second).unwrap();
        assert_eq!(client.recv(&mut bytes).unwrap(), 4);
        assert_eq!(relay.outer_ports(), [second.port()]);
    }

    #[test]
    fn the_weather_is_as_announced() {
        let delay = Duration::from_millis(50);
        let weather = Weather { loss_milli: 100, delay, doubled_milli: 100, ..Weather::FAIR };
        let (relay, server, client) = pair(weather);
        let begun = Instant::now();
        for number in 0..1_000_u32 {
            client.send(&number.to_be_bytes()).unwrap();
            if number % 50 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        let mut got = 0;
        server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut bytes = [0; 16];
        while server.recv(&mut bytes).is_ok() {
            if got == 0 {
                assert!(begun.elapsed() >= delay);
            }
            got += 1;
        }
        let counts = relay.counts();
        let [taken, lost, doubled] =
            [&counts.taken, &counts.lost, &counts.doubled].map(|count| count.load(Ordering::Relaxed));
        assert!(taken >= 900, "the kernel dropped {} of them", 1_000 - taken);
        assert!((60..=140).contains(&lost) && (60..=140).contains(&doubled), "{lost} lost, {doubled} doubled");
        assert_eq!(got, taken - lost + doubled);
    }

    #[test]
    fn a_narrow_pipe_takes_its_time_and_drops_what_would_wait_too_long() {
        let (relay, server, client) = pair(Weather { bytes_per_second: Some(100_000), ..Weather::FAIR });
        let begun = Instant::now();
        (0..100).for_each(|_| assert_eq!(client.send(&[0; 1000]).unwrap(), 1000));
        let mut bytes = [0; 1500];
        server.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        let mut got = 0;
        let mut last = begun;
        while server.recv(&mut bytes).is_ok() {
            got += 1;
            last = Instant::now();
        }
        assert!((15..=40).contains(&got), "{got} packets of 10 ms each fit 200 ms");
        assert!(last - begun >= Duration::from_millis(140), "{:?}", last - begun);
        let [taken, overflowed] =
            [&relay.counts().taken, &relay.counts().overflowed].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(overflowed, taken - got, "of the {taken} that the kernel let through");
    }
}
