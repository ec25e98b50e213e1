//! `muster run`: a framework of one task. Its output and its end become those of this program.
//!
//! Invariants: the task's stdout goes to stdout, and nothing else does; all of it is read before this program ends.

mod calls;
mod ending;
mod session;
mod size;

use std::{fs, pin::pin, time::Duration};

use muster_http_api::{
    muster_v1,
    proto::{Offer, TaskState, TaskStatus, scheduler::Event},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

pub(crate) use self::ending::OWN_ERROR;
use self::session::{Session, SessionError};
use crate::{
    api::{Api, ApiError},
    arguments::Run,
    away::{self, Opening},
    endpoints,
    interrupt::Interrupts,
    output::{self, End, Source},
    say,
};

/// After so long, and again, the user is told why there is no offer that fits.
const WAITING_NOTE: Duration = Duration::from_secs(5);
/// How often the control plane is asked about a task that it does not know (any more, or yet).
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How long a lost task's output is waited for: what its agent has sent is here by then.
const LOST_OUTPUT_PATIENCE: Duration = Duration::from_secs(1);
/// How long the facts about the task's process may take to arrive after its last update.
const FACTS_PATIENCE: Duration = Duration::from_secs(10);

/// Why a run has no status of its task's own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("cannot run the command")]
    Session(#[from] SessionError),
    #[error("cannot run the command")]
    Api(#[from] ApiError),
    #[error("{0}; with --wait the run waits for such an agent")]
    TooLarge(String),
    #[error("the system gives no random numbers for a task id: {0}")]
    Random(getrandom::Error),
}

/// Runs the command and returns the status to exit with.
pub(crate) async fn run(api: &Api, options: &Run) -> Result<u8, RunError> {
    let mut interrupts = Interrupts::new();
    let user = options.user.clone().unwrap_or_else(current_user);
    let agents = match endpoints::agents(api).await {
        Ok(list) => list.agents,
        // While a node is away not all agents are known: nothing can be said of the largest, and an offer may still come.
        Err(ApiError::Refused { status, .. }) if status.is_server_error() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    if let Some(why) = size::refusal(options, &agents) {
        if !options.wait {
            return Err(RunError::TooLarge(why));
        }
        say(&format!("{why}; waiting for one that is"));
    }
    let session = Session::open(api, calls::framework(options, &user)).await?;
    say(&format!("framework {} at {}", session.framework_id, api.url()));
    let task_id = format!("run-{}", random_text()?);
    let mut run =
        Running { api, options, session, task_id, task: None, state: None, message: None, unknown_since: None };
    let ended = run.live(&mut interrupts).await;
    if let Err(RunError::Session(error @ SessionError::Unreachable { .. })) = &ended {
        say(&crate::chain(error));
        say(ending::FRAMEWORK_ENDS);
        return Ok(ending::LOST);
    }
    // The framework has nothing more to do, whatever became of it; if this is not heard, its time runs out.
    let _ = run.session.send(calls::teardown()).await;
    ended
}

struct Running<'a> {
    api: &'a Api,
    options: &'a Run,
    session: Session<'a>,
    task_id: String,
    /// The offer that was accepted for it, and where its output is read.
    task: Option<(Offer, Source)>,
    state: Option<TaskState>,
    /// What its last status says beside the state.
    message: Option<String>,
    unknown_since: Option<Instant>,
}

enum Woken {
    Event(Result<Option<Box<Event>>, SessionError>),
    Interrupted,
    Time,
}

impl Running<'_> {
    /// Lives through the run and returns the exit status.
    async fn live(&mut self, interrupts: &mut Interrupts) -> Result<u8, RunError> {
        let Some(source) = self.wait_for_offer(interrupts).await? else {
            return Ok(ending::INTERRUPTED);
        };
        let (end, ends) = watch::channel(End::Open);
        let api = self.api;
        // What the task writes is carried on from here to the very end, beside everything else.
        let mut printing = pin!(print(api, source, ends));
        let mut is_printed = false;
        let last = {
            // Pinned, not made anew: dropping it in the middle of a call would lose an acknowledgement.
            let mut waiting = pin!(self.wait_for_end(interrupts));
            loop {
                tokio::select! {
                    last = &mut waiting => break last?,
                    () = &mut printing, if !is_printed => is_printed = true,
                }
            }
        };
        let Some(last) = last else {
            return Ok(ending::INTERRUPTED);
        };
        let facts = tokio::select! {
            facts = self.facts(last) => facts,
            () = interrupts.next() => None,
        };
        let known = facts.as_ref().map_or(End::Ended { stdout: None, stderr: None }, End::of);
        end.send_replace(if is_lost(last) { End::Now } else { known });
        if !is_printed {
            tokio::select! {
                () = &mut printing => {}
                () = sleep(LOST_OUTPUT_PATIENCE), if is_lost(last) => self.say_what_is_missing().await,
                () = interrupts.next() => say("interrupted: the output is not complete"),
            }
        }
        let status = ending::status(last, facts.as_ref());
        say(&ending::summary(last, status, self.message.as_deref()));
        if last == TaskState::TaskUnreachable {
            say(ending::FRAMEWORK_ENDS);
        }
        Ok(status)
    }

    /// Takes the first offer that fits and launches the task. `None`: interrupted.
    async fn wait_for_offer(&mut self, interrupts: &mut Interrupts) -> Result<Option<Source>, RunError> {
        let mut note_at = Instant::now() + WAITING_NOTE;
        loop {
            match self.wake(interrupts, Some(note_at)).await {
                Woken::Interrupted => return Ok(None),
                Woken::Time => {
                    self.say_why_waiting().await;
                    note_at = Instant::now() + WAITING_NOTE * 4;
                }
                Woken::Event(Ok(None)) => {
                    if !self.reopen(interrupts).await? {
                        return Ok(None);
                    }
                }
                Woken::Event(Err(error)) => return Err(error.into()),
                Woken::Event(Ok(Some(event))) => {
                    let offers = event.offers.map(|offers| offers.offers).unwrap_or_default();
                    if let Some(source) = self.take(offers).await? {
                        return Ok(Some(source));
                    }
                }
            }
        }
    }

    async fn take(&mut self, mut offers: Vec<Offer>) -> Result<Option<Source>, RunError> {
        if offers.is_empty() {
            return Ok(None);
        }
        let Some(index) = offers.iter().position(|offer| calls::is_enough(offer, self.options)) else {
            self.session.send(calls::decline(&offers, false)).await?;
            return Ok(None);
        };
        let offer = offers.swap_remove(index);
        if !offers.is_empty() {
            self.session.send(calls::decline(&offers, true)).await?;
        }
        let amounts: Vec<String> =
            ["cpus", "mem", "disk"].map(|name| format!("{name} {}", calls::amount(&offer, name))).into_iter().collect();
        say(&format!(
            "offer {} of agent {} ({}): {}",
            offer.id.value,
            offer.agent_id.value,
            offer.hostname,
            amounts.join(", ")
        ));
        self.session.send(calls::launch(&offer, calls::task(self.options, &self.task_id, &offer))).await?;
        self.session.suppress().await;
        say(&format!("task {} launched", self.task_id));
        let source = Source {
            agent_id: offer.agent_id.value.clone(),
            framework_id: self.session.framework_id.clone(),
            task_id: self.task_id.clone(),
        };
        self.task = Some((offer, source.clone()));
        Ok(Some(source))
    }

    /// Follows the task until a state that ends the run. `None`: interrupted twice.
    async fn wait_for_end(&mut self, interrupts: &mut Interrupts) -> Result<Option<TaskState>, RunError> {
        let mut is_killed = false;
        loop {
            let ask_at = self.unknown_since.map(|_| Instant::now() + ASK_AGAIN);
            match self.wake(interrupts, ask_at).await {
                Woken::Interrupted if is_killed => return Ok(None),
                Woken::Interrupted => {
                    is_killed = true;
                    self.kill().await;
                }
                Woken::Time => self.ask().await,
                Woken::Event(Ok(None)) => {
                    if !self.reopen(interrupts).await? {
                        return Ok(None);
                    }
                    self.ask().await;
                }
                Woken::Event(Err(error)) => return Err(error.into()),
                Woken::Event(Ok(Some(event))) => {
                    if let Some(offers) = event.offers {
                        // Made before the server heard that none are wanted. If this is not heard, they are rescinded.
                        let _ = self.session.send(calls::decline(&offers.offers, true)).await;
                    }
                    if let Some(update) = event.update
                        && let Some(state) = self.on_status(&update.status).await
                    {
                        return Ok(Some(state));
                    }
                }
            }
        }
    }

    /// Connects again; `false` when interrupted meanwhile.
    async fn reopen(&mut self, interrupts: &mut Interrupts) -> Result<bool, RunError> {
        // A stream also ends because the framework does: that is no fault of the connection.
        match self.session.reopen_once().await {
            Ok(()) => return Ok(true),
            Err(error) if !error.may_pass() => return Err(error.into()),
            Err(_) => {}
        }
        say("the connection to the control plane broke; connecting again");
        tokio::select! {
            outcome = self.session.reopen() => outcome?,
            () = interrupts.next() => return Ok(false),
        }
        say("connected again");
        Ok(true)
    }

    async fn wake(&mut self, interrupts: &mut Interrupts, at: Option<Instant>) -> Woken {
        tokio::select! {
            event = self.session.next() => Woken::Event(event.map(|event| event.map(Box::new))),
            () = interrupts.next() => Woken::Interrupted,
            () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => Woken::Time,
        }
    }

    /// Acknowledges and shows a status. Returns its state if that ends the run.
    async fn on_status(&mut self, status: &TaskStatus) -> Option<TaskState> {
        if let Some(acknowledge) = calls::acknowledge(status)
            && let Err(error) = self.session.send(acknowledge).await
        {
            say(&format!("an update could not be acknowledged and will come again: {}", crate::chain(&error)));
        }
        if status.task_id.value != self.task_id {
            return None;
        }
        let state = TaskState::try_from(status.state).ok()?;
        if state == TaskState::TaskUnknown {
            // Its agent may not be back yet.
            let since = *self.unknown_since.get_or_insert_with(Instant::now);
            let is_over = since.elapsed() > Duration::from_secs_f64(calls::FAILOVER_SECONDS);
            return is_over.then_some(TaskState::TaskLost);
        }
        self.unknown_since = None;
        let message = status.message.as_deref().filter(|message| !message.is_empty());
        if ending::is_end(state) {
            // Told once, with the exit status, when all of the output is here.
            self.message = message.map(str::to_owned);
            return Some(state);
        }
        if self.state != Some(state) {
            self.state = Some(state);
            let message = message.map(|message| format!(": {message}")).unwrap_or_default();
            say(&format!("{}{message}", ending::phrase(state)));
        }
        None
    }

    async fn kill(&mut self) {
        say("interrupted: killing the task; once more to leave it to the control plane");
        if let Some((offer, _)) = &self.task
            && let Err(error) = self.session.send(calls::kill(&self.task_id, &offer.agent_id)).await
        {
            say(&format!("the task could not be killed: {}", crate::chain(&error)));
        }
    }

    async fn ask(&mut self) {
        if let Some((offer, _)) = &self.task
            && let Err(error) = self.session.send(calls::reconcile(&self.task_id, &offer.agent_id)).await
        {
            say(&format!("cannot ask for the task's state: {}", crate::chain(&error)));
        }
    }

    async fn say_why_waiting(&self) {
        say("no offer that fits has come yet; waiting");
        let why: Result<muster_v1::Why, _> = endpoints::why(self.api, "frameworks", &self.session.framework_id).await;
        for line in why.iter().flat_map(crate::why::reasons) {
            say(&line);
        }
    }

    async fn say_what_is_missing(&self) {
        let Some((_, source)) = &self.task else { return };
        let id = &source.agent_id;
        let why = match endpoints::agent(self.api, id).await {
            Ok(agent) if agent.state != "connected" => away::not_connected(&agent),
            Ok(_) | Err(_) => "does not serve it".to_owned(),
        };
        say(&format!(
            "the output may not be complete: agent {id} {why}; `muster tasks logs {}` reads it when it is back",
            source.task_id
        ));
    }

    /// What Muster's own API knows of the task's process, once it knows of its end.
    async fn facts(&self, last: TaskState) -> Option<muster_v1::Task> {
        if is_lost(last) {
            return None;
        }
        let give_up = Instant::now() + FACTS_PATIENCE;
        loop {
            match endpoints::task(self.api, &self.task_id, Some(&self.session.framework_id)).await {
                Ok(task) if task.state == last.as_str_name() => return Some(task),
                Ok(_) => {}
                Err(error) if !error.may_pass() => return None,
                Err(_) => {}
            }
            if Instant::now() > give_up {
                return None;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn print(api: &Api, source: Source, end: watch::Receiver<End>) {
    let ends = end.clone();
    let opening = Opening::default();
    let copied = tokio::select! {
        copied = output::copy_both(api, &source, end, &opening) => copied,
        why = away::tell(api, &source, &opening) => return say(&format!("the output may not be complete: {why}")),
    };
    if let Err(error) = copied {
        // A task that never began has no output, and its own message says why.
        let wrote_nothing =
            matches!(*ends.borrow(), End::Ended { stdout: None | Some(0), stderr: None | Some(0) } | End::Now);
        if !wrote_nothing {
            say(&format!("the output is not complete: {}", crate::chain(&error)));
        }
    }
}

fn is_lost(state: TaskState) -> bool {
    ending::status(state, None) == ending::LOST
}

fn random_text() -> Result<String, RunError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(RunError::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The caller's name, from /etc/passwd: a static program cannot ask the system's name services.
fn current_user() -> String {
    let id = nix::unistd::geteuid().to_string();
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = accounts.lines().find_map(|line| {
        // "root:x:0:0:root:/root:/bin/bash"
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    name.or_else(|| std::env::var("USER").ok()).unwrap_or(id)
}
