//! What can be said on the command line, and its help.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

/// Works with a Muster cluster: runs commands on it, shows what is there and why, starts one on this machine.
#[derive(Debug, Parser)]
#[command(name = "muster", version, propagate_version = true, max_term_width = 110)]
#[command(after_help = "Start with `muster up`, then `muster run -- echo hello`.")]
pub(crate) struct Arguments {
    /// Where the control plane answers HTTP; several nodes separated by commas: the next is asked when one does not answer
    #[arg(long, global = true, env = "MUSTER_URL", default_value = "http://127.0.0.1:5050", value_name = "URL")]
    pub(crate) url: String,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    /// This program's own arguments.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        Self::understand(definition(), std::env::args_os())
    }

    fn understand<T: Into<OsString> + Clone>(
        mut definition: clap::Command,
        line: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let mut matches = definition.try_get_matches_from_mut(line)?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut definition))
    }
}

/// The whole definition, with the usage of every command written down.
///
/// In an error clap makes up a usage of what was given and what is missing, as if all of that were required: even `--url`,
/// when MUSTER_URL is set.
fn definition() -> clap::Command {
    fn with_usage(command: clap::Command, whole: &mut clap::Command) -> clap::Command {
        let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
        let usage = whole.render_usage().to_string();
        let command = command.override_usage(usage.trim_start_matches("Usage:").trim_start().to_owned());
        names.into_iter().fold(command, |command, name| match whole.find_subcommand_mut(&name) {
            Some(whole) => command.mut_subcommand(name, |inner| with_usage(inner, whole)),
            None => command,
        })
    }
    let mut whole = Arguments::command();
    whole.build();
    with_usage(Arguments::command(), &mut whole)
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a control plane and agents on this machine, and run a first task
    Up(Up),
    /// Stop what `up` started, by recorded process id
    Down(Down),
    /// Run a command on the cluster; its output and exit status become those of this program
    ///
    /// Exit status: as the command's; 128 + N when signal N ended it; 124 when the task was lost or became unreachable
    /// (it is then killed, once its agent is back); 125 when Muster itself failed. The command's stdout comes out on
    /// stdout, all else on stderr. Ctrl-C kills it.
    Run(Run),
    /// List the agents; stop offers on one, let them be made again, or revoke it
    #[command(args_conflicts_with_subcommands = true)]
    Agents(Agents),
    /// List the frameworks
    Frameworks(List),
    /// List the open offers
    Offers(List),
    /// List the tasks, or read what one has written
    #[command(args_conflicts_with_subcommands = true)]
    Tasks(Tasks),
    /// List the control-plane nodes
    Nodes(List),
    /// List the shards: which node acts for which slice of the agents, since when and why
    Shards(List),
    /// List the roles: who shares the resources, and how
    Roles(List),
    /// Show the last decisions on a framework, a task or an agent, and the reasons
    Why(Why),
    /// Make, list and revoke the tokens that let machines join
    Tokens(Tokens),
}

/// How a list is shown.
#[derive(Debug, Args, Clone, Copy)]
pub(crate) struct List {
    /// A table for people, or JSON for programs
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Show every column and every field whole, however long the lines become
    #[arg(long, short)]
    pub(crate) wide: bool,
}

/// The form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Columns that fit the terminal
    Table,
    /// All that is known, as the API gives it
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Where all state and logs go
    #[arg(long, default_value = ".muster", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Address of the HTTP API, whose port is kept once the cluster has begun. Default 127.0.0.1:5050
    #[arg(long, value_name = "IP:PORT", value_parser = address)]
    pub(crate) listen: Option<SocketAddr>,
    /// UDP address for agents, kept likewise. Default: the host of --listen, the port 5 above; 0.0.0.0:5055 lets other
    /// machines join
    #[arg(long, value_name = "IP:PORT", value_parser = address)]
    pub(crate) quic: Option<SocketAddr>,
    /// Number of agents, fixed when the cluster begins: each declares its part of the machine. Default 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) agents: Option<u16>,
    /// Number of control-plane nodes; more than one keep their store in an etcd that is started, too. Default 1
    ///
    /// The nodes' ports are 10 apart: HTTP 5050, 5060, …; agents 5055, 5065, …
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) nodes: Option<u16>,
    /// Return once everything runs, and leave it running
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Down {
    /// The directory given to `up`
    #[arg(long, default_value = ".muster", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Leave the tasks running; `up` with the same directory finds them again
    #[arg(long)]
    pub(crate) keep_tasks: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Processors, 0.001 at least
    #[arg(long, default_value_t = 0.1, value_name = "N", value_parser = amount, allow_negative_numbers = true)]
    pub(crate) cpus: f64,
    /// Memory in MiB
    #[arg(long, default_value_t = 32.0, value_name = "MIB", value_parser = amount, allow_negative_numbers = true)]
    pub(crate) mem: f64,
    /// Disk in MiB
    #[arg(long, value_name = "MIB", value_parser = amount, allow_negative_numbers = true)]
    pub(crate) disk: Option<f64>,
    /// The role whose share is used
    #[arg(long, default_value = "*")]
    pub(crate) role: String,
    /// The task's name. Default: the command's first word
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The user the command runs as. Default: the user who calls
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// An environment variable for the command; may be given again
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// Time between asking the command to end and killing it, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = amount)]
    pub(crate) grace: Option<f64>,
    /// Wait for an agent that is large enough, where none is; without it that ends with 125 at once
    ///
    /// A run always waits for agents that are busy, and for the first agent of a cluster that has none.
    #[arg(long)]
    pub(crate) wait: bool,
    /// The command and its arguments, run without a shell
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Agents {
    #[command(flatten)]
    pub(crate) list: List,
    #[command(subcommand)]
    pub(crate) command: Option<AgentsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentsCommand {
    /// Stop offers on an agent; its tasks run on
    Deactivate {
        /// The agent's id, as listed
        id: String,
    },
    /// Let offers be made on an agent again, also on one whose disk was rolled back
    Reactivate {
        /// The agent's id, as listed
        id: String,
    },
    /// End an agent's certificate: its session closes and it never comes back under this id
    Revoke {
        /// The agent's id, as listed
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Tasks {
    #[command(flatten)]
    pub(crate) list: List,
    #[command(subcommand)]
    pub(crate) command: Option<TasksCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TasksCommand {
    /// Read what a task has written, through the agent's own connection
    Logs(Logs),
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The task's id, or its name where one task only has it
    #[arg(value_name = "TASK")]
    pub(crate) task: String,
    /// The framework's id, where two frameworks have a task of this id or name
    #[arg(long, value_name = "ID")]
    pub(crate) framework: Option<String>,
    /// Go on as the task writes, until it ends
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only this file of the sandbox. Default: stdout on stdout, stderr on stderr
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Why {
    /// The id of a framework, a task or an agent, or a task's name where one task only has it
    #[arg(value_name = "FRAMEWORK|TASK|AGENT")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) list: List,
}

#[derive(Debug, Args)]
pub(crate) struct Tokens {
    #[command(subcommand)]
    pub(crate) command: TokensCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokensCommand {
    /// Make a token and show it, once
    Create {
        /// Name for people. Default: one is made up
        #[arg(long)]
        name: Option<String>,
        /// How many machines may join with it; 0 for any number
        #[arg(long, default_value_t = 1, value_name = "N")]
        uses: u32,
        /// How long it may be used, in seconds; 0 for ever
        #[arg(long, default_value_t = 86_400, value_name = "SECONDS")]
        valid_secs: u64,
        #[command(flatten)]
        list: List,
    },
    /// List the tokens; their secrets are not kept
    List(List),
    /// End a token; agents that have joined with it stay
    Revoke {
        /// The token's name, as listed
        name: String,
    },
}

fn amount(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.001..=1e9).contains(&number) => Ok(number),
        Ok(_) => Err("must be from 0.001 to 1000000000".to_owned()),
        Err(_) => Err("must be a number".to_owned()),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be IP:PORT, such as 127.0.0.1:5050".to_owned())
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound_and_every_argument_has_help() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{}: {} has no help", command.get_name(), argument.get_id());
            }
            for command in command.get_subcommands() {
                assert!(command.get_about().is_some(), "{} has no help", command.get_name());
                check(command);
            }
        }
        definition().debug_assert();
        check(&definition());
    }

    #[test]
    fn usage_shows_options_as_such_whatever_was_given() {
        for (line, expected) in [
            ("muster --help", "muster [OPTIONS] <COMMAND>"),
            ("muster", "muster [OPTIONS] <COMMAND>"),
            ("muster nonsense", "muster [OPTIONS] <COMMAND>"),
            ("muster tasks --help", "muster tasks [OPTIONS]\n       muster tasks <COMMAND>"),
            ("muster tasks logs --help", "muster tasks logs [OPTIONS] <TASK>"),
            ("muster tasks logs --url http://h:1 --follow", "muster tasks logs [OPTIONS] <TASK>"),
            ("muster why --url http://h:1", "muster why [OPTIONS] <FRAMEWORK|TASK|AGENT>"),
            ("muster run --url http://h:1 --cpus 1", "muster run [OPTIONS] <COMMAND>..."),
            ("muster run --cpu 1 -- true", "muster run [OPTIONS] <COMMAND>..."),
            ("muster tokens revoke --url http://h:1", "muster tokens revoke [OPTIONS] <NAME>"),
        ] {
            let error = Arguments::understand(definition(), line.split(' ')).unwrap_err().to_string();
            assert!(error.contains(&format!("Usage: {expected}\n")), "case: {line}: {error}");
        }
    }

    #[test]
    fn command_lines_are_understood_or_refused() {
        for (line, is_good) in [
            ("muster run -- sh -c true", true),
            ("muster run --cpus 0.1 --mem 32 sh -c true", true),
            ("muster run --env A=b=c -- env", true),
            ("muster run --env =x -- env", false),
            ("muster run --cpus 0 -- env", false),
            ("muster run --cpus nan -- env", false),
            ("muster run --mem -1 -- env", false),
            ("muster run", false),
            ("muster run --cpu 1 -- true", false),
            ("muster run -x true", false),
            ("muster run sh -c --help", true),
            ("muster run -- --odd-name -x", true),
            ("muster agents --output json", true),
            ("muster agents -o yaml", false),
            ("muster agents deactivate a1", true),
            ("muster agents reactivate", false),
            ("muster tasks", true),
            ("muster tasks --output json", true),
            ("muster tasks logs t1 --follow", true),
            ("muster up --agents 0", false),
            ("muster up --nodes 2", true),
            ("muster up --nodes 0", false),
            ("muster nodes --wide", true),
            ("muster shards -o json", true),
            ("muster run --wait --cpus 100 -- true", true),
            ("muster up --agents 3 --listen 127.0.0.1:0 --detach --dir x", true),
            ("muster up --listen localhost", false),
            ("muster down --dir x", true),
            ("muster --url http://h:1 why x", true),
            ("muster why x --url http://h:1", true),
            ("muster tokens create --uses 3", true),
            ("muster tokens revoke x", true),
            ("muster tokens", false),
        ] {
            let understood = Arguments::understand(definition(), line.split(' '));
            assert_eq!(understood.is_ok(), is_good, "case: {line}");
        }
    }
}
