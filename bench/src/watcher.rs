//! A framework that only looks: it holds every offer it gets and remembers when which agent was offered.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use muster_http_api::{
    mesos_v1::content::Encoding,
    proto::{
        FrameworkInfo,
        framework_info::{self, capability},
        scheduler::{Call, Event, call},
    },
    recordio::Decoder,
};

use crate::http::{Post, Stream};

const EVENT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What it saw so far.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    /// Open offers: agents by the offers' ids.
    open: BTreeMap<String, String>,
    /// When each agent was offered last.
    offered: BTreeMap<String, Instant>,
    /// Offers taken back so far.
    rescinded: u64,
    failure: Option<String>,
}

impl Sight {
    /// Agents in open offers.
    fn agents(&self) -> BTreeSet<&str> {
        self.open.values().map(String::as_str).collect()
    }

    /// When the first and the last of these agents was offered after `since`; none before all of them were.
    fn offered_since(&self, agents: &BTreeSet<String>, since: Instant) -> Option<(Instant, Instant)> {
        let mut times = Vec::with_capacity(agents.len());
        for agent in agents {
            times.push(*self.offered.get(agent).filter(|at| **at > since)?);
        }
        Some((times.iter().copied().min()?, times.iter().copied().max()?))
    }
}

/// A framework that is subscribed and looks.
pub(crate) struct Watcher {
    sight: Arc<Mutex<Sight>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watcher {
    /// Subscribes at this node, with a stream that stays open.
    pub(crate) async fn subscribe(address: SocketAddr) -> anyhow::Result<Self> {
        let capability = |kind: capability::Type| framework_info::Capability { r#type: Some(kind.into()) };
        let framework_info = FrameworkInfo {
            user: "root".to_owned(),
            name: "watcher".to_owned(),
            roles: vec!["watcher".to_owned()],
            capabilities: vec![capability(capability::Type::MultiRole), capability(capability::Type::PartitionAware)],
            ..FrameworkInfo::default()
        };
        let subscribe = call::Subscribe { framework_info, ..call::Subscribe::default() };
        let call = Call {
            r#type: Some(call::Type::Subscribe.into()),
            subscribe: Some(Box::new(subscribe)),
            ..Call::default()
        };
        let request = Post::to("/api/v1/scheduler", address, "").request(&Encoding::Protobuf.encode(&call));
        let (_, stream) = Stream::open(address, request).await?;
        let sight = Arc::new(Mutex::new(Sight::default()));
        let own = Arc::clone(&sight);
        let task = tokio::spawn(async move {
            let why = match look(stream, &own).await {
                Ok(()) => "the control plane ended the watcher's event stream".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            lock(&own).failure = Some(why);
        });
        Ok(Self { sight, task })
    }

    /// Offers taken back so far.
    pub(crate) fn rescinded(&self) -> u64 {
        lock(&self.sight).rescinded
    }

    /// Waits until it holds offers of so many agents.
    pub(crate) async fn wait_offered(&self, count: usize, patience: Duration) -> anyhow::Result<()> {
        let ready = |sight: &Sight| (sight.agents().len() >= count).then_some(());
        let held = |sight: &Sight| format!("offers of {} of {count} agents are open", sight.agents().len());
        self.wait(ready, held, patience).await
    }

    /// Waits until each of these agents was offered after `since`; returns when the first and the last of them was.
    pub(crate) async fn wait_offered_again(
        &self,
        agents: &BTreeSet<String>,
        since: Instant,
        patience: Duration,
    ) -> anyhow::Result<(Instant, Instant)> {
        let late = |sight: &Sight| {
            let missing = agents.iter().filter(|agent| sight.offered.get(*agent).is_none_or(|at| *at <= since));
            format!("{} of {} agents of the lost node are not offered again", missing.count(), agents.len())
        };
        self.wait(|sight| sight.offered_since(agents, since), late, patience).await
    }

    async fn wait<T>(
        &self,
        ready: impl Fn(&Sight) -> Option<T>,
        state: impl Fn(&Sight) -> String,
        patience: Duration,
    ) -> anyhow::Result<T> {
        let end = Instant::now() + patience;
        loop {
            {
                let sight = lock(&self.sight);
                if let Some(why) = &sight.failure {
                    bail!("the watcher: {why}");
                }
                if let Some(found) = ready(&sight) {
                    return Ok(found);
                }
                if Instant::now() > end {
                    bail!("{} after {} s", state(&sight), patience.as_secs());
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(sight: &Mutex<Sight>) -> MutexGuard<'_, Sight> {
    sight.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn look(mut stream: Stream, sight: &Mutex<Sight>) -> anyhow::Result<()> {
    let mut decoder = Decoder::new(EVENT_BYTES_MAX);
    while let Some(bytes) = stream.next().await? {
        let at = Instant::now();
        decoder.push(&bytes);
        while let Some(record) = decoder.next_record()? {
            let event: Event = Encoding::Protobuf.decode(&record).context("an event for the watcher")?;
            let mut sight = lock(sight);
            for offer in event.offers.into_iter().flat_map(|offers| offers.offers) {
                sight.offered.insert(offer.agent_id.value.clone(), at);
                sight.open.insert(offer.id.value, offer.agent_id.value);
            }
            if let Some(rescind) = event.rescind {
                sight.rescinded += 1;
                sight.open.remove(&rescind.offer_id.value);
            }
            if let Some(error) = event.error {
                bail!("the control plane says ERROR: {}", error.message);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_offers_after_the_loss_count_and_all_agents_must_have_one() {
        let loss = Instant::now();
        let at = |millis: u64| loss + Duration::from_millis(millis);
        let mut sight = Sight::default();
        let agents: BTreeSet<String> = ["a", "b"].map(str::to_owned).into();
        sight.offered = BTreeMap::from([("a".to_owned(), at(700)), ("b".to_owned(), loss)]);
        assert_eq!(sight.offered_since(&agents, loss), None, "b was offered before only");
        sight.offered.insert("b".to_owned(), at(900));
        assert_eq!(sight.offered_since(&agents, loss), Some((at(700), at(900))));
        assert_eq!(sight.offered_since(&BTreeSet::new(), loss), None);
    }
}
