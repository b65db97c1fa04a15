//! `ironkeel up --etcd-servers`: the whole cluster with its objects in a real etcd.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use ironkeel_testkit::run::{LONG, SHORT, eventually};
use ironkeel_testkit::tools::{Tool, can_run};
use ironkeel_testkit::{Background, Checks, Cluster, NetworkNamespace, Options, Outcome, Output, expect, must};

const ETCD: &str = "http://127.0.0.1:2379";
const WEB: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":2,
"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[
{"name":"web","image":"example.com/guestbook:1","args":["web"],"readinessProbe":{"httpGet":{"path":"/readyz",
"port":8080},"periodSeconds":1}}]}}}}"#;

fn etcd(namespace: &NetworkNamespace, dir: &Path) -> Outcome<Background> {
    let mut command = namespace.command(Tool::Etcd.path().unwrap_or_else(|| "etcd".into()));
    command.arg("--data-dir").arg(dir).args(["--log-level", "error"]);
    command.args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD]);
    command.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
    Background::start(command)
}

/// Files of the etcd's log that hold these bytes.
fn logged(dir: &Path, wanted: &[u8]) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("member/wal")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| std::fs::read(path).unwrap().windows(wanted.len()).any(|part| part == wanted)).collect()
}

fn pods(cluster: &Cluster) -> Outcome<String> {
    let columns = "custom-columns=NAME:.metadata.name,ID:.status.containerStatuses[0].containerID";
    let text = cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", columns, "--no-headers"])?.ok()?;
    let mut lines: Vec<_> = text.lines().filter(|line| line.contains("://")).collect();
    lines.sort_unstable();
    expect("pods that run", 2, lines.len(), lines.len() == 2)?;
    Ok(lines.join("\n"))
}

#[test]
fn a_cluster_whose_objects_are_in_an_etcd() {
    if !can_run("on_etcd", &[Tool::Kubectl, Tool::Etcd]) {
        return;
    }
    let namespace = NetworkNamespace::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut running = Some(must("an etcd", etcd(&namespace, dir.path())));
    let flags = vec!["--etcd-servers".to_owned(), ETCD.to_owned()];
    let options = Options { namespace: Some(namespace.clone()), flags, ..Options::new(env!("CARGO_BIN_EXE_ironkeel")) };
    let mut cluster = must("a cluster", Cluster::start(options));
    let mut checks = Checks::new("on_etcd");

    checks.check("a Deployment runs", || {
        cluster.kubectl_with(&["apply", "-f", "-"], WEB)?.done()?;
        cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?.done()
    });
    checks.check("its objects are in the etcd, Secrets encrypted", || {
        let text = "--from-literal=k=not-for-the-disk";
        cluster.kubectl(&["create", "secret", "generic", "marker", text])?.done()?;
        let found = logged(dir.path(), b"/registry/secrets/default/marker").len();
        expect("files with the Secret's key", "one at least", found, found > 0)?;
        let plain = logged(dir.path(), b"not-for-the-disk");
        expect("files with its text", "none", format!("{plain:?}"), plain.is_empty())?;
        let embedded = cluster.data_dir().join("store");
        expect("an embedded store", "none", embedded.display(), !embedded.exists())
    });
    checks.check("killed and started again, it adopts its containers", || {
        let before = pods(&cluster)?;
        cluster.kill9()?;
        cluster.restart()?;
        eventually("the same containers", SHORT, || {
            let now = pods(&cluster)?;
            expect("containers", &before, &now, now == before)
        })
    });
    checks.check("the etcd goes and comes back: the cluster goes on", || {
        drop(running.take());
        let write = ["create", "configmap", "lost", "--request-timeout=3s"];
        let answer = cluster.kubectl(&write)?;
        expect("a write without a store", "an error", &answer.stderr, answer.code != 0)?;
        running = Some(etcd(&namespace, dir.path())?);
        eventually("a write", LONG, || cluster.kubectl(&["create", "configmap", "kept"]).and_then(Output::done))?;
        cluster.kubectl(&["scale", "deployment/web", "--replicas=3"])?.done()?;
        eventually("the controllers' and the kubelet's work", LONG, || {
            let ready = cluster.field("deployment web", ".status.readyReplicas")?;
            expect("ready replicas", 3, &ready, ready == "3")
        })
    });
    checks.check("the same directory on the embedded store is refused", || {
        cluster.stop()?;
        let refused = cluster.ironkeel(&["up"])?;
        let words = "in an etcd under /registry, not in the embedded store";
        expect("its answer", words, &refused.stderr, refused.code == 1 && refused.stderr.contains(words))
    });
    checks.check("`reset` tells what it leaves", || {
        let reset = cluster.ironkeel(&["reset"])?;
        let words = "the cluster's objects in its etcd, under /registry";
        expect("its words", words, &reset.stderr, reset.code == 0 && reset.stderr.contains(words))
    });
    checks.finish();
}
