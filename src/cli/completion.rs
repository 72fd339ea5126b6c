//! `hoist completion`

use std::io::Write;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::base::error::Result;

/// `hoist completion`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell; `source <(hoist completion bash)` loads the script, or write it to the shell's folder of completions
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: Args, out: &mut dyn Write) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut shown(&super::Cli::command()), "hoist", &mut text);
    super::print(out, &String::from_utf8_lossy(&text))
}

/// The command line without what is hidden, which clap_complete would offer.
fn shown(hoist: &Command) -> Command {
    let commands = hoist.get_subcommands().filter(|command| !command.is_hide_set());
    Command::new("hoist")
        .version(env!("CARGO_PKG_VERSION"))
        .args(hoist.get_arguments().cloned())
        .subcommands(commands.cloned())
}
