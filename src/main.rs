//! The `hoist` binary: parses, logs, and turns the result into an exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use hoist::cli::{self, Cli};
use hoist::error::Error;

fn main() -> ExitCode {
    // kube makes its TLS connections with the process's default provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(format!("hoist={}", cli.log_level)))
        .with_ansi(false)
        // Where standard error is closed, there is nobody to tell that it is.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(cli::run(cli.command, &mut std::io::stdout())),
        Err(error) => Err(Error::failed("start", error)),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(std::io::stderr(), "hoist: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
