//! The `ironkeel` binary: the command line, and the shim of a pod when it is run as one.

mod commands;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    // A pod's shim is single-threaded and small: nothing of the rest is started for it.
    if args.next().is_some_and(|first| first == "shim") {
        return ExitCode::from(ironkeel_runtime::shim_main(args) as u8);
    }
    commands::run()
}
