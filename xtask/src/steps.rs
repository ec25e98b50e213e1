//! Runs checks one after the other, shows each with its time, and sums up what passed, failed and was skipped.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

/// How many checks ended how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Tally {
    /// One check that passed.
    pub(crate) const ONE_PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// The run so far.
#[derive(Debug)]
pub(crate) struct Steps {
    started: Instant,
    sum: Tally,
    remarks: Vec<String>,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), sum: Tally::default(), remarks: Vec::new() }
    }

    /// Runs one step. An error counts as one failed check, and the run goes on. Returns whether all of it passed.
    pub(crate) fn step(&mut self, name: &str, run: impl FnOnce() -> anyhow::Result<Tally>) -> bool {
        println!("\n=== {name} (at {})", minutes(self.started.elapsed()));
        let started = Instant::now();
        let tally = run().unwrap_or_else(|error| {
            println!("{error:#}");
            Tally { failed: 1, ..Tally::default() }
        });
        let took = minutes(started.elapsed());
        println!("--- {name}: {} passed, {} failed, {} skipped in {took}", tally.passed, tally.failed, tally.skipped);
        if tally.failed > 0 {
            self.remarks.push(format!("FAILED {name}"));
        }
        self.sum.add(tally);
        tally.failed == 0
    }

    /// Notes that checks cannot run here.
    pub(crate) fn skip(&mut self, name: &str, count: usize, why: &str) {
        println!("\n=== {name}\nSKIPPED {name}: {why}");
        self.remarks.push(format!("SKIPPED {name}: {why}"));
        self.sum.skipped += count;
    }

    /// Prints what failed or was skipped, and the sum as the last line.
    ///
    /// Errors: when something failed, or when nothing ran.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        println!();
        for remark in &self.remarks {
            println!("{remark}");
        }
        println!("all steps took {}", minutes(self.started.elapsed()));
        println!("{} passed, {} failed, {} skipped", self.sum.passed, self.sum.failed, self.sum.skipped);
        if self.sum.failed > 0 || self.sum.passed == 0 {
            // The sum is the last line of the output, so the failure is told by the status alone.
            std::process::exit(1);
        }
        Ok(())
    }
}

fn minutes(time: Duration) -> String {
    format!("{}:{:02} min", time.as_secs() / 60, time.as_secs() % 60)
}

/// Runs a command that counts as one check.
///
/// Errors: when it cannot start, ends with another status than 0, or takes longer than `limit`.
pub(crate) fn check(command: &mut Command, limit: Duration) -> anyhow::Result<Tally> {
    run(command, limit, |_| {})?;
    Ok(Tally::ONE_PASSED)
}

/// Runs `cargo test` or `cargo nextest run` and reads the sums it prints.
///
/// Tests that find they cannot run add a line to the file that `MUSTER_SKIPPED_FILE` names; those count as skipped.
/// Errors: as [`check`], unless the command reported failed tests; and when no test ran at all.
pub(crate) fn run_tests(
    command: &mut Command,
    limit: Duration,
    skipped_file: &std::path::Path,
) -> anyhow::Result<Tally> {
    let _ = fs::remove_file(skipped_file);
    command.env("MUSTER_SKIPPED_FILE", skipped_file);
    let mut tally = Tally::default();
    let (mut panics, mut follows) = (Vec::new(), false);
    let ended = run(command, limit, |line| {
        if let Some(found) = read_sum(line) {
            tally.add(found);
        }
        // A panic's place, and in the next line what it says.
        let is_place = line.contains("' panicked at ") || line.contains(") panicked at ");
        if is_place || follows {
            panics.push(line.trim().to_owned());
        }
        follows = is_place;
    });
    if tally.failed > 0 {
        // Once more, where nobody has to look for it among what the other tests say.
        panics.iter().for_each(|line| println!("{line}"));
    }
    for line in fs::read_to_string(skipped_file).unwrap_or_default().lines() {
        println!("SKIPPED {line}");
        tally.passed = tally.passed.saturating_sub(1);
        tally.skipped += 1;
    }
    match ended {
        Err(error) if tally.failed == 0 => Err(error),
        Ok(()) if tally == Tally::default() => bail!("no test ran: {command:?}"),
        Ok(()) | Err(_) => Ok(tally),
    }
}

/// Reads the sum that libtest prints for each binary, or nextest for the run.
///
/// ```text
/// test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
///      Summary [   0.214s] 5 tests run: 4 passed (1 slow), 1 failed, 7 skipped
/// ```
fn read_sum(line: &str) -> Option<Tally> {
    let line = line.trim_start();
    let (sums, nextest) = match (line.strip_prefix("test result: "), line.strip_prefix("Summary [")) {
        (Some(rest), _) => (rest, false),
        (None, Some(rest)) => (rest.split_once("run:")?.1, true),
        (None, None) => return None,
    };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let words: Vec<&str> = sums.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    for pair in words.windows(2) {
        if let [number, word] = pair
            && let Ok(number) = number.parse()
        {
            counts.entry(word).or_insert(number);
        }
    }
    let count = |word: &str| counts.get(word).copied().unwrap_or(0);
    // nextest counts what a filter left out as skipped, so that figure says nothing.
    let skipped = if nextest { 0 } else { count("ignored") };
    Some(Tally { passed: count("passed"), failed: count("failed") + count("exec") + count("timed"), skipped })
}

/// Runs a command with its output shown line by line and handed to `see`.
fn run(command: &mut Command, limit: Duration, mut see: impl FnMut(&str)) -> anyhow::Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let (send, lines) = mpsc::channel();
    let readers = [
        child.stdout.take().map(|pipe| forward(pipe, send.clone())),
        child.stderr.take().map(|pipe| forward(pipe, send)),
    ];
    let end = Instant::now() + limit;
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{line}");
                see(&line);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                kill_tree(&mut child);
                let _ = child.wait();
                bail!("{command:?} took longer than {} s and was killed", limit.as_secs());
            }
        }
    }
    readers.into_iter().flatten().for_each(|reader| drop(reader.join()));
    let status = child.wait()?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

fn forward(pipe: impl Read + Send + 'static, lines: mpsc::Sender<String>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    })
}

/// Kills a process and everything below it.
fn kill_tree(child: &mut Child) {
    let mut doomed = vec![child.id()];
    let parents = parents();
    let mut next = 0;
    while let Some(&pid) = doomed.get(next) {
        doomed.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(pid, _)| *pid));
        next += 1;
    }
    let pids: Vec<String> = doomed.iter().map(u32::to_string).collect();
    let _ = Command::new("sh").args(["-c", &format!("kill -9 {}", pids.join(" "))]).status();
}

/// Every process with its parent, from /proc/PID/stat: `4242 (a name) S 1 …`.
fn parents() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_both_runners_are_read() {
        let tally = |passed, failed, skipped| Some(Tally { passed, failed, skipped });
        for (line, expected) in [
            (
                "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0.00s",
                tally(3, 0, 1),
            ),
            ("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out", tally(3, 2, 0)),
            ("     Summary [   0.214s] 5 tests run: 4 passed, 1 failed, 7 skipped", tally(4, 1, 0)),
            ("     Summary [  10.214s] 5 tests run: 3 passed (1 slow), 2 timed out, 0 skipped", tally(3, 2, 0)),
            ("     Summary [   0.214s] 4/5 tests run: 3 passed, 1 failed, 7 skipped", tally(3, 1, 0)),
            ("running 3 tests", None),
        ] {
            assert_eq!(read_sum(line), expected, "case: {line}");
        }
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_its_children() {
        let started = Instant::now();
        let error =
            check(Command::new("sh").args(["-c", "sleep 1000 & sleep 1000"]), Duration::from_millis(300)).unwrap_err();
        assert!(error.to_string().contains("was killed"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn failures_and_skips_are_counted() {
        let file = std::env::temp_dir().join(format!("xtask-skipped-{}", std::process::id()));
        let run = |script: &str| run_tests(Command::new("sh").args(["-c", script]), Duration::from_secs(60), &file);
        let sum = "echo 'test result: ok. 3 passed; 0 failed; 0 ignored'";
        assert_eq!(run(sum).unwrap(), Tally { passed: 3, failed: 0, skipped: 0 });
        let skipping = format!("{sum}; echo 'vm: no qemu' >> $MUSTER_SKIPPED_FILE");
        assert_eq!(run(&skipping).unwrap(), Tally { passed: 2, failed: 0, skipped: 1 });
        let failing = "echo 'test result: FAILED. 1 passed; 2 failed; 0 ignored'; exit 101";
        assert_eq!(run(failing).unwrap(), Tally { passed: 1, failed: 2, skipped: 0 });
        assert!(run("exit 101").is_err(), "a build error is not zero failures");
        assert!(run("true").is_err(), "no test at all is not success");
        let _ = fs::remove_file(&file);
    }
}
