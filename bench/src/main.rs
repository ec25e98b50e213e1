//! Workload generators and scale runs: each prints a table for people and one JSON line for machines.
#![expect(clippy::print_stdout, reason = "results are what this program is for")]

mod allocate;
mod connections;
mod failover;
mod fleet;
mod footprint;
mod framework;
mod http;
mod ingest;
mod launch;
mod load;
mod measure;
mod nodes;
mod oracle;
mod outcome;
mod scale;
mod server;
mod watcher;

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
    /// Memory and processor time of agents that are connected and idle
    Connections(connections::ConnectionsArgs),
    /// The same launches on 1, 2 and 4 control-plane nodes
    Scale(scale::ScaleArgs),
    /// How long after the loss of a node its agents are offered again
    Failover(failover::FailoverArgs),
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
        Bench::Connections(args) => runtime()?.block_on(connections::run(&args)),
        Bench::Scale(args) => runtime()?.block_on(scale::run(&args)),
        Bench::Failover(args) => runtime()?.block_on(failover::run(&args)),
    }
}
