//! The store's load on a real etcd, over its own gRPC.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::store::{Commits, Load};

/// How long etcd may take to answer, in seconds.
const START_SECONDS: u64 = 20;
/// Between looks whether it answers, in milliseconds.
const POLL_MS: u64 = 20;

/// `etcdserverpb.PutRequest`, the fields that are used.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`, of which nothing is read.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// A running etcd; ends with the value.
pub(crate) struct Etcd {
    child: Child,
    pub(crate) url: String,
    _dir: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // Gone already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Etcd {
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Starts one member with its data in a temporary directory, and waits until it listens.
    pub(crate) async fn start(path: &Path) -> Result<Etcd> {
        let dir = tempfile::tempdir()?;
        let (client, peer) = (free_port()?, free_port()?);
        let url = format!("http://127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        let child = Command::new(path)
            .arg("--data-dir")
            .arg(dir.path())
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url, "--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")])
            .args(["--log-level", "error", "--quota-backend-bytes", "8589934592"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", path.display()))?;
        let etcd = Etcd { child, url, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS);
        while put(&mut connect(&etcd.url)?, b"ready".to_vec(), Vec::new()).await.is_err() {
            if Instant::now() > deadline {
                bail!("etcd does not answer at {}", etcd.url);
            }
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        }
        Ok(etcd)
    }
}

pub(crate) fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

type Client = tonic::client::Grpc<tonic::transport::Channel>;

fn connect(url: &str) -> Result<Client> {
    Ok(tonic::client::Grpc::new(tonic::transport::Endpoint::from_shared(url.to_owned())?.connect_lazy()))
}

async fn put(client: &mut Client, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
    client.ready().await?;
    let codec = tonic_prost::ProstCodec::<PutRequest, PutResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/etcdserverpb.KV/Put");
    client.unary(tonic::Request::new(PutRequest { key, value }), path, codec).await?;
    Ok(())
}

/// The same load as on ours: each writer waits for its commit.
pub(crate) async fn commits(path: &Path, load: Load) -> Result<Commits> {
    let etcd = Etcd::start(path).await?;
    let value = vec![b'x'; load.value_bytes];
    let started = Instant::now();
    let mut writers = Vec::new();
    // One connection for eight writers, as API servers share theirs.
    let mut client = connect(&etcd.url)?;
    for writer in 0..load.writers {
        if writer % 8 == 0 {
            client = connect(&etcd.url)?;
        }
        let (mut client, value) = (client.clone(), value.clone());
        writers.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            while started.elapsed() < load.duration {
                let number = latencies.len() % load.keys_per_writer.max(1);
                let write = Instant::now();
                put(&mut client, format!("/registry/bench/{writer:03}/{number:06}").into_bytes(), value.clone())
                    .await?;
                latencies.push(write.elapsed());
            }
            anyhow::Ok(latencies)
        }));
    }
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.extend(writer.await??);
    }
    Ok(Commits::of(latencies, started.elapsed()))
}
