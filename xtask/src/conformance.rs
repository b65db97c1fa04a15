//! `cargo xtask conformance`: upstream's own end-to-end suite against a cluster of ours.
//!
//! The suite (`e2e.test`, `ginkgo`, and `kubectl` for the specs that call it) and the images' archives
//! come from outside. The cluster is made for the run, with network namespaces as its hosts, and
//! leaves nothing behind. Which specs count is told by the API's facts (`conformance/<area>.txt`); the
//! outcome of each goes into docs/conformance.md. Needs root.

mod hosts;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use hosts::Hosts;

/// Options of the task.
#[derive(Args)]
pub(crate) struct Conformance {
    /// Folder with `e2e.test`, `ginkgo` and `kubectl`
    #[arg(long)]
    suite: PathBuf,
    /// Folder with the archives of the suite's images
    #[arg(long)]
    images: PathBuf,
    /// Which specs: `api`, `apps`, `auth`, `cli`, `network`, `node`, `scheduling`, `storage` or `all`
    #[arg(long, default_value = "all")]
    area: Vec<String>,
    /// Only specs whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// The binary under test
    #[arg(long, default_value = "target/release/ironkeel")]
    binary: PathBuf,
    /// Specs that run at once
    #[arg(long, default_value_t = 6)]
    processes: u32,
    /// Hosts of the cluster
    #[arg(long, default_value_t = 2)]
    nodes: usize,
    /// Keep the cluster's objects in an etcd: the program to run for it
    #[arg(long)]
    etcd: Option<PathBuf>,
    /// Where the outcome goes
    #[arg(long, default_value = "docs/conformance.md")]
    out: PathBuf,
    /// Folder for the logs of the suite and of the cluster; by default one that goes with the run
    #[arg(long)]
    logs: Option<PathBuf>,
}

/// One area and its specs.
pub(crate) struct Area {
    /// `api`.
    pub(crate) name: String,
    /// Full names, as ginkgo tells them.
    pub(crate) specs: Vec<String>,
}

pub(crate) fn run(root: &Path, task: &Conformance) -> Result<()> {
    let areas = areas(root, task)?;
    let count: usize = areas.iter().map(|area| area.specs.len()).sum();
    if count == 0 {
        bail!("no spec is called so");
    }
    let suite = fs::canonicalize(&task.suite).with_context(|| format!("no suite in {}", task.suite.display()))?;
    for part in ["e2e.test", "ginkgo"] {
        if !suite.join(part).is_file() {
            bail!("{} is missing in {}", part, suite.display());
        }
    }
    let binary = fs::canonicalize(&task.binary)
        .with_context(|| format!("no binary at {}; build it with `cargo build --release`", task.binary.display()))?;
    let work = std::env::temp_dir().join(format!("ironkeel-conformance-{}", std::process::id()));
    let logs = task.logs.clone().unwrap_or_else(|| work.join("logs"));
    fs::create_dir_all(&work)?;
    fs::create_dir_all(&logs)?;
    let logs = fs::canonicalize(&logs)?;
    eprintln!("{count} specs; a cluster of {} starts", task.nodes);
    let hosts = Hosts::start(&work, &logs, &binary, task.nodes, task.etcd.as_deref())?;
    for archive in archives(&task.images)? {
        hosts.import(&archive)?;
    }
    eprintln!("the images are there; the suite runs, its words go to {}", logs.join("suite.log").display());
    let outcome = suite_run(&hosts, &suite, &logs, task, &areas);
    drop(hosts);
    let outcome = outcome?;
    let report = report::Report::new(&areas, outcome, task.processes, task.nodes, task.etcd.is_some());
    eprintln!("{}", report.summary());
    if task.only.is_none() {
        fs::write(&task.out, report.markdown()).with_context(|| format!("writing {}", task.out.display()))?;
    } else {
        print!("{}", report.markdown());
    }
    if task.logs.is_none() {
        fs::remove_dir_all(&work)?;
    }
    Ok(())
}

fn areas(root: &Path, task: &Conformance) -> Result<Vec<Area>> {
    let Some(facts) = crate::codegen::facts_dir(root) else {
        bail!("the names of the specs are not here; say with IRONKEEL_FACTS where the API's facts are");
    };
    let mut names = task.area.clone();
    if names.iter().any(|name| name == "all") {
        names = ["api", "apps", "auth", "cli", "network", "node", "scheduling", "storage"].map(str::to_owned).to_vec();
    }
    names
        .into_iter()
        .map(|name| {
            let path = facts.join("conformance").join(format!("{name}.txt"));
            let text = fs::read_to_string(&path).with_context(|| format!("there is no area {name:?}"))?;
            let wanted = |spec: &&str| !spec.is_empty() && task.only.as_ref().is_none_or(|only| spec.contains(only));
            Ok(Area { name, specs: text.lines().filter(wanted).map(str::to_owned).collect() })
        })
        .collect()
}

fn archives(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("no images in {}", folder.display()))?;
    let mut all: Vec<_> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
    all.sort();
    Ok(all)
}

/// Runs the suite in the hub of the hosts' network; answers the path of its JSON report.
fn suite_run(hosts: &Hosts, suite: &Path, logs: &Path, task: &Conformance, areas: &[Area]) -> Result<report::Outcome> {
    let names: Vec<_> = areas.iter().flat_map(|area| &area.specs).map(|spec| escaped(spec)).collect();
    // Ginkgo puts the suite's name before a spec's.
    let focus = format!("(^|\\s)({})\\s*$", names.join("|"));
    let log = fs::File::create(logs.join("suite.log"))?;
    let path = format!("{}:{}", suite.display(), std::env::var("PATH").unwrap_or_default());
    let kubeconfig = hosts.kubeconfig();
    let status = hosts
        .in_hub(suite.join("ginkgo"))
        .arg(format!("--procs={}", task.processes))
        .args(["--timeout=3h", "--no-color", "--json-report=report.json"])
        .arg(format!("--output-dir={}", logs.display()))
        .arg(format!("--focus={focus}"))
        .arg(suite.join("e2e.test"))
        .arg("--")
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg(format!("--kubectl-path={}", suite.join("kubectl").display()))
        .arg(format!("--num-nodes={}", task.nodes))
        .args(["--provider=local", "--disable-log-dump"])
        .env("PATH", path)
        .env("KUBECONFIG", &kubeconfig)
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .context("ginkgo does not start")?;
    let report = logs.join("report.json");
    report::Outcome::read(&report).with_context(|| format!("the suite ended with {status} and left no report"))
}

/// A name as a regular expression.
fn escaped(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 16);
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() && c != ' ' && c.is_ascii() {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Runs a command that must succeed.
pub(crate) fn must(command: &mut Command) -> Result<()> {
    let out = command.output().with_context(|| format!("{command:?}"))?;
    if !out.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}
