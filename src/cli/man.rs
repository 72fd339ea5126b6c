//! `hoist man`

use std::io::Write;
use std::path::PathBuf;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::base::error::{EXIT_CODES, Error, Result};
use crate::base::files::{self, File};

/// `hoist man`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder to write the pages of hoist and of all its commands to, such as /usr/local/share/man/man1
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let mut hoist = super::Cli::command().disable_help_subcommand(true);
    // Gives the commands their whole names.
    hoist.build();
    let Some(dir) = &args.output_dir else {
        return super::print(out, &page(&hoist, "hoist")?);
    };
    files::make_dir(dir, 0o755)?;
    let mut pages = Vec::new();
    collect(&hoist, "hoist", &mut pages)?;
    for (name, text) in pages {
        files::write(&dir.join(format!("{name}.1")), &File::public(text))?;
    }
    Ok(())
}

/// The pages of a command and of those below it.
fn collect(command: &Command, name: &str, pages: &mut Vec<(String, String)>) -> Result<()> {
    pages.push((name.to_owned(), page(command, name)?));
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        collect(below, &format!("{name}-{}", below.get_name()), pages)?;
    }
    Ok(())
}

/// One page, in roff.
fn page(command: &Command, name: &str) -> Result<String> {
    let failed = |error| Error::failed("make the man page", error);
    let mut text = Vec::new();
    // No date: what was built from the same source is the same. It keeps its place, as an empty word.
    let man = Man::new(command.clone()).title(name.to_uppercase()).date(r#""""#);
    let man = man.source(concat!("hoist ", env!("CARGO_PKG_VERSION"))).manual("hoist");
    man.render(&mut text).map_err(failed)?;
    if name == "hoist" {
        exit_codes().to_writer(&mut text).map_err(failed)?;
    }
    String::from_utf8(text).map_err(|error| Error::failed("make the man page", error))
}

fn exit_codes() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in EXIT_CODES {
        roff.control("TP", []);
        roff.text([bold(code)]);
        roff.text([roman(meaning.replace('`', ""))]);
    }
    roff
}
