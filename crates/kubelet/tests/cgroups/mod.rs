//! Cgroups that the kubelet makes, with real ones.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::fixture::{CGROUPS, Fixture, condition, directories, fixture_with_cgroups};

/// A process that holds memory, and ends with the value.
struct Hog(Child);

impl Hog {
    fn new(cgroup: &Path, bytes: usize) -> Self {
        let mut command = Command::new("tail");
        // It gives nothing out before its input has ended, and nobody reads what it gives out then.
        command.args(["-c", &bytes.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut hog = Hog(command.spawn().unwrap());
        std::fs::write(cgroup.join("cgroup.procs"), hog.0.id().to_string()).unwrap();
        hog.0.stdin.take().unwrap().write_all(&vec![0; bytes]).unwrap();
        hog
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn number(directory: &Path, v1: &str, v2: &str) -> Option<u64> {
    let file = if is_v2() { v2 } else { v1 };
    std::fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()
}

fn is_v2() -> bool {
    Path::new(CGROUPS).join("cgroup.controllers").exists()
}

impl Fixture {
    /// The directory of a pod's cgroup, in the hierarchy of a controller.
    fn pod_cgroup(&self, controller: &str, uid: &str) -> PathBuf {
        let mount = if is_v2() { PathBuf::from(CGROUPS) } else { Path::new(CGROUPS).join(controller) };
        mount.join(format!("{}/burstable/pod{uid}", self.cgroups.as_ref().unwrap().trim_start_matches('/')))
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(15), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_was_refused_is_told_until_it_is_in_force() {
    const MIB: u64 = 1 << 20;
    let Some(f) = fixture_with_cgroups().await else { return };
    let container = |limit: &str| {
        let resources = json!({"requests": {"memory": "16Mi"}, "limits": {"memory": limit}});
        json!({"name": "c", "image": "i:1", "resources": resources})
    };
    f.create("p", json!({"containers": [container("128Mi")]})).await;
    f.until_runs("p").await;
    let uid = f.pods.get("p").await.unwrap().metadata.uid.unwrap();
    let cgroup = f.pod_cgroup("memory", &uid);
    let limit = || number(&cgroup, "memory.limit_in_bytes", "memory.max");
    let used = || number(&cgroup, "memory.usage_in_bytes", "memory.current").unwrap();
    if limit().is_none() {
        return println!("skipped: needs the memory controller");
    }
    until("a limit", || limit() == Some(128 * MIB)).await;
    let hog = Hog::new(&cgroup, 64 << 20);
    until("much memory is used", || used() > 60 * MIB).await;
    f.resize("p", json!({"containers": [container("32Mi")]})).await.unwrap();
    let in_progress = "PodResizeInProgress";
    f.until("p", |status| condition(status, in_progress).is_some_and(|c| c["reason"] == "Error")).await;
    assert_eq!(limit(), Some(128 * MIB));
    // It is still told when the pod is looked at for something else.
    f.runtime.end("c", 1);
    f.until("p", |status| {
        let again = status["containerStatuses"][0]["restartCount"] == 1;
        assert!(!again || condition(status, in_progress).is_some(), "{status}");
        again
    })
    .await;
    drop(hog);
    until("little memory is used", || used() < 16 * MIB).await;
    f.touch("p").await;
    f.until("p", |status| condition(status, in_progress).is_none()).await;
    assert_eq!(limit(), Some(32 * MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cgroup_that_is_half_made_is_finished() {
    let Some(f) = fixture_with_cgroups().await else { return };
    f.node().await;
    let container = json!({"name": "c", "image": "i:1", "resources": {"requests": {"memory": "16Mi"}}});
    let pod = f.create_unbound("p", json!({"containers": [container]})).await;
    let uid = pod.metadata.uid.unwrap();
    // As a kubelet leaves it that is killed after the first step.
    for directory in directories(f.cgroups.as_ref().unwrap()) {
        std::fs::create_dir_all(directory.join(format!("burstable/pod{uid}"))).unwrap();
    }
    f.bind("p").await;
    f.until_runs("p").await;
    let (controller, file) = if is_v2() { ("memory", "memory.max") } else { ("cpuset", "cpuset.cpus") };
    let cgroup = f.pod_cgroup(controller, &uid);
    if !is_v2() && !cgroup.is_dir() {
        return println!("skipped: needs the cpuset controller");
    }
    assert_ne!(std::fs::read_to_string(cgroup.join(file)).unwrap().trim(), "");
}
