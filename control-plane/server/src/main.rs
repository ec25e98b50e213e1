//! The control plane's program: configuration, logging, then [`muster_server::node::run`].

use clap::Parser as _;
use muster_server::config::{Config, Flags};
use muster_server::node;
use muster_server::sessions::Chain;
use std::io::Write as _;
use std::process::ExitCode;
use tracing::level_filters::LevelFilter;

/// Bad configuration, as in sysexits.h.
const EXIT_CONFIG: u8 = 64;

/// Tasks' descriptions and statuses live in many small pieces that come and go on all threads: the C library's allocator
/// takes a fifth of the time of a launch, this one a twentieth.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Huge pages are cleared by the kernel 2 MiB at a time for messages of a few KiB: with them an agent's connection costs
    // twice the memory, and a launch on several nodes a third more time. A kernel that knows no such switch has no harm.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        // Help and version are no faults: they go to stdout and end with 0.
        Err(error) => {
            let code = if error.use_stderr() { EXIT_CONFIG } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let print_config = flags.print_config;
    let config = match Config::from_flags(flags) {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_CONFIG),
    };
    if print_config {
        return match toml::to_string(&config)
            .map_err(std::io::Error::other)
            .and_then(|text| std::io::stdout().write_all(text.as_bytes()))
        {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        };
    }
    let level = config.log.parse().unwrap_or(LevelFilter::INFO);
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_ansi(false).init();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.worker_threads(config.worker_threads).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    match runtime.block_on(node::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "muster-control-plane: {}", Chain(error));
    ExitCode::from(code)
}
