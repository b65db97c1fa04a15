//! `cargo xtask fuzz`: the targets of `fuzz/`, built with coverage and run for a time each.
//!
//! libFuzzer by the stable toolchain: the compiler's own coverage pass is switched on by flags, so neither nightly nor
//! cargo-fuzz is needed, but a C++ compiler for libFuzzer itself. What an input found is kept beside the build, so
//! each run starts where the last one ended; the committed seeds come first. A finding is printed in base64 and fails
//! the task. A target that did not run, or ran without coverage, fails it too.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use clap::Args;
use parking_lot::Mutex;

/// What makes the compiler count edges and comparisons for libFuzzer.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares";
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// Most memory of one target, in MiB: an API server with its store takes some 200.
const MEMORY_MIB: u32 = 2_048;
/// Most time for one input, in seconds.
const INPUT_SECONDS: u32 = 20;
/// Longest input, in bytes.
const INPUT_BYTES: u32 = 8_192;
/// How long a target may take beyond its time: reading its corpus, and one slow input.
const GRACE: Duration = Duration::from_secs(120);
/// Inputs that are kept of a target; above it, all but the seeds is forgotten.
const KEPT_INPUTS: usize = 20_000;
/// Lines of a failed target's output that are shown.
const SHOWN_LINES: usize = 60;

/// Options of the task.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// Only these targets
    targets: Vec<String>,
    /// How long each runs, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many run at once
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Try the same inputs as any other run with this number: from the committed seeds alone, without what
    /// earlier runs found
    #[arg(long)]
    seed: Option<u32>,
    /// Folder of the build and of what was found so far
    #[arg(long, env = "IRONKEEL_FUZZ_TARGET", default_value = "fuzz/target")]
    target_dir: PathBuf,
}

/// What one target came to.
struct Outcome {
    name: String,
    runs: u64,
    edges: u64,
    memory_mib: u64,
    seconds: u64,
    failure: Option<String>,
}

/// Builds and runs.
pub(crate) fn run(root: &Path, task: &Fuzz) -> Result<()> {
    let fuzz = root.join("fuzz");
    let known = targets(&fuzz)?;
    for name in &task.targets {
        ensure!(known.contains(name), "no target {name}; there are {known:?}");
    }
    let wanted: VecDeque<String> =
        known.into_iter().filter(|n| task.targets.is_empty() || task.targets.contains(n)).collect();
    let target_dir = if task.target_dir.is_absolute() { task.target_dir.clone() } else { root.join(&task.target_dir) };
    build(root, &fuzz, &target_dir, &wanted)?;

    let queue = Mutex::new(wanted);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..task.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().pop_front();
                    let Some(name) = next else { return };
                    let outcome = attack(&fuzz, &target_dir, &name, task).unwrap_or_else(|error| {
                        let failure = Some(format!("{error:#}"));
                        Outcome { name, runs: 0, edges: 0, memory_mib: 0, seconds: 0, failure }
                    });
                    let Outcome { name, runs, edges, memory_mib, seconds, failure } = &outcome;
                    let word = if failure.is_some() { "FAILED" } else { "ok" };
                    println!("{name:>10}: {runs} inputs, {edges} edges, {memory_mib} MiB, {seconds} s, {word}");
                    outcomes.lock().push(outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner();
    let mut failed = Vec::new();
    for Outcome { name, failure, .. } in outcomes {
        if let Some(failure) = failure {
            println!("\n-- {name}\n{failure}");
            failed.push(name);
        }
    }
    ensure!(failed.is_empty(), "fuzzing found something: {}", failed.join(", "));
    Ok(())
}

/// The targets: every file of `fuzz_targets`, each of which the manifest has to name.
fn targets(fuzz: &Path) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(fuzz.join("fuzz_targets")).context("reading fuzz/fuzz_targets")? {
        let path = entry?.path();
        files.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).context("reading fuzz/Cargo.toml")?;
    for name in &files {
        ensure!(manifest.contains(&format!("\nname = \"{name}\"\n")), "fuzz/Cargo.toml has no [[bin]] {name}");
    }
    ensure!(!files.is_empty(), "fuzz/fuzz_targets is empty");
    Ok(files)
}

fn build(root: &Path, fuzz: &Path, target_dir: &Path, wanted: &VecDeque<String>) -> Result<()> {
    // The same versions of everything as the binary; what only the targets need is added by cargo.
    fs::copy(root.join("Cargo.lock"), fuzz.join("Cargo.lock")).context("copying Cargo.lock")?;
    let begun = Instant::now();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(fuzz).args(["build", "--quiet", "--release", "--target", TRIPLE]);
    wanted.iter().for_each(|name| _ = cargo.args(["--bin", name]));
    cargo.env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", target_dir).env_remove("CARGO_ENCODED_RUSTFLAGS");
    let status = cargo.status().context("running cargo")?;
    ensure!(status.success(), "the fuzz targets do not build (libFuzzer needs a C++ compiler: apt-get install g++)");
    println!("built {} targets in {} s", wanted.len(), begun.elapsed().as_secs());
    Ok(())
}

/// Runs one target for its time.
fn attack(fuzz: &Path, target_dir: &Path, name: &str, task: &Fuzz) -> Result<Outcome> {
    let seconds = task.seconds;
    let corpus = target_dir.join(if task.seed.is_some() { "seeded" } else { "corpus" }).join(name);
    let kept = if task.seed.is_some() { 0 } else { KEPT_INPUTS };
    if fs::read_dir(&corpus).is_ok_and(|entries| entries.count() > kept) {
        fs::remove_dir_all(&corpus).context("forgetting what was found")?;
    }
    fs::create_dir_all(&corpus).context("making the corpus' folder")?;
    let findings = target_dir.join("findings").join(name);
    // What an earlier run found is in nobody's way, but this run's findings are to be told from it.
    let _ = fs::remove_dir_all(&findings);
    fs::create_dir_all(&findings).context("making the findings' folder")?;
    let log_path = target_dir.join(format!("{name}.log"));
    let log = fs::File::create(&log_path).context("making the log")?;

    let begun = Instant::now();
    let mut command = Command::new(target_dir.join(TRIPLE).join("release").join(name));
    command.args([
        format!("-max_total_time={seconds}"),
        format!("-rss_limit_mb={MEMORY_MIB}"),
        format!("-timeout={INPUT_SECONDS}"),
        format!("-max_len={INPUT_BYTES}"),
        "-print_final_stats=1".to_owned(),
        format!("-artifact_prefix={}/", findings.display()),
    ]);
    if let Some(seed) = task.seed {
        let inputs = inputs_of(fuzz, name)?;
        command.args([format!("-seed={seed}"), format!("-runs={inputs}")]);
    }
    let words = fuzz.join("dictionaries").join(format!("{name}.dict"));
    if words.is_file() {
        command.arg(format!("-dict={}", words.display()));
    }
    command.arg(&corpus);
    let seeds = fuzz.join("seeds").join(name);
    ensure!(seeds.is_dir(), "{name} has no seeds in {}", seeds.display());
    command.arg(&seeds);
    command.env("RUST_BACKTRACE", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for a target")? {
            break Some(status);
        }
        if begun.elapsed() > Duration::from_secs(seconds) + GRACE {
            child.kill().context("ending a target")?;
            child.wait().context("ending a target")?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(200));
    };

    // What the target kept in memory; a fuzzer never ends by itself in an orderly way.
    for parent in [PathBuf::from("/dev/shm"), std::env::temp_dir()] {
        let _ = fs::remove_dir_all(parent.join(format!("ironkeel-fuzz-{name}-{}", child.id())));
    }

    let output = String::from_utf8_lossy(&fs::read(&log_path).context("reading the log")?).into_owned();
    let runs = figure(&output, "stat::number_of_executed_units:").unwrap_or(0);
    let edges = last_figure(&output, " cov: ").unwrap_or(0);
    let memory_mib = figure(&output, "stat::peak_rss_mb:").unwrap_or(0);
    let mut failure = match status {
        None => Some("it did not end in its time".to_owned()),
        Some(status) if !status.success() => Some(format!("it ended with {status}")),
        Some(_) if runs == 0 => Some("it tried no input".to_owned()),
        Some(_) if edges == 0 => Some("it was built without coverage".to_owned()),
        Some(_) => None,
    };
    if let Some(failure) = &mut failure {
        let lines: Vec<&str> = output.lines().filter(|l| !is_progress(l)).collect();
        for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
            failure.push('\n');
            failure.push_str(line);
        }
        for entry in fs::read_dir(&findings).context("reading the findings")? {
            let path = entry?.path();
            let bytes = fs::read(&path).context("reading a finding")?;
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = base64::engine::general_purpose::STANDARD.encode(bytes);
            failure.push_str(&format!("\n{file}, in base64; `base64 -d > input`, then run the target on it:\n{text}"));
        }
    }
    let seconds = begun.elapsed().as_secs();
    Ok(Outcome { name: name.to_owned(), runs, edges, memory_mib, seconds, failure })
}

/// How many inputs a run with a seed tries of a target, by `fuzz/inputs.txt`: on a faster machine no more than on
/// the one where they were counted.
fn inputs_of(fuzz: &Path, name: &str) -> Result<u64> {
    let counts = fs::read_to_string(fuzz.join("inputs.txt")).context("reading fuzz/inputs.txt")?;
    let count = counts.lines().filter_map(|line| line.split_once(' ')).find(|(target, _)| *target == name);
    let count = count.and_then(|(_, count)| count.trim().parse().ok());
    count.with_context(|| format!("fuzz/inputs.txt does not say how many inputs {name} gets"))
}

/// Lines that libFuzzer writes while it runs.
fn is_progress(line: &str) -> bool {
    let progress = ["NEW ", "REDUCE ", "pulse ", "RELOAD ", "NEW_FUNC"];
    progress.iter().any(|p| line.contains(p))
}

/// The number after the first `label`.
fn figure(output: &str, label: &str) -> Option<u64> {
    output.split_once(label)?.1.split_whitespace().next()?.parse().ok()
}

/// The number after the last `label`.
fn last_figure(output: &str, label: &str) -> Option<u64> {
    output.rsplit_once(label)?.1.split_whitespace().next()?.parse().ok()
}
