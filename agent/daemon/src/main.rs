//! `muster-agent`: starts the launcher, reads the configuration, and runs the agent on one thread.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::time::Duration;

use muster_daemon::agent::{self, AgentError};
use muster_daemon::config::{Asked, Config, read};
use muster_linux::supervisor::{Launcher, LauncherError};
use tracing::error;

/// Bad configuration (sysexits.h, EX_USAGE).
const EXIT_CONFIGURATION: u8 = 64;

/// Keeps a launcher that ends at once from turning into a busy loop.
const BEGIN_ANEW_PAUSE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    // First of all, while the process is small and has one thread: the launcher is a fork of it.
    let launcher = Launcher::start();
    let arguments: Vec<_> = std::env::args_os().collect();
    let config = match read(&arguments, |name| std::env::var(name).ok()) {
        Ok(Asked::Run(config)) => *config,
        Ok(Asked::Print(text)) => {
            // A closed pipe (`--help | head`) is no error of ours.
            let _closed = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(faults) => {
            let _closed = write!(std::io::stderr(), "muster-agent: {faults}");
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    tracing_subscriber::fmt()
        .with_max_level(config.log)
        .with_ansi(false)
        .with_target(false)
        .with_writer(std::io::stderr)
        .init();
    match run(launcher, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            error!(error = %chain_of(&*failed), "the agent ends");
            if is_launcher_gone(&*failed) {
                begin_anew(&arguments);
            }
            ExitCode::FAILURE
        }
    }
}

fn is_launcher_gone(failed: &(dyn std::error::Error + 'static)) -> bool {
    let failed = failed.downcast_ref::<AgentError>();
    matches!(failed, Some(AgentError::Launcher(LauncherError::Gone)))
}

/// A launcher can only be forked by a small process with one thread, so the program becomes itself again: same process
/// id, same arguments. Containers are adopted as after any restart. Returns only when that fails.
fn begin_anew(arguments: &[OsString]) {
    std::thread::sleep(BEGIN_ANEW_PAUSE);
    let failed = std::process::Command::new("/proc/self/exe").args(arguments.iter().skip(1)).exec();
    error!(error = %failed, "cannot begin anew");
}

fn run(launcher: Result<Launcher, LauncherError>, config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let launcher = launcher?;
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| format!("the kernel gives no random bytes: {error}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(agent::run(launcher, config, u64::from_le_bytes(seed)))?;
    Ok(())
}

fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
