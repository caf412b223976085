//! The binary; everything is in [`citadel_agent::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    citadel_agent::cli::main(std::env::args_os())
}
