//! Operator's command line over the HTTP API, and `muster up`.

mod api;
mod arguments;
mod away;
mod endpoints;
mod find;
mod interrupt;
mod lists;
mod logs;
mod moment;
mod output;
mod reactivate;
mod run;
mod table;
mod tokens;
mod up;
mod why;
mod words;

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;
use arguments::{AgentsCommand, Arguments, Command, TasksCommand};
use clap::error::ErrorKind;
use find::FindError;
use lists::Kind;

/// What was said on the command line is not good (sysexits.h, EX_USAGE).
const WRONG_ARGUMENTS: u8 = 64;

fn main() -> ExitCode {
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    // A run's own status must be told from Muster's.
    let failure = match arguments.command {
        Command::Run(_) => run::OWN_ERROR,
        _ => 1,
    };
    match execute(arguments) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            say(&format!("error: {}", chain(error.as_ref())));
            let is_unclear = |cause: &(dyn Error + 'static)| {
                matches!(cause.downcast_ref::<FindError>(), Some(FindError::Several { .. }))
            };
            ExitCode::from(if error.chain().any(is_unclear) { WRONG_ARGUMENTS } else { failure })
        }
    }
}

fn refuse(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ if std::env::args().any(|argument| argument == "run") => ExitCode::from(run::OWN_ERROR),
        _ => ExitCode::from(WRONG_ARGUMENTS),
    }
}

fn execute(arguments: Arguments) -> anyhow::Result<u8> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the async runtime")?;
    runtime.block_on(async {
        let api = || api::Api::new(&arguments.url);
        let text = match &arguments.command {
            Command::Up(options) => return up::up(options).await.map(|()| 0).map_err(Into::into),
            Command::Down(options) => return up::down(options).await.map(|()| 0).map_err(Into::into),
            Command::Run(options) => return run::run(&api()?, options).await.map_err(Into::into),
            Command::Agents(agents) => match &agents.command {
                None => lists::list(&api()?, Kind::Agents, agents.list).await?,
                Some(AgentsCommand::Deactivate { id }) => {
                    endpoints::deactivate_agent(&api()?, id).await?;
                    format!("no offers are made on agent {id}; its tasks run on\n")
                }
                Some(AgentsCommand::Reactivate { id }) => reactivate::reactivate(&api()?, id).await?,
                Some(AgentsCommand::Revoke { id }) => {
                    endpoints::revoke_agent(&api()?, id).await?;
                    format!("agent {id} is revoked; its tasks count as lost once the agent timeout is over\n")
                }
            },
            Command::Frameworks(list) => lists::list(&api()?, Kind::Frameworks, *list).await?,
            Command::Offers(list) => lists::list(&api()?, Kind::Offers, *list).await?,
            Command::Nodes(list) => lists::list(&api()?, Kind::Nodes, *list).await?,
            Command::Shards(list) => lists::list(&api()?, Kind::Shards, *list).await?,
            Command::Roles(list) => lists::list(&api()?, Kind::Roles, *list).await?,
            Command::Tasks(tasks) => match &tasks.command {
                None => lists::list(&api()?, Kind::Tasks, tasks.list).await?,
                Some(TasksCommand::Logs(options)) => {
                    return logs::logs(&api()?, options).await.map(|()| 0).map_err(Into::into);
                }
            },
            Command::Why(options) => why::why(&api()?, options).await?,
            Command::Tokens(options) => tokens::tokens(&api()?, &options.command).await?,
        };
        match io::stdout().write_all(text.as_bytes()) {
            // A reader that has seen enough, as in `muster tasks | head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
            other => other.map(|()| 0).context("cannot write to standard output"),
        }
    })
}

/// Says something to the user without disturbing what goes to standard output.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// An error and what caused it, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        // An error that only passes on another says the same again.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}
