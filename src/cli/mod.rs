//! The command line.
//!
//! Owns the tree of commands, which is a contract (names, flags, exit codes, `--json`): scripts rely
//! on it. `serve` runs the daemon in this process, `fsck` reads the stores of one that
//! does not run, `storm` is a client of any NFS server; every other command is a client of the admin API.
//!
//! Invariants: with `--json` exactly one document goes to standard output; progress and errors go to
//! standard error. Exit 0: done, 1: failed, 2: not understood.
//!
//! Failure story: one line that says what was wrong, with which object, and what to do.

mod activation;
mod audit;
mod client;
mod clone;
mod diff;
mod fsck;
mod image;
mod operations;
mod output;
mod pins;
mod progress;
mod repoint;
mod serve;
mod snapshot;
mod status;
mod storm;
mod trace;
mod warm;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use self::client::{AdminAddr, Client};
use self::output::Output;
use self::trace::TraceCommand;

/// A NAS that clones images.
#[derive(Parser)]
#[command(name = "mimeo", version, about, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Args, Clone)]
struct Global {
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    json: bool,
    /// Where the daemon's admin API is [default: admin.sock in the data directory]
    #[arg(long, global = true, env = "MIMEO_ADMIN", value_name = "unix:PATH")]
    admin: Option<AdminAddr>,
    /// The daemon's data directory
    #[arg(long, global = true, env = "MIMEO_DATA", value_name = "DIR", default_value = "/var/lib/mimeo")]
    data: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon: serve NFS and the admin API until SIGTERM
    Serve(serve::Serve),
    /// Golden images and their versions
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Clones: writable folders made from a version
    #[command(subcommand)]
    Clone(clone::CloneCommand),
    /// Switch clones of an image to another of its versions, in one transaction
    Repoint(repoint::Repoint),
    /// List operations, show one, pause, resume or abort it
    Ops(operations::Ops),
    /// Let the clones of an operation show again what they showed before it
    Rollback(operations::Rollback),
    /// List the former views of clones that stay readable, or drop them
    Pins(pins::Pins),
    /// Record what clients do with a clone; show a recording
    #[command(subcommand)]
    Trace(trace::TraceCommand),
    /// Bring a version, or what a recording read of it, into the daemon's cache
    Warm(warm::Warm),
    /// Show who changed what, when and from where
    Audit(audit::Audit),
    /// Show what the store, its disk and the cache hold
    Df,
    /// Put an NFSv3 server, ours or another's, under the load of thousands of clients
    Storm(Box<storm::Storm>),
    /// Check the store in the data directory, while no daemon runs on it
    Fsck(fsck::Fsck),
}

/// Run the program on the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut output = Output::new(cli.global.json);
    let outcome = match cli.command {
        Command::Serve(serve) => serve::run(serve, &cli.global),
        Command::Fsck(fsck) => fsck::run(fsck, &cli.global, &mut output),
        Command::Storm(storm) => storm::run(*storm, &cli.global, &mut output),
        Command::Trace(trace::TraceCommand::Show { file }) => trace::show(&file, &mut output),
        command => call(command, &cli.global, &mut output),
    };
    match outcome.and_then(|()| output.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has had enough of it (`mimeo clone ls | head`).
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mimeo: {}", explain(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes. An error of ours prints its causes itself, so some are there already.
fn explain(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

/// Run a command that asks the daemon.
fn call(command: Command, global: &Global, output: &mut Output) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut client = Client::connect(global).await?;
        match command {
            Command::Serve(_) | Command::Fsck(_) | Command::Storm(_) | Command::Trace(TraceCommand::Show { .. }) => {
                unreachable!("they need no daemon")
            }
            Command::Image(command) => image::run(command, &mut client, output).await,
            Command::Clone(command) => clone::run(command, &mut client, output).await,
            Command::Repoint(command) => repoint::run(command, &mut client, output).await,
            Command::Rollback(rollback) => operations::roll_back(rollback, &mut client, output).await,
            Command::Ops(command) => operations::run(command, &mut client, output).await,
            Command::Pins(command) => pins::run(command, &mut client, output).await,
            Command::Trace(TraceCommand::Record { clone, out, length, client: text }) => {
                trace::record((&clone, out), (length, &text), global, output).await
            }
            Command::Warm(command) => warm::run(command, &mut client, output).await,
            Command::Audit(command) => audit::run(command, &mut client, output).await,
            Command::Df => status::df(&mut client, output).await,
        }
    })
}

/// End with what clap ends with when it does not understand the arguments itself.
fn misused(message: &str) -> ! {
    use clap::CommandFactory;
    Cli::command().error(clap::error::ErrorKind::MissingRequiredArgument, message).exit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
    }
}
