//! `cargo xtask test`: everything that must hold before a change lands, in one command, from a bare machine.

use std::{
    ffi::OsString,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;

use crate::{
    dist, packages, sim,
    steps::{self, Steps, Tally},
    tidy,
};

/// The clients of others that must work unchanged: folder below tests/clients.
const CLIENTS: [&str; 3] = ["pymesos", "avmesos", "mesos-framework"];

/// Which steps run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only what needs no installed packages, no client and no VM
    #[arg(long)]
    quick: bool,
}

/// Runs all steps. Ends with the line `N passed, N failed, N skipped`.
pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let mut steps = Steps::new();
    let packages_there = !options.quick
        && steps.step("install what the tests need", || packages::install(root).map(|()| Tally::default()));

    steps.step("format", || steps::check(cargo(root).args(["fmt", "--all", "--check"]), minutes(2)));
    steps.step("clippy", || {
        let arguments = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
        steps::check(cargo(root).args(arguments), minutes(15))
    });
    steps.step("generated code", || crate::r#gen::run(crate::r#gen::Mode::Check).map(|()| Tally::ONE_PASSED));
    steps.step("tidy", || tidy::run(root).map(|()| Tally::ONE_PASSED));

    let built = steps
        .step("build", || steps::check(cargo(root).args(["build", "--locked", "--workspace", "--bins"]), minutes(20)));
    steps.step("unit and integration tests", || {
        run_tests(root, &["--workspace", "--exclude", "muster-e2e"], minutes(20))
    });
    steps.step("documentation tests", || {
        let arguments = ["test", "--locked", "--workspace", "--doc", "--color", "never"];
        steps::run_tests(cargo(root).args(arguments), minutes(10), &skipped_file(root))
    });
    steps.step("simulation", || sim::check(root, minutes(10)));
    if built {
        steps.step("end to end", || run_e2e(root, Part::Binaries));
    } else {
        steps.skip("end to end", 1, "the build failed");
    }
    if built {
        steps.step("bench allocate, small", || {
            small_bench(root, &["allocate", "--agents", "100", "--frameworks", "10", "--roles", "10", "--cycles", "3"])
        });
        steps.step("bench launch, small", || small_bench(root, &["launch", "--small"]));
        steps.step("bench ingest, small", || small_bench(root, &["ingest", "--small"]));
        steps.step("bench launch, real agent, small", || small_bench(root, &["launch", "--real-agent", "--small"]));
        steps.step("bench connections, small", || small_bench(root, &["connections", "--small"]));
        if has_etcd() {
            steps.step("bench connections, two nodes, small", || {
                small_bench(root, &["connections", "--small", "--nodes", "2"])
            });
            steps.step("bench scale, small", || small_bench(root, &["scale", "--small"]));
            steps.step("bench failover, small", || small_bench(root, &["failover", "--small"]));
        } else {
            steps.skip("benches of several nodes", 3, "there is no `etcd`; on Debian: apt-get install etcd-server");
        }
    } else {
        steps.skip("benches", 8, "the build failed");
    }
    if options.quick {
        steps.skip("clients", CLIENTS.len(), "--quick");
        steps.skip("static binaries and VM", 1, "--quick");
        return steps.finish();
    }
    if !packages_there {
        steps.skip("clients", CLIENTS.len(), "packages are missing, see above");
        steps.skip("static binaries and VM", 1, "packages are missing, see above");
        return steps.finish();
    }
    for client in CLIENTS {
        steps.step(&format!("install {client}"), || {
            packages::install_with(root, &format!("clients/{client}/install.sh"), client).map(|()| Tally::default())
        });
    }
    steps.step("clients", || run_e2e(root, Part::Clients));
    steps.step("install the VM's kernel", || {
        packages::install_with(root, "kits/vm/install.sh", "vm").map(|()| Tally::default())
    });
    steps.step("static binaries", || check_dist(root));
    steps.step("bench footprint, small", || {
        let agent = dist::target_dir(root).join("dist").join("muster-agent");
        small_bench(root, &["footprint", "--small", "--agent", &agent.to_string_lossy()])
    });
    steps.step("VM with cgroup v2", || run_e2e(root, Part::Vm));
    steps.finish()
}

/// Runs the tests that compare with golden files, or lets them write those anew.
pub(crate) fn golden(root: &Path, update: bool) -> anyhow::Result<()> {
    let mut command = cargo(root);
    command.args(["test", "--locked", "--workspace", "--exclude", "muster-e2e", "--", "golden"]);
    if update {
        command.env("MUSTER_GOLDEN", "update");
    }
    let tally = steps::run_tests(&mut command, minutes(20), &skipped_file(root))?;
    if tally.failed > 0 {
        bail!(
            "{} golden tests failed; `cargo xtask golden --update` writes the files anew, then review the change",
            tally.failed
        );
    }
    Ok(())
}

/// Runs the tests against real kernels: this host's, and cgroup v2 in a VM.
pub(crate) fn linux(root: &Path) -> anyhow::Result<()> {
    let mut steps = Steps::new();
    steps.step("install what the tests need", || packages::install(root).map(|()| Tally::default()));
    steps.step("this host", || run_tests(root, &["-p", "muster-linux", "-p", "muster-daemon"], minutes(20)));
    steps.step("install the VM's kernel", || {
        packages::install_with(root, "kits/vm/install.sh", "vm").map(|()| Tally::default())
    });
    steps.step("static binaries", || check_dist(root));
    steps.step("VM with cgroup v2", || run_e2e(root, Part::Vm));
    steps.finish()
}

fn check_dist(root: &Path) -> anyhow::Result<Tally> {
    let paths = dist::run(root)?;
    let mut tally = Tally { passed: paths.len(), ..Tally::default() };
    for path in paths.iter().filter(|path| path.ends_with("muster-agent")) {
        let size = fs::metadata(path)?.len();
        if size > dist::AGENT_BYTES_MAX {
            bail!("{} has {size} bytes, {} at most", path.display(), dist::AGENT_BYTES_MAX);
        }
        tally.passed += 1;
    }
    Ok(tally)
}

/// Proves that a workload works; how fast it is only shows in a full run of an optimised build.
fn small_bench(root: &Path, arguments: &[&str]) -> anyhow::Result<Tally> {
    let mut command = cargo(root);
    command.args(["run", "--locked", "--quiet", "-p", "muster-bench", "--"]).args(arguments);
    steps::check(&mut command, minutes(5))
}

fn run_tests(root: &Path, packages: &[&str], limit: Duration) -> anyhow::Result<Tally> {
    let mut command = cargo(root);
    if has_nextest(root) {
        command.args(["nextest", "run", "--locked", "--color", "never", "--no-fail-fast", "--no-tests", "pass"]);
        command.args(["--status-level", "fail", "--show-progress", "none"]).args(packages);
    } else {
        // --tests leaves out the documentation tests, which have a step of their own.
        command.args(["test", "--locked", "--color", "never", "--no-fail-fast", "--tests"]).args(packages);
    }
    steps::run_tests(&mut command, limit, &skipped_file(root))
}

/// The parts of the end-to-end tests, by what they need.
#[derive(Clone, Copy)]
enum Part {
    /// The built binaries.
    Binaries,
    /// Those, and the installed clients.
    Clients,
    /// The static binaries, QEMU and a kernel.
    Vm,
}

fn run_e2e(root: &Path, part: Part) -> anyhow::Result<Tally> {
    // Through cargo test, not nextest: these tests spend their time waiting, not computing.
    let mut command = cargo(root);
    command.args(["test", "--locked", "--color", "never", "-p", "muster-e2e"]);
    match part {
        Part::Binaries => command.args(["--tests", "--", "--skip", "client_", "--skip", "vm_"]),
        Part::Clients => command.args(["--test", "it", "--", "client_"]),
        Part::Vm => {
            let dist = dist::target_dir(root).join("dist");
            for (name, path) in kernel_tests(root)? {
                command.env(name, path);
            }
            command.env("MUSTER_BIN_DIR", dist).args(["--test", "it", "--", "vm_"])
        }
    };
    command.env("MUSTER_TEST_DEPS", packages::folder(root));
    steps::run_tests(&mut command, minutes(20), &skipped_file(root))
}

/// Builds the tests of agent/linux and returns the variables that tell the VM's tests where they are.
fn kernel_tests(root: &Path) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut command = cargo(root);
    command.args(["test", "--locked", "-p", "muster-linux", "--test", "it", "--no-run", "--message-format", "json"]);
    let output = command.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let variable = match message["target"]["name"].as_str() {
            Some("it") => "MUSTER_LINUX_TESTS",
            Some("muster-linux-probe") => "MUSTER_LINUX_PROBE",
            _ => continue,
        };
        if let Some(path) = message["executable"].as_str() {
            found.push((variable, path.to_owned()));
        }
    }
    anyhow::ensure!(output.status.success() && found.len() == 2, "the kernel tests of agent/linux could not be built");
    Ok(found)
}

fn has_etcd() -> bool {
    Command::new("etcd").arg("--version").output().is_ok_and(|output| output.status.success())
}

fn has_nextest(root: &Path) -> bool {
    cargo(root).args(["nextest", "--version"]).output().is_ok_and(|output| output.status.success())
}

fn skipped_file(root: &Path) -> std::path::PathBuf {
    dist::target_dir(root).join("skipped-tests.txt")
}

fn cargo(root: &Path) -> Command {
    let program: OsString = crate::cargo();
    let mut command = Command::new(program);
    command.current_dir(root);
    command
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}
