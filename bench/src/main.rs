//! Benchmarks beside a reference: the same load on ours and on theirs, in one run, as ratios.
//!
//! `cargo run --release -p bench -- --ironkeel target/release/ironkeel [--etcd etcd]
//! [--kube-apiserver kube-apiserver]`. A reference that is not named is left out, and its rows say so.
//! Needs root (the cluster is a real one) and a host whose API port and ranges are free; run it in a
//! network namespace of its own. The result is Markdown on stdout, for docs/performance.md.

mod api;
mod etcd;
mod processes;
mod report;
mod store;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;

use api::{Load, Loaded};
use report::{Better, Report};

#[derive(Parser)]
#[command(about = "Benchmarks beside a reference")]
struct Cli {
    /// Our binary.
    #[arg(long)]
    ironkeel: PathBuf,
    /// etcd, for the store's row and for kube-apiserver.
    #[arg(long)]
    etcd: Option<PathBuf>,
    /// Upstream's API server.
    #[arg(long)]
    kube_apiserver: Option<PathBuf>,
    /// Image archives for the workload rows (`cargo xtask images`); without them those rows are left out.
    #[arg(long)]
    images: Vec<PathBuf>,
    /// Seconds of each load.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How often each load runs on both sides in turn; the median counts.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Objects of the memory rows.
    #[arg(long, default_value_t = 20_000)]
    objects: usize,
    /// Leaves the store's own rows out.
    #[arg(long)]
    no_store: bool,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(cli))
}

async fn run(cli: Cli) -> Result<()> {
    let mut report = Report::default();
    let load = store::Load { duration: Duration::from_secs(cli.seconds), ..store::Load::default() };
    for writers in [load.writers, 1].into_iter().filter(|_| !cli.no_store) {
        let load = store::Load { writers, ..load };
        let dir = tempfile::tempdir()?;
        let ours = store::embedded(&dir.path().join("store"), load).await?;
        let theirs = match &cli.etcd {
            Some(path) => Some(etcd::commits(path, load).await.context("etcd")?),
            None => None,
        };
        let what = format!("store: durable 1 KiB writes a second, {writers} writers");
        report.row(&what, Better::More, ours.per_second, theirs.map(|t| t.per_second), "");
        let ms = |c: store::Commits| c.p99.as_secs_f64() * 1e3;
        report.row(&format!("store: p99 of them, {writers} writers"), Better::Less, ms(ours), theirs.map(ms), "ms");
    }

    eprintln!("starting ours");
    let ours = processes::Ironkeel::start(&cli.ironkeel).await?;
    let theirs = match (&cli.etcd, &cli.kube_apiserver) {
        (Some(etcd), Some(server)) => {
            eprintln!("starting the reference");
            Some(processes::Upstream::start(etcd, server).await.context("the reference")?)
        }
        _ => None,
    };
    report.row(
        "API server ready after a cold start",
        Better::Less,
        ours.api_ready_ms,
        theirs.as_ref().map(|t| t.api_ready_ms),
        "ms",
    );
    report.row("node Ready after a cold start", Better::Less, ours.node_ready_ms, None, "ms");
    processes::settle().await;
    let idle = processes::usage(&ours.pids(), Duration::from_secs(10)).await?;
    let their_idle = match &theirs {
        Some(t) => Some(processes::usage(&t.pids(), Duration::from_secs(10)).await?),
        None => None,
    };
    report.row(
        "idle memory (theirs: API server and etcd only)",
        Better::Less,
        idle.rss_mib,
        their_idle.map(|u| u.rss_mib),
        "MiB",
    );
    report.row(
        "idle CPU, share of a core (theirs: the same two)",
        Better::Less,
        idle.cpu_percent,
        their_idle.map(|u| u.cpu_percent),
        "%",
    );

    let mut mine = Loaded::new(&ours.target, cli.seconds);
    let mut other = theirs.as_ref().map(|t| Loaded::new(&t.target, cli.seconds));
    mine.fill(cli.objects).await.context("objects on ours")?;
    if let Some(other) = &mut other {
        other.fill(cli.objects).await.context("objects on the reference")?;
    }
    processes::settle().await;
    let filled = processes::usage(&ours.pids(), Duration::from_secs(1)).await?.rss_mib;
    let (mut both, mut alone) = (None, None);
    if let Some(t) = &theirs {
        both = Some(processes::usage(&t.pids(), Duration::from_secs(1)).await?.rss_mib);
        alone = Some(processes::usage(&t.server_pids(), Duration::from_secs(1)).await?.rss_mib);
    }
    let what = format!("memory with {} ConfigMaps of 1 KiB", cli.objects);
    report.row(&format!("{what} (theirs: API server and etcd)"), Better::Less, filled, both, "MiB");
    report.row(&format!("{what} (theirs: API server alone)"), Better::Less, filled, alone, "MiB");

    for load in Load::ALL {
        let (mut our_rates, mut their_rates) = (Vec::new(), Vec::new());
        for _ in 0..cli.rounds.max(1) {
            our_rates.push(mine.measure(load).await.context("load on ours")?);
            if let Some(other) = &mut other {
                their_rates.push(other.measure(load).await.context("load on the reference")?);
            }
        }
        let theirs = (!their_rates.is_empty()).then(|| median(their_rates));
        report.row(load.title(), Better::More, median(our_rates), theirs, "");
    }
    let loaded = processes::usage(&ours.pids(), Duration::from_secs(2)).await?;
    let their_loaded = match &theirs {
        Some(t) => Some(processes::usage(&t.pids(), Duration::from_secs(2)).await?),
        None => None,
    };
    report.row("memory after that load", Better::Less, loaded.rss_mib, their_loaded.map(|u| u.rss_mib), "MiB");
    if !cli.images.is_empty() {
        let workload = processes::workload(&ours, &cli.ironkeel, &cli.images).await?;
        report.row(
            "3-replica Deployment, applied to all ready",
            Better::Less,
            workload.deployment_ready_ms,
            None,
            "ms",
        );
        report.row("killed container running again", Better::Less, workload.restarted_ms, None, "ms");
    }
    ours.stop().await?;
    print!("{report}");
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
