//! Workload generators and scale runs: each prints a table for people and one JSON line for machines.

mod allocate;
mod report;

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
}

fn main() -> anyhow::Result<()> {
    match Args::parse().bench {
        Bench::Allocate(args) => allocate::run(&args),
    }
}
