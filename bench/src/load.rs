//! Runs several load-generating frameworks in a thread of their own and adds up what they saw.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;

use crate::framework::{Framework, Goal, Seen, Work};

/// The load of a run.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) frameworks: usize,
    /// What each framework does, but its name and number of tasks.
    pub(crate) work: Work,
    /// Tasks of all frameworks.
    pub(crate) tasks: usize,
}

impl Load {
    /// Tasks that end at once.
    pub(crate) fn finishing(tasks: usize, frameworks: usize) -> Self {
        let work = Work {
            name: "bench".to_owned(),
            tasks: 0,
            tasks_per_accept: 200,
            in_flight: 4000,
            connections: 2,
            command: vec!["true".to_owned()],
            cpus: 0.01,
            mem: 1.0,
            goal: Goal::Finished,
            patience: Duration::from_secs(30),
        };
        Self { frameworks, work, tasks }
    }

    fn works(&self) -> Vec<Work> {
        let share = |index: usize| self.tasks / self.frameworks + usize::from(index < self.tasks % self.frameworks);
        let work = |index| Work { name: format!("bench{index}"), tasks: share(index), ..self.work.clone() };
        (0..self.frameworks).map(work).collect()
    }
}

/// Frameworks that reached their goals. Their tasks run on if that was the goal.
pub(crate) struct Loaded {
    pub(crate) seen: Vec<Seen>,
    stop: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<anyhow::Result<()>>,
}

impl Loaded {
    /// Runs the load to its goal; the frameworks are spread over the addresses.
    pub(crate) async fn reach(addresses: &[SocketAddr], load: &Load) -> anyhow::Result<Self> {
        let works = addresses.iter().copied().cycle().zip(load.works()).collect();
        let (done, all_done) = tokio::sync::oneshot::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            runtime.block_on(async {
                match reach_all(works).await {
                    Ok((seen, frameworks)) => {
                        let _ = done.send(Ok(seen));
                        let _ = stopped.await;
                        for framework in frameworks {
                            framework.tear_down().await?;
                        }
                    }
                    Err(error) => {
                        let _ = done.send(Err(error));
                    }
                }
                Ok(())
            })
        };
        let thread = std::thread::Builder::new().name("frameworks".to_owned()).spawn(work)?;
        let seen = all_done.await.context("the frameworks' thread failed")??;
        Ok(Self { seen, stop, thread })
    }

    /// Tears the frameworks down; whatever runs of them ends.
    pub(crate) fn tear_down(self) -> anyhow::Result<()> {
        drop(self.stop);
        self.thread.join().map_err(|_| anyhow::anyhow!("the frameworks' thread failed"))?
    }
}

async fn reach_all(works: Vec<(SocketAddr, Work)>) -> anyhow::Result<(Vec<Seen>, Vec<Framework>)> {
    let mut subscribed = Vec::new();
    for (address, work) in works {
        subscribed.push(Framework::subscribe(address, work).await?);
    }
    let running: Vec<_> = subscribed
        .into_iter()
        .map(|mut framework| {
            tokio::spawn(async move {
                let seen = framework.run().await?;
                anyhow::Ok((seen, framework))
            })
        })
        .collect();
    let (mut seen, mut frameworks) = (Vec::new(), Vec::new());
    for one in running {
        let (saw, framework) = one.await??;
        seen.push(saw);
        frameworks.push(framework);
    }
    Ok((seen, frameworks))
}
