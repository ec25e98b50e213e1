//! Runs simulated clusters until enough steps are done; says how to replay each that breaks a rule.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use clap::{Parser, ValueEnum};
use muster_model::Rng;
use muster_sim::scenario::{Failure, Scenario, Seen};
use std::collections::VecDeque;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// Simulated Muster clusters: what goes wrong in them is drawn from a seed, and every step is checked.
#[derive(Debug, Clone, Parser)]
#[command(name = "muster-sim", version)]
struct Arguments {
    /// Run only the world of this seed, decimal or 0x…; may be given several times
    #[arg(long, value_parser = number)]
    seed: Vec<u64>,
    /// Run the seeds of this file too: one on each line, then a word why it is there
    #[arg(long)]
    seeds: Option<PathBuf>,
    /// What fresh seeds are drawn from, decimal or 0x…
    #[arg(long, value_parser = number, default_value = "1")]
    base: u64,
    /// Go on with fresh seeds until so many steps are done
    #[arg(long, default_value_t = 1_000_000)]
    total: u64,
    /// Go on with fresh seeds for so long instead
    #[arg(long, conflicts_with = "total")]
    minutes: Option<u64>,
    /// Steps with faults in each world, instead of what its seed draws
    #[arg(long)]
    steps: Option<u64>,
    /// Control-plane nodes in each world, instead of what its seed draws
    #[arg(long)]
    nodes: Option<usize>,
    /// Machines in each world, instead of what its seed draws
    #[arg(long)]
    agents: Option<usize>,
    /// Frameworks in each world, instead of what its seed draws
    #[arg(long)]
    frameworks: Option<usize>,
    /// Print to stderr all that is said in these steps, for example 1000..1200
    #[arg(long, value_parser = range)]
    trace: Option<Range<u64>>,
    /// Worlds at a time; as many as there are cores by default
    #[arg(long)]
    jobs: Option<usize>,
    /// What is checked out, for the replay line
    #[arg(long)]
    commit: Option<String>,
    /// How the summary is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text} is no number; write digits, or 0x and hexadecimal ones"))
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or_else(|| format!("{text} is no range; write FIRST..END"))?;
    Ok(number(from)?..number(to)?)
}

/// What all worlds together have come to.
#[derive(Debug, Default)]
struct Sum {
    worlds: u64,
    seen: Seen,
    failures: Vec<(Scenario, Failure)>,
    told: Option<Instant>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let named = match named_seeds(&arguments) {
        Ok(named) => named,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(64);
        }
    };
    if arguments.trace.is_none() {
        // A broken rule is told once, with how to replay it.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let started = Instant::now();
    let sum = run(&arguments, named, started);
    for (scenario, failure) in &sum.failures {
        eprintln!("sim: seed {:#x}, {failure} — replay: {}", scenario.seed, replay(&arguments, scenario));
    }
    println!("{}", summary(&arguments, &sum, started.elapsed()));
    if sum.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn named_seeds(arguments: &Arguments) -> Result<VecDeque<u64>, String> {
    let mut named: VecDeque<u64> = arguments.seed.iter().copied().collect();
    let Some(path) = &arguments.seeds else { return Ok(named) };
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    for (index, line) in text.lines().enumerate() {
        if let Some(word) = line.split_whitespace().next().filter(|word| !word.starts_with('#')) {
            named.push_back(number(word).map_err(|error| format!("{}:{}: {error}", path.display(), index + 1))?);
        }
    }
    Ok(named)
}

/// Runs worlds on all cores: first the named ones, then fresh ones until it is enough.
fn run(arguments: &Arguments, named: VecDeque<u64>, started: Instant) -> Sum {
    let is_only_named = !arguments.seed.is_empty();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.unwrap_or(cores).max(1);
    let queue = Mutex::new((named, Rng::new(arguments.base)));
    let sum = Mutex::new(Sum::default());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(seed) = next_seed(arguments, &queue, &sum, is_only_named, started) {
                    let scenario = scenario(arguments, seed);
                    let ended = scenario.run();
                    add(arguments, &sum, scenario, ended);
                }
            });
        }
    });
    sum.into_inner().unwrap_or_else(|broken| broken.into_inner())
}

fn next_seed(
    arguments: &Arguments,
    queue: &Mutex<(VecDeque<u64>, Rng)>,
    sum: &Mutex<Sum>,
    is_only_named: bool,
    started: Instant,
) -> Option<u64> {
    let mut queue = queue.lock().ok()?;
    if let Some(seed) = queue.0.pop_front() {
        return Some(seed);
    }
    let is_enough = match arguments.minutes {
        _ if is_only_named => true,
        Some(minutes) => started.elapsed() >= Duration::from_secs(minutes.saturating_mul(60)),
        None => sum.lock().ok()?.seen.steps >= arguments.total,
    };
    // Short seeds are easier to pass on.
    (!is_enough).then(|| queue.1.next_u64() >> 16)
}

fn scenario(arguments: &Arguments, seed: u64) -> Scenario {
    let drawn = Scenario::drawn(seed);
    Scenario {
        steps: arguments.steps.unwrap_or(drawn.steps),
        nodes: arguments.nodes.unwrap_or(drawn.nodes).max(1),
        agents: arguments.agents.unwrap_or(drawn.agents).max(1),
        frameworks: arguments.frameworks.unwrap_or(drawn.frameworks).max(1),
        traced: arguments.trace.clone().unwrap_or(0..0),
        ..drawn
    }
}

fn add(arguments: &Arguments, sum: &Mutex<Sum>, scenario: Scenario, ended: Result<Seen, Failure>) {
    let Ok(mut sum) = sum.lock() else { return };
    sum.worlds += 1;
    match ended {
        Ok(seen) => sum.seen += seen,
        Err(failure) => {
            sum.seen.steps += failure.step;
            sum.failures.push((scenario, failure));
        }
    }
    if sum.told.is_none_or(|told| told.elapsed() > Duration::from_secs(5)) {
        sum.told = Some(Instant::now());
        let goal = match arguments.minutes {
            Some(minutes) => format!("{minutes} min"),
            None => format!("{} steps", arguments.total),
        };
        eprintln!(
            "sim: {} steps in {} worlds, {} failed (until {goal})",
            sum.seen.steps,
            sum.worlds,
            sum.failures.len()
        );
    }
}

/// The command that runs the world again.
fn replay(arguments: &Arguments, scenario: &Scenario) -> String {
    let mut command = String::new();
    if let Some(commit) = &arguments.commit {
        command.push_str(&format!("git checkout {commit} && "));
    }
    command.push_str(&format!("cargo xtask sim --seed {:#x}", scenario.seed));
    let sizes = [("nodes", arguments.nodes), ("agents", arguments.agents), ("frameworks", arguments.frameworks)];
    for (name, value) in sizes {
        command.extend(value.map(|value| format!(" --{name} {value}")));
    }
    command.extend(arguments.steps.map(|steps| format!(" --steps {steps}")));
    command
}

fn summary(arguments: &Arguments, sum: &Sum, took: Duration) -> String {
    let Seen { steps, simulated_secs, tasks, started, faults, node_starts, agent_starts, takeovers } = sum.seen;
    let (worlds, failed, secs) = (sum.worlds, sum.failures.len(), took.as_secs());
    match arguments.output {
        Format::Text => format!(
            "sim: {steps} steps in {worlds} worlds, {simulated_secs} s simulated, {faults} faults, {takeovers} take-overs, \
             {node_starts} starts of nodes and {agent_starts} of agents, {tasks} tasks asked for and {started} started, \
             {failed} failed, in {secs} s"
        ),
        Format::Json => {
            let failures = sum.failures.iter().map(|(scenario, failure)| {
                format!(
                    r#"{{"seed":"{:#x}","step":{},"message":{},"replay":{}}}"#,
                    scenario.seed,
                    failure.step,
                    quoted(&failure.message),
                    quoted(&replay(arguments, scenario))
                )
            });
            format!(
                r#"{{"steps":{steps},"worlds":{worlds},"simulated_secs":{simulated_secs},"faults":{faults},"takeovers":{takeovers},"node_starts":{node_starts},"agent_starts":{agent_starts},"tasks":{tasks},"started":{started},"failed":{failed},"elapsed_secs":{secs},"failures":[{}]}}"#,
                failures.collect::<Vec<_>>().join(",")
            )
        }
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(control))),
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_ranges_are_read_as_they_are_printed() {
        assert_eq!(number("0x5EED"), Ok(0x5EED));
        assert_eq!(number("77"), Ok(77));
        assert!(number("0xx").is_err() && number("-1").is_err() && number("").is_err());
        assert_eq!(range("5..0x10"), Ok(5..16));
        assert!(range("5").is_err());
    }

    #[test]
    fn text_is_quoted_for_json() {
        assert_eq!(quoted("a \"b\" \\ \n"), r#""a \"b\" \\ \u000a""#);
    }

    #[test]
    fn a_replay_names_what_the_seed_does_not_draw() {
        let arguments = Arguments::parse_from(["muster-sim", "--seed", "0x2a", "--nodes", "2", "--commit", "abc"]);
        let expected = "git checkout abc && cargo xtask sim --seed 0x2a --nodes 2";
        assert_eq!(replay(&arguments, &scenario(&arguments, 0x2a)), expected);
        assert_eq!(scenario(&arguments, 0x2a).nodes, 2);
    }
}
