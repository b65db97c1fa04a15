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

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;

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
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(cli))
}

async fn run(cli: Cli) -> Result<()> {
    let mut report = Report::default();
    let load = store::Load { duration: Duration::from_secs(cli.seconds), ..store::Load::default() };
    for writers in [load.writers, 1] {
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

    let rows = api::Rows { seconds: cli.seconds };
    let mine = rows.measure(&ours.target).await.context("load on ours")?;
    let other = match &theirs {
        Some(t) => Some(rows.measure(&t.target).await.context("load on the reference")?),
        None => None,
    };
    for (i, row) in mine.iter().enumerate() {
        let reference = other.as_ref().and_then(|o| o.get(i)).map(|r| r.value);
        report.row(&row.name, row.better, row.value, reference, row.unit);
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
