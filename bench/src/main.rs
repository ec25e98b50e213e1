//! Workload generators and scale runs: each prints a table for people and one JSON line for machines.
#![expect(clippy::print_stdout, reason = "results are what this program is for")]

mod allocate;
mod fleet;
mod footprint;
mod framework;
mod http;
mod ingest;
mod launch;
mod load;
mod measure;
mod oracle;
mod outcome;
mod server;

use clap::{Parser, Subcommand};

/// Measures Muster
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// How long one allocation cycle takes
    Allocate(allocate::AllocateArgs),
    /// Tasks launched end to end per second
    Launch(launch::LaunchArgs),
    /// Usage reports taken per second
    Ingest(ingest::IngestArgs),
    /// Size, memory and wake-ups of the agent
    Footprint(footprint::FootprintArgs),
}

/// As in the control plane, so that what is measured is not the generator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    match Args::parse().bench {
        Bench::Allocate(args) => allocate::run(&args),
        Bench::Launch(args) => runtime()?.block_on(launch::run(&args)),
        Bench::Ingest(args) => runtime()?.block_on(ingest::run(&args)),
        Bench::Footprint(args) => runtime()?.block_on(footprint::run(&args)),
    }
}
