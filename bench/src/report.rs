//! What every bench prints: percentiles for people, one JSON line for machines.

use serde_json::{Map, Value, json};
use std::process::Command;
use std::time::Duration;

/// Times of one case.
#[derive(Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// p50, p90, p99 and the largest, in microseconds.
    pub(crate) fn micros(&self) -> [f64; 4] {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        [50, 90, 99, 100].map(|percent| {
            let index = (sorted.len().saturating_sub(1) * percent).div_ceil(100);
            sorted.get(index).map_or(0.0, |sample| sample.as_secs_f64() * 1e6)
        })
    }
}

/// Prints the line: bench, machine, commit, sizes, and per case the percentiles in microseconds.
pub(crate) fn print_json(bench: &str, sizes: &[(&str, u64)], cases: &[(&str, &Samples)]) -> anyhow::Result<()> {
    let sizes: Map<String, Value> = sizes.iter().map(|(name, size)| ((*name).to_owned(), json!(size))).collect();
    let case = |samples: &Samples| {
        let [p50, p90, p99, max] = samples.micros();
        json!({ "samples": samples.0.len(), "p50_us": p50, "p90_us": p90, "p99_us": p99, "max_us": max })
    };
    let cases: Map<String, Value> = cases.iter().map(|(name, samples)| ((*name).to_owned(), case(samples))).collect();
    let line = json!({ "bench": bench, "machine": machine(), "commit": commit(), "sizes": sizes, "cases": cases });
    println!("{}", serde_json::to_string(&line)?);
    Ok(())
}

fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{}, {cores} cores", model.trim_start_matches([' ', '\t', ':']))
}

fn commit() -> String {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Ok(_) | Err(_) => "unknown".to_owned(),
    }
}
