//! The agent's configuration: flags, `MUSTER_*` variables and a TOML file, checked as a whole before anything is opened.
//!
//! A flag wins over a variable, a variable over the file, the file over the default. All faults are reported at once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_linux::cgroup::Controllers;
use muster_model::attribute::Attribute;
use muster_model::resource::Resources;

use crate::declared::{parse_attributes, parse_resources};

/// One setting: its name (`work-dir` is the flag `--work-dir`, the variable `MUSTER_WORK_DIR`, the key `work_dir`), the
/// placeholder of its value, and what it does.
struct Key {
    name: &'static str,
    value: &'static str,
    help: &'static str,
}

const KEYS: [Key; 20] = [
    Key {
        name: "control-plane",
        value: "HOST:PORT",
        help: "Node of the control plane to enter by; may be given again, or hold several separated by commas. Those that the agent learns of are remembered too. Default: those",
    },
    Key {
        name: "join",
        value: "TOKEN",
        help: "Join token (`muster tokens create`); needed until this machine has joined once, ignored after",
    },
    Key { name: "work-dir", value: "DIR", help: "Identity, journal and sandboxes. Default /var/lib/muster-agent" },
    Key {
        name: "runtime-dir",
        value: "DIR",
        help: "State of running containers, best on tmpfs. Default /run/muster-agent with the default work-dir, else WORK-DIR/run",
    },
    Key {
        name: "resources",
        value: "TEXT",
        help: "Declared resources, e.g. 'cpus:4;mem:4096;disk:10000;ports:[31000-32000]'. What is absent is detected",
    },
    Key {
        name: "attributes",
        value: "TEXT",
        help: "Attributes that frameworks place by, e.g. 'rack:r1;zone:b'. Default none",
    },
    Key { name: "hostname", value: "NAME", help: "Host name shown to frameworks. Default: the kernel's" },
    Key {
        name: "ip",
        value: "ADDRESS",
        help: "Address shown to frameworks. Default: the one that leads to the control plane",
    },
    Key { name: "port", value: "PORT", help: "Port shown to frameworks, from 1 to 65535. Default 5051" },
    Key { name: "bind", value: "ADDRESS:PORT", help: "Local UDP address for the connection. Default: any" },
    Key {
        name: "cgroup-parent",
        value: "PATH",
        help: "Control group below which containers' groups are made; under systemd the agent's delegated unit. Default muster",
    },
    Key {
        name: "cgroup-controllers",
        value: "LIST",
        help: "Controllers that may be used, e.g. cpu,memory,pids; none for none. Default: all that are found",
    },
    Key {
        name: "report-interval-ms",
        value: "MS",
        help: "Usage report interval, from 100 to 3600000, instead of the control plane's",
    },
    Key {
        name: "kill-grace-ms",
        value: "MS",
        help: "Time between SIGTERM and SIGKILL where a task does not say, from 0 to 3600000. Default 3000",
    },
    Key {
        name: "update-retry-ms",
        value: "MS",
        help: "First wait before an unacknowledged status update is sent again, from 100 to 600000. Default 10000; doubles up to 600000",
    },
    Key {
        name: "reconnect-ms",
        value: "MS",
        help: "The pause before another attempt to connect is random, at first below this, from 10 to 60000. Default 100; doubles",
    },
    Key {
        name: "reconnect-max-ms",
        value: "MS",
        help: "Longest pause before another attempt to connect, from 100 to 600000. Default 15000",
    },
    Key {
        name: "keep-alive-ms",
        value: "MS",
        help: "Sign of life on a quiet connection, from 500 to 60000. Default 12000: longer than the usual report interval, so that reports are the sign of life",
    },
    Key {
        name: "idle-timeout-ms",
        value: "MS",
        help: "Silence after which the connection counts as lost, from 1000 to 300000, at least twice keep-alive-ms. Default 25000",
    },
    Key { name: "log", value: "LEVEL", help: "error, warn, info, debug or trace. Default info" },
];

/// Settings whose values may stand in several places.
const SECRET: &str = "join";

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses of the control plane, `host:port`.
    pub control_plane: Vec<String>,
    /// Join token.
    pub join: Option<String>,
    /// Identity, journal, sandboxes.
    pub work_dir: PathBuf,
    /// State of running containers.
    pub runtime_dir: PathBuf,
    /// Declared resources.
    pub resources: Resources,
    /// Attributes.
    pub attributes: Vec<Attribute>,
    /// Shown host name.
    pub hostname: Option<String>,
    /// Shown address.
    pub ip: Option<std::net::IpAddr>,
    /// Shown port.
    pub port: u16,
    /// Local UDP address.
    pub bind: Option<std::net::SocketAddr>,
    /// Parent of containers' groups.
    pub cgroup_parent: String,
    /// Usable controllers.
    pub cgroup_controllers: Controllers,
    /// Own report interval.
    pub report_interval: Option<Duration>,
    /// Default grace.
    pub kill_grace: Duration,
    /// First retry of an update.
    pub update_retry: Duration,
    /// Bound of the first pause before connecting again.
    pub reconnect: Duration,
    /// Longest such pause.
    pub reconnect_max: Duration,
    /// Sign of life.
    pub keep_alive: Duration,
    /// Silence that ends a connection.
    pub idle_timeout: Duration,
    /// Log level.
    pub log: tracing::Level,
    shown: Vec<(&'static str, String, Source)>,
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Default,
    File,
    Variable,
    Flag,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// Run with this configuration.
    Run(Box<Config>),
    /// Print this and exit with 0 (help, version, the configuration).
    Print(String),
}

/// Every fault of a configuration, one a line.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigFaults(pub Vec<String>);

impl std::error::Error for ConfigFaults {}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the configuration has {} fault{}:", self.0.len(), if self.0.len() == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|fault| writeln!(f, "  {fault}"))
    }
}

/// Reads flags (without the program's name), variables and the file that `--config` or `MUSTER_CONFIG` names.
///
/// Errors: [`ConfigFaults`] with all of them.
pub fn read(
    arguments: &[std::ffi::OsString],
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Asked, ConfigFaults> {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => return Ok(Asked::Print(error.to_string())),
        Err(error) => return Err(ConfigFaults(vec![error.to_string().trim_end().to_owned()])),
    };
    let mut faults = Vec::new();
    let file = matches.get_one::<String>("config").cloned().or_else(|| variable("MUSTER_CONFIG"));
    let mut values: BTreeMap<&'static str, (String, Source)> = BTreeMap::new();
    if let Some(path) = file {
        read_file(Path::new(&path), &mut values, &mut faults);
    }
    for key in &KEYS {
        let name = format!("MUSTER_{}", key.name.replace('-', "_").to_uppercase());
        if let Some(value) = variable(&name) {
            values.insert(key.name, (value, Source::Variable));
        }
        if let Some(given) = matches.get_many::<String>(key.name) {
            let joined = given.map(String::as_str).collect::<Vec<_>>().join(",");
            values.insert(key.name, (joined, Source::Flag));
        }
    }
    let config = Config::check(values, &mut faults);
    match config {
        _ if !faults.is_empty() => Err(ConfigFaults(faults)),
        config if matches.get_flag("print-config") => Ok(Asked::Print(config.to_toml())),
        config => Ok(Asked::Run(Box::new(config))),
    }
}

fn command() -> clap::Command {
    let mut command = clap::Command::new("muster-agent")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs the tasks of one machine of a Muster cluster")
        .after_help(
            "Every flag is also a variable (--work-dir: MUSTER_WORK_DIR) and a key of the file (work_dir = \"…\").",
        );
    for key in &KEYS {
        let action = if key.name == "control-plane" { clap::ArgAction::Append } else { clap::ArgAction::Set };
        command =
            command.arg(clap::Arg::new(key.name).long(key.name).value_name(key.value).help(key.help).action(action));
    }
    command.arg(clap::Arg::new("config").long("config").value_name("FILE").help("TOML file with these settings")).arg(
        clap::Arg::new("print-config")
            .long("print-config")
            .action(clap::ArgAction::SetTrue)
            .help("Print the resulting configuration as TOML and exit"),
    )
}

fn read_file(path: &Path, values: &mut BTreeMap<&'static str, (String, Source)>, faults: &mut Vec<String>) {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return faults.push(format!("config: cannot read {}: {error}", path.display())),
    };
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => return faults.push(format!("config: {} is no TOML: {error}", path.display())),
    };
    for (name, value) in table {
        let Some(key) = KEYS.iter().find(|key| key.name.replace('-', "_") == name) else {
            faults.push(format!("{name}: unknown key in {}; --help lists all", path.display()));
            continue;
        };
        match text_of(&value) {
            Some(text) => drop(values.insert(key.name, (text, Source::File))),
            None => faults.push(format!("{name}: must be a text, a number or a list of texts in {}", path.display())),
        }
    }
}

fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Array(items) => {
            let items: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            Some(items?.join(","))
        }
        toml::Value::Float(_) | toml::Value::Boolean(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

/// The values while they are checked.
struct Checker<'a> {
    values: BTreeMap<&'static str, (String, Source)>,
    faults: &'a mut Vec<String>,
}

impl Checker<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(text, _)| text.as_str()).filter(|text| !text.is_empty())
    }

    fn parsed<T>(&mut self, name: &'static str, what: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.text(name)?.to_owned();
        let parsed = parse(&text);
        if parsed.is_none() {
            self.faults.push(format!("{name}: `{text}` is not {what}"));
        }
        parsed
    }

    fn millis(&mut self, name: &'static str, from: u64, to: u64) -> Option<Duration> {
        let what = format!("a number of milliseconds from {from} to {to}");
        let parse = |text: &str| text.parse().ok().filter(|value| (from..=to).contains(value));
        self.parsed(name, &what, parse).map(Duration::from_millis)
    }

    fn absolute(&mut self, name: &'static str) -> Option<PathBuf> {
        self.parsed(name, "an absolute path", |text| Path::new(text).is_absolute().then(|| PathBuf::from(text)))
    }

    fn declared<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Vec<E>>,
    ) -> Option<T> {
        match parse(self.text(name).unwrap_or_default()) {
            Ok(value) => Some(value),
            Err(found) => {
                self.faults.extend(found.iter().map(|fault| format!("{name}: {fault}")));
                None
            }
        }
    }
}

impl Config {
    fn check(values: BTreeMap<&'static str, (String, Source)>, faults: &mut Vec<String>) -> Self {
        let mut checker = Checker { values, faults };
        let default_work_dir = PathBuf::from("/var/lib/muster-agent");
        let work_dir = checker.absolute("work-dir").unwrap_or_else(|| default_work_dir.clone());
        let default_runtime_dir =
            if work_dir == default_work_dir { PathBuf::from("/run/muster-agent") } else { work_dir.join("run") };
        let control_plane: Vec<String> = checker
            .text("control-plane")
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|address| !address.is_empty())
            .map(str::to_owned)
            .collect();
        for address in control_plane.iter().filter(|address| !is_host_and_port(address)) {
            checker.faults.push(format!("control-plane: `{address}` is not HOST:PORT, e.g. cp.example.org:5055"));
        }
        let join = checker.parsed("join", "a join token of the form PIN.SECRET", |text| {
            crate::join::Token::parse(text).ok().map(|_| text.to_owned())
        });
        let mut config = Self {
            control_plane,
            join,
            runtime_dir: checker.absolute("runtime-dir").unwrap_or(default_runtime_dir),
            resources: checker.declared("resources", parse_resources).unwrap_or_default(),
            attributes: checker.declared("attributes", parse_attributes).unwrap_or_default(),
            hostname: checker.text("hostname").map(str::to_owned),
            ip: checker.parsed("ip", "an IPv4 or IPv6 address", |text| text.parse().ok()),
            port: checker
                .parsed("port", "a number from 1 to 65535", |text| text.parse().ok().filter(|port| *port > 0))
                .unwrap_or(5051),
            bind: checker.parsed("bind", "ADDRESS:PORT", |text| text.parse().ok()),
            cgroup_parent: checker
                .parsed("cgroup-parent", "a path of groups without . and ..", |text| {
                    is_group_path(text).then(|| text.to_owned())
                })
                .unwrap_or_else(|| "muster".to_owned()),
            cgroup_controllers: Controllers::all(),
            report_interval: checker.millis("report-interval-ms", 100, 3_600_000),
            kill_grace: checker.millis("kill-grace-ms", 0, 3_600_000).unwrap_or(Duration::from_secs(3)),
            update_retry: checker.millis("update-retry-ms", 100, 600_000).unwrap_or(Duration::from_secs(10)),
            reconnect: checker.millis("reconnect-ms", 10, 60_000).unwrap_or(Duration::from_millis(100)),
            reconnect_max: checker.millis("reconnect-max-ms", 100, 600_000).unwrap_or(Duration::from_secs(15)),
            keep_alive: checker.millis("keep-alive-ms", 500, 60_000).unwrap_or(Duration::from_secs(12)),
            idle_timeout: checker.millis("idle-timeout-ms", 1000, 300_000).unwrap_or(Duration::from_secs(25)),
            log: checker
                .parsed("log", "one of error, warn, info, debug, trace", |text| text.parse().ok())
                .unwrap_or(tracing::Level::INFO),
            shown: Vec::new(),
            work_dir,
        };
        if let Some(list) = checker.text("cgroup-controllers") {
            match Controllers::parse(list) {
                Ok(controllers) => config.cgroup_controllers = controllers,
                Err(error) => checker.faults.push(format!("cgroup-controllers: {error}")),
            }
        }
        if config.idle_timeout < config.keep_alive * 2 {
            let (idle, alive) = (config.idle_timeout.as_millis(), config.keep_alive.as_millis());
            checker.faults.push(format!("idle-timeout-ms: {idle} is less than twice keep-alive-ms ({alive})"));
        }
        config.shown = config.shown_values(&checker.values);
        config
    }

    fn shown_values(&self, given: &BTreeMap<&'static str, (String, Source)>) -> Vec<(&'static str, String, Source)> {
        let millis = |duration: Duration| duration.as_millis().to_string();
        let default_of = |name: &str| match name {
            "work-dir" => Some(self.work_dir.display().to_string()),
            "runtime-dir" => Some(self.runtime_dir.display().to_string()),
            "port" => Some(self.port.to_string()),
            "cgroup-parent" => Some(self.cgroup_parent.clone()),
            "kill-grace-ms" => Some(millis(self.kill_grace)),
            "update-retry-ms" => Some(millis(self.update_retry)),
            "reconnect-ms" => Some(millis(self.reconnect)),
            "reconnect-max-ms" => Some(millis(self.reconnect_max)),
            "keep-alive-ms" => Some(millis(self.keep_alive)),
            "idle-timeout-ms" => Some(millis(self.idle_timeout)),
            "log" => Some(self.log.to_string().to_lowercase()),
            _ => None,
        };
        let shown = |key: &Key| match given.get(key.name) {
            Some((text, source)) => Some((key.name, text.clone(), *source)),
            None => default_of(key.name).map(|text| (key.name, text, Source::Default)),
        };
        KEYS.iter().filter_map(shown).collect()
    }

    /// The configuration as a file that gives the same one; the join token is left out.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for (name, value, source) in &self.shown {
            let key = name.replace('-', "_");
            let line = match *name {
                SECRET => format!("# {key} is set; a token is not printed"),
                "control-plane" => {
                    let items: Vec<String> = self.control_plane.iter().map(|address| quoted(address)).collect();
                    format!("{key} = [{}]", items.join(", "))
                }
                _ if value.parse::<u64>().is_ok() => format!("{key} = {value}"),
                _ => format!("{key} = {}", quoted(value)),
            };
            let note = match source {
                Source::Default => "  # default",
                Source::File => "  # file",
                Source::Variable => "  # variable",
                Source::Flag => "  # flag",
            };
            text.push_str(&line);
            text.push_str(note);
            text.push('\n');
        }
        text
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            control if control.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(control))),
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

fn is_host_and_port(text: &str) -> bool {
    let has_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && has_port(port))
}

fn is_group_path(text: &str) -> bool {
    let mut parts = text.split('/').filter(|part| !part.is_empty()).peekable();
    parts.peek().is_some() && parts.all(|part| part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Asked, ConfigFaults> {
        let arguments: Vec<_> =
            std::iter::once("muster-agent").chain(arguments.iter().copied()).map(Into::into).collect();
        read(&arguments, |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Config {
        match ask(arguments, variables).unwrap() {
            Asked::Run(config) => *config,
            Asked::Print(text) => panic!("{text}"),
        }
    }

    #[test]
    fn flags_win_over_variables_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        std::fs::write(&file, "port = 1\nhostname = \"file\"\nkill_grace_ms = 7\ncontrol_plane = [\"a:1\", \"b:2\"]\n")
            .unwrap();
        let file = file.to_str().unwrap();
        let config = run(&["--port", "3", "--config", file], &[("MUSTER_PORT", "2"), ("MUSTER_HOSTNAME", "variable")]);
        assert_eq!((config.port, config.hostname.as_deref()), (3, Some("variable")));
        assert_eq!(config.kill_grace, Duration::from_millis(7));
        assert_eq!(config.control_plane, ["a:1", "b:2"]);
        let config = run(&["--control-plane", "x:1", "--control-plane", "y:2,z:3"], &[("MUSTER_CONFIG", file)]);
        assert_eq!((config.port, config.control_plane.join(" ").as_str()), (1, "x:1 y:2 z:3"));
    }

    #[test]
    fn every_fault_is_reported_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        std::fs::write(&file, "prot = 1\nip = 1.5\n").unwrap();
        let arguments = [
            "--config",
            file.to_str().unwrap(),
            "--port",
            "0",
            "--work-dir",
            "relative",
            "--resources",
            "cpus;mem:x",
            "--attributes",
            "a",
            "--cgroup-parent",
            "../x",
            "--cgroup-controllers",
            "cpu,memroy",
            "--join",
            "nonsense",
            "--control-plane",
            "nohost",
            "--keep-alive-ms",
            "20000",
            "--log",
            "loud",
            "--bind",
            "x",
        ];
        let faults = ask(&arguments, &[("MUSTER_KILL_GRACE_MS", "soon")]).unwrap_err();
        let text = faults.to_string();
        for key in [
            "prot:",
            "ip:",
            "port:",
            "work-dir:",
            "resources: `cpus`",
            "resources: `mem:x`",
            "attributes:",
            "cgroup-parent:",
            "cgroup-controllers:",
            "join:",
            "control-plane:",
            "idle-timeout-ms:",
            "log:",
            "bind:",
            "kill-grace-ms:",
        ] {
            assert!(text.contains(key), "{key} in {text}");
        }
        assert_eq!(faults.0.len(), 15, "{text}");
        assert!(ask(&["--no-such-flag"], &[]).is_err());
    }

    #[test]
    fn the_printed_configuration_gives_the_same_one() {
        let dir = tempfile::tempdir().unwrap();
        let arguments = ["--port", "77", "--attributes", "a:\"b\\", "--control-plane", "a:1,b:2", "--print-config"];
        let Ok(Asked::Print(first)) = ask(&arguments, &[]) else { panic!("not printed") };
        let file = dir.path().join("agent.toml");
        std::fs::write(&file, &first).unwrap();
        let Ok(Asked::Print(second)) = ask(&["--config", file.to_str().unwrap(), "--print-config"], &[]) else {
            panic!("not printed")
        };
        let plain =
            |text: &str| text.lines().map(|line| line.split("  #").next().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(plain(&first), plain(&second));
        let token = format!("{}.secret", "ab".repeat(32));
        let Ok(Asked::Print(text)) = ask(&["--join", &token, "--print-config"], &[]) else { panic!("not printed") };
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn the_runtime_directory_follows_the_work_directory() {
        assert_eq!(run(&[], &[]).runtime_dir, Path::new("/run/muster-agent"));
        assert_eq!(run(&["--work-dir", "/x"], &[]).runtime_dir, Path::new("/x/run"));
        assert!(matches!(ask(&["--help"], &[]), Ok(Asked::Print(text)) if text.contains("--cgroup-controllers")));
    }
}
