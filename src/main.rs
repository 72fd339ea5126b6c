//! The `hoist` binary: parses, logs, and turns the result into an exit code.

use std::io::Write;
use std::process::ExitCode;

use hoist::base::error::{self, Error};
use hoist::base::log;
use hoist::cli::{self, Cli};

fn main() -> ExitCode {
    // A release build would end by SIGABRT here, with a code that no table has.
    std::panic::set_hook(Box::new(|info| {
        let _ = writeln!(std::io::stderr(), "hoist: {}", error::mistake(info));
        std::process::exit(1);
    }));
    let cli = Cli::from_env();
    let format = cli.log_format;
    log::init(&cli.log_level, format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(cli::run(cli, &mut std::io::stdout())),
        Err(error) => Err(Error::failed("start", error)),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log::last_word(&mut std::io::stderr(), format, &error);
            ExitCode::from(error.exit_code())
        }
    }
}
