//! Project chores: up, test, tidy, gen, sim, bench, dist.
#![expect(clippy::print_stdout, reason = "a command-line program")]

mod dist;
mod r#gen;
mod packages;
mod sim;
mod steps;
mod test;
mod tidy;
mod up;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Parser, Subcommand};

/// The triple that .cargo/config.toml makes the default target of every build.
const TARGET: &str = match () {
    () if cfg!(target_arch = "aarch64") => "aarch64-unknown-linux-gnu",
    () => "x86_64-unknown-linux-gnu",
};

/// Project chores.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Build release binaries and start a control plane and an agent on this machine (`muster up`)
    Up {
        /// Passed on to `muster up`; see `cargo xtask up -- --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<OsString>,
    },
    /// Stop what `up --detach` started (`muster down`)
    Down {
        /// Passed on to `muster down`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<OsString>,
    },
    /// Install what the tests need, then run all checks and tests
    Test(test::Options),
    /// Check the rules that the compiler does not know: layers, licences, headers, names
    Tidy,
    /// Write the code that is generated from protocol/http-api/proto
    Gen {
        /// Only compare it with what is checked in
        #[arg(long)]
        check: bool,
    },
    /// Build the stripped static binaries into target/dist/
    Dist,
    /// Run a workload of bench/ with release binaries, for example `bench footprint`
    Bench {
        /// Passed on to muster-bench
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<OsString>,
    },
    /// Run the tests that compare with tests/golden files
    Golden {
        /// Write the files anew instead of comparing
        #[arg(long)]
        update: bool,
    },
    /// Run simulated clusters that draw what goes wrong from seeds; without options the commit's own seeds and all recorded ones
    Sim {
        /// Passed on to muster-sim; see `cargo xtask sim -- --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<OsString>,
    },
    /// Run simulated clusters with ever new seeds until the time is over
    Soak {
        /// For how long
        #[arg(long, default_value_t = 60)]
        minutes: u64,
    },
    /// Run the tests against the real kernel: on this host, and on cgroup v2 in a VM
    TestLinux,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = root().and_then(|root| match arguments.chore {
        Chore::Up { rest } => up::up(&root, &rest),
        Chore::Down { rest } => up::down(&root, &rest),
        Chore::Test(options) => test::run(&root, &options),
        Chore::Tidy => tidy::run(&root),
        Chore::Gen { check } => r#gen::run(if check { r#gen::Mode::Check } else { r#gen::Mode::Write }),
        Chore::Dist => dist::run(&root).map(|_| ()),
        Chore::Bench { rest } => up::bench(&root, &rest),
        Chore::Golden { update } => test::golden(&root, update),
        Chore::Sim { rest } => sim::run(&root, &rest),
        Chore::Soak { minutes } => sim::soak(&root, minutes),
        Chore::TestLinux => test::linux(&root),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no folder above it")?;
    Ok(root.to_owned())
}

fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
