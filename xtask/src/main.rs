//! Code generation, tidiness, images, conformance, fuzzing.

mod codegen;
mod codegen_columns;
mod codegen_grpc;
mod codegen_rbac;
mod conformance;
mod fuzz;
mod images;
mod tidy;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Tasks of the Ironkeel repository")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Write the generated tables from the API's facts.
    Codegen {
        /// Fail when a committed table differs, instead of writing.
        #[arg(long)]
        check: bool,
    },
    /// Check crate arrows, module documentation, lints and `unsafe`.
    Tidy,
    /// Pack the example's and the tests' images as OCI archives.
    Images {
        /// Where the archives go.
        #[arg(long, default_value = "target/images")]
        out: PathBuf,
    },
    /// Run upstream's end-to-end suite against a cluster of ours, and write docs/conformance.md
    Conformance(conformance::Conformance),
    /// Run the coverage-guided fuzzers of fuzz/ for a time each
    Fuzz(fuzz::Fuzz),
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Codegen { check } => codegen::run(&root(), check),
        Task::Tidy => tidy::run(&root()),
        Task::Images { out } => images::run(&root(), &out),
        Task::Conformance(task) => conformance::run(&root(), &task),
        Task::Fuzz(task) => fuzz::run(&root(), &task),
    }
}
