//! A cluster's life: killed and started again, refused with one line, beside another, and undone
//! without a trace.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ironkeel_testkit::run::{self, LONG, SHORT, eventually};
use ironkeel_testkit::tools::{Tool, can_run, say};
use ironkeel_testkit::{
    Checks, Cluster, NetworkNamespace, Options, Outcome, Output, Snapshot, expect, expect_words, must,
};

const BINARY: &str = env!("CARGO_BIN_EXE_ironkeel");

/// One after the other: the last comparison is of the whole host.
#[test]
fn a_cluster_is_killed_refused_doubled_and_undone() {
    if !can_run("life", &[Tool::Kubectl, Tool::Nft]) {
        return;
    }
    let mut checks = Checks::new("life");
    let namespace = must("a network namespace", NetworkNamespace::new());
    let folders = ["/etc", "/var/lib", "/run", "/opt"].map(Path::new);
    let before = must("a snapshot", Snapshot::take(&namespace, &folders));
    let others = servers();
    let options = Options { namespace: Some(namespace.clone()), ..Options::new(BINARY) };
    let mut cluster = must("a cluster", Cluster::start(options));
    checks.check("deploy", || cluster.deploy_guestbook());
    killed_and_restarted(&mut checks, &mut cluster);
    refused(&mut checks, &cluster);
    beside_another(&mut checks, &cluster);
    stopped_gracefully(&mut checks, &mut cluster, &others);
    undone(&mut checks, cluster, &before, &folders);
    checks.finish();
}

/// Each container by its pod's name: when it started, its id, its restarts.
fn containers(cluster: &Cluster) -> Outcome<BTreeMap<String, String>> {
    let path = concat!(
        r#"range .items[*]}{.metadata.name}{" "}{.status.podIP}{" "}{.status.containerStatuses[0].containerID}{" "}"#,
        r#"{.status.containerStatuses[0].state.running.startedAt}{" "}{.status.containerStatuses[0].restartCount}"#,
        r#"{" "}{.status.containerStatuses[0].ready}{"\n"}{end"#
    );
    let text = cluster.field("-n guestbook pods", path)?;
    Ok(text.lines().filter_map(|l| l.split_once(' ')).map(|(pod, rest)| (pod.to_owned(), rest.to_owned())).collect())
}

/// Files right under a folder that hold any of these bytes.
fn files_with(folder: &Path, wanted: &[&[u8]]) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file());
    let holds = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        wanted.iter().any(|w| bytes.windows(w.len()).any(|part| part == *w))
    };
    entries.filter(holds).map(|p| p.display().to_string()).collect()
}

fn killed_and_restarted(checks: &mut Checks, cluster: &mut Cluster) {
    let before = must("the containers", containers(cluster));
    let node_port = cluster.node(30080);
    must(
        "a marker",
        cluster.kubectl(&["create", "configmap", "marker", "--from-literal=k=kept"]).and_then(Output::done),
    );
    checks.check("a Secret's text stands in no file of the store", || {
        let literals = ["--from-literal=k=not-for-the-disk"];
        cluster.kubectl(&[&["create", "secret", "generic", "marker"], &literals[..]].concat())?.done()?;
        let plain = files_with(&cluster.data_dir().join("store"), &[b"not-for-the-disk", b"bm90LWZvci10aGUtZGlzaw"]);
        expect("files that show it", "none", format!("{plain:?}"), plain.is_empty())?;
        // The look would find it: the ConfigMap's text is there.
        let marked = files_with(&cluster.data_dir().join("store"), &[b"\"k\":\"kept\""]);
        expect("files that show the ConfigMap", "one at least", format!("{marked:?}"), !marked.is_empty())
    });
    checks.check("pods keep answering while the main process is dead", || {
        cluster.kill9()?;
        for _ in 0..10 {
            let page = cluster.get(node_port, "/hostname")?;
            expect("a page by NodePort", "web-…", &page.body, page.body.starts_with("web-"))?;
        }
        cluster.ironkeel(&["status"])?.fails(1, &["not answering"])
    });
    checks.check("it starts again on what is there", || {
        cluster.restart()?;
        say(&format!("life: ready again after {:.2} s", cluster.ready_after().as_secs_f64()));
        let kept = cluster.field("configmap marker", ".data.k")?;
        expect("the ConfigMap from before", "kept", &kept, kept == "kept")?;
        let secret = cluster.field("secret marker", ".data.k")?;
        expect("the Secret from before", "its text", &secret, secret == "bm90LWZvci10aGUtZGlzaw==")
    });
    checks.check("the same containers run on, adopted", || {
        eventually("the same containers", SHORT, || {
            let after = containers(cluster)?;
            expect("the containers", format!("{before:?}"), format!("{after:?}"), after == before)
        })
    });
    checks.check("an adopted container is logged, entered and forwarded to", || {
        let pod = before.keys().find(|p| p.starts_with("web-")).cloned().unwrap_or_default();
        cluster.kubectl(&["-n", "guestbook", "logs", &pod])?.says(&["listening on"])?;
        cluster.kubectl(&["-n", "guestbook", "exec", &pod, "--", "sh", "-c", "exit 9"])?.fails(9, &[])
    });
    checks.check("killed while it starts, five times: still the same containers", || {
        for after_ms in [30, 80, 150, 250, 400] {
            cluster.kill9_while_starting(Duration::from_millis(after_ms))?;
        }
        cluster.restart()?;
        eventually("the same containers", SHORT, || {
            let after = containers(cluster)?;
            expect("the containers", format!("{before:?}"), format!("{after:?}"), after == before)
        })
    });
    checks.check("an adopted container that ends is restarted, a deleted pod replaced", || {
        let mut pods = before.iter().filter(|(p, _)| p.starts_with("web-"));
        let (first, second) = (pods.next().unwrap().0.clone(), pods.next().unwrap().0.clone());
        let crash = ["-n", "guestbook", "exec", &first, "--", "guestbook", "get", "127.0.0.1:8080/crash"];
        // It cannot answer any more.
        cluster.kubectl(&crash)?;
        cluster.kubectl(&["-n", "guestbook", "delete", "pod", &second])?.done()?;
        cluster.kubectl(&["-n", "guestbook", "rollout", "status", "deployment/web", "--timeout=60s"])?.done()?;
        eventually("a restart of one, another in place of the other", SHORT, || {
            let after = containers(cluster)?;
            let restarted = after.get(&first).is_some_and(|c| c.ends_with("1 true"));
            let right = restarted && !after.contains_key(&second) && after.len() == before.len();
            expect("the containers", "one restarted, one replaced", format!("{after:?}"), right)
        })
    });
    checks.check("killed at once after every write, nothing acknowledged is lost", || {
        for round in 0..3 {
            let name = format!("round-{round}");
            cluster.kubectl(&["create", "configmap", &name])?.done()?;
            cluster.kill9()?;
            cluster.restart()?;
            for seen in 0..=round {
                cluster.kubectl(&["get", "configmap", &format!("round-{seen}")])?.done()?;
            }
        }
        Ok(())
    });
}

/// Runs `up` with flags where it must not start: exit code 1, one line, and these words.
fn refuses(cluster: &Cluster, data_dir: &Path, flags: &[&str], words: &[&str]) -> Outcome {
    let mut up = cluster.namespace().command(cluster.binary());
    up.arg("up").arg("--data-dir").arg(data_dir).args(flags);
    one_line(run::finish(up, None, SHORT)?, words)
}

fn one_line(output: Output, words: &[&str]) -> Outcome {
    let (code, stderr, stdout) = (output.code, output.stderr.clone(), output.stdout.clone());
    let lines = stderr.lines().count();
    expect("exit code and lines", "1 and 1", format!("{code} and {lines}: {stderr}"), code == 1 && lines == 1)?;
    expect("stdout", "nothing", &stdout, stdout.is_empty())?;
    expect_words("the line", &stderr, words)
}

fn refused(checks: &mut Checks, cluster: &Cluster) {
    let other = tempfile::tempdir().unwrap();
    checks.check("a second `up` on the same directory", || {
        let pid = cluster.pid().unwrap_or_default().to_string();
        refuses(cluster, &cluster.data_dir(), &["--secure-port", "6500"], &["in use by another ironkeel", &pid])
    });
    checks.check("a port that is taken", || {
        refuses(cluster, other.path(), &[], &["cannot listen on", "6443", "--secure-port"])
    });
    checks.check("a directory of a newer version", || {
        let dir = other.path().join("newer");
        std::fs::create_dir(&dir).unwrap();
        let record = std::fs::read_to_string(cluster.data_dir().join("cluster.json")).unwrap();
        let mut record: serde_json::Value = serde_json::from_str(&record).unwrap();
        record["layout"] = 4096.into();
        std::fs::write(dir.join("cluster.json"), record.to_string()).unwrap();
        refuses(cluster, &dir, &["--secure-port", "6500"], &["newer ironkeel", "4096"])
    });
    checks.check("not root", || {
        // Whoever is not root may not reach the build's folder.
        std::fs::set_permissions(other.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let binary = other.path().join("ironkeel");
        std::fs::hard_link(cluster.binary(), &binary)
            .or_else(|_| std::fs::copy(cluster.binary(), &binary).map(drop))
            .unwrap();
        let mut up = cluster.namespace().command(&binary);
        let dir = other.path().join("nobody");
        up.arg("up").arg("--data-dir").arg(&dir);
        // After entering the namespace, which only root may.
        let become_nobody = || {
            nix::unistd::setgid(65534.into())?;
            nix::unistd::setuid(65534.into()).map_err(Into::into)
        };
        #[allow(unsafe_code)]
        // SAFETY: two system calls; nothing is allocated.
        unsafe {
            up.pre_exec(become_nobody)
        };
        one_line(run::finish(up, None, SHORT)?, &["needs root"])
    });
    checks.check("ranges that overlap", || {
        let flags = ["--secure-port", "6500", "--pod-cidr", "10.9.0.0/16", "--service-cidr", "10.9.8.0/24"];
        refuses(cluster, &other.path().join("ranges"), &flags, &["--pod-cidr", "overlaps"])
    });
    checks.check("a version that nobody serves", || {
        let dir = other.path().join("versions");
        let flags = ["--secure-port", "6500", "--runtime-config", "api/beta=true,nobody.example.com/v1=true"];
        refuses(
            cluster,
            &dir,
            &flags,
            &["--runtime-config nobody.example.com/v1=true", "unknown api groups or versions"],
        )?;
        expect("what it has made", "nothing", dir.display(), !dir.exists())
    });
    checks.check("an unknown flag", || {
        let output = run::finish(
            {
                let mut up = cluster.namespace().command(cluster.binary());
                up.args(["up", "--no-such-flag"]);
                up
            },
            None,
            SHORT,
        )?;
        output.fails(2, &["--no-such-flag"])
    });
    checks.check("reset while it runs", || {
        cluster.ironkeel(&["reset"])?.fails(1, &["still running"])?;
        cluster.ironkeel(&["status"])?.done()
    });
    checks.check("reset of a folder that is no cluster's", || {
        let folder = other.path().join("photos");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("one"), "kept").unwrap();
        let mut reset = cluster.namespace().command(cluster.binary());
        reset.arg("reset").arg("--data-dir").arg(&folder);
        run::finish(reset, None, SHORT)?.fails(1, &["holds no ironkeel cluster"])?;
        expect("the folder's file", "kept", "gone", folder.join("one").exists())
    });
}

fn beside_another(checks: &mut Checks, first: &Cluster) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(SHORT)).unwrap();
    let start = || {
        Cluster::start(Options {
            namespace: Some(first.namespace().clone()),
            secure_port: 6600,
            flags: vec!["--keep-pods".to_owned()],
            environment: vec![("NOTIFY_SOCKET".to_owned(), socket.clone().into())],
            ..Options::new(BINARY)
        })
    };
    let mut second = None;
    checks.check("a second cluster on the same host", || {
        second = Some(start()?);
        Ok(())
    });
    let Some(mut second) = second else { return };
    checks.check("systemd is told", || {
        let mut message = [0; 64];
        let got = systemd.recv(&mut message).map(|n| String::from_utf8_lossy(&message[..n]).into_owned());
        expect("the datagram", "READY=1", format!("{got:?}"), got.is_ok_and(|m| m == "READY=1"))
    });
    checks.check("both run pods, and each sees its own", || {
        let run = ["run", "web", "--image=example.com/guestbook:2", "--port=8080", "--expose", "--", "web"];
        second.kubectl(&run)?.done()?;
        second.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=30s"])?.done()?;
        first.kubectl(&["get", "pod", "web"])?.fails(1, &["NotFound"])?;
        let ip = second.field("service web", ".spec.clusterIP")?;
        eventually("the second cluster's Service", SHORT, || {
            let page = second.get(format!("{ip}:8080").parse().unwrap(), "/version")?;
            expect("the version", 2, &page.body, page.body.trim() == "2")
        })?;
        let page = first.get(first.node(30080), "/version")?;
        expect("the first cluster's version", 1, &page.body, page.body.trim() == "1")
    });
    checks.check("--keep-pods leaves them running over a stop, and the next start adopts them", || {
        let path = r#".status.podIP}{" "}{.status.containerStatuses[0].containerID"#;
        let before = second.field("pod web", path)?;
        let server = format!("{}:8080", before.split(' ').next().unwrap_or_default()).parse().unwrap();
        let code = second.stop()?;
        expect("the exit code", 0, code, code == 0)?;
        let page = second.get(server, "/version")?;
        expect("the version from a pod without a cluster", 2, &page.body, page.body.trim() == "2")?;
        second.restart()?;
        let after = second.field("pod web", path)?;
        expect("the pod's address and container", &before, &after, before == after)
    });
    checks.check("the second is undone, the first does not notice", || {
        let before = containers(first)?;
        second.kill9()?;
        second.ironkeel(&["reset"])?.done()?;
        let page = first.get(first.node(30080), "/hostname")?;
        expect("the first cluster's page", "web-…", &page.body, page.body.starts_with("web-"))?;
        let after = containers(first)?;
        expect("the first cluster's containers", format!("{before:?}"), format!("{after:?}"), before == after)?;
        first.ironkeel(&["status"])?.done()
    });
}

fn stopped_gracefully(checks: &mut Checks, cluster: &mut Cluster, others: &BTreeSet<OsString>) {
    checks.check("Ctrl-C ends it and its pods", || {
        let running = servers().difference(others).count();
        expect("running servers", "some", running, running > 0)?;
        let start = Instant::now();
        let code = cluster.stop()?;
        say(&format!("life: stopped after {:.2} s", start.elapsed().as_secs_f64()));
        expect("the exit code", 0, code, code == 0)?;
        let left = servers().difference(others).count();
        expect("running servers", 0, left, left == 0)
    });
    checks.check("the next start runs the pods again", || {
        cluster.restart()?;
        eventually("the page", LONG, || {
            let page = cluster.get(cluster.node(30080), "/")?;
            expect("the page", "the title", &page.body, page.status == 200 && page.body.starts_with("Guestbook"))
        })
    });
}

/// The process ids of the example's servers on this host.
fn servers() -> BTreeSet<OsString> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let serves =
        |folder: &Path| std::fs::read(folder.join("cmdline")).is_ok_and(|c| c.starts_with(b"/bin/guestbook\0"));
    processes.filter(|p| serves(&p.path())).map(|p| p.file_name()).collect()
}

fn undone(checks: &mut Checks, mut cluster: Cluster, before: &Snapshot, folders: &[&Path]) {
    let namespace = cluster.namespace().clone();
    let data_dir = cluster.data_dir();
    checks.check("reset after kill -9", || {
        cluster.kill9()?;
        cluster.ironkeel(&["reset"])?.done()?;
        expect("the data directory", "gone", data_dir.display(), !data_dir.exists())
    });
    checks.check("a second reset has nothing to do", || {
        cluster.ironkeel(&["reset"])?.fails(1, &["holds no ironkeel cluster"])
    });
    drop(cluster);
    checks.check("links, routes, nftables, mounts, cgroups, namespaces and files are as before", || {
        // The kernel frees a namespace a moment after its last process.
        let compared = eventually("the host as before", Duration::from_secs(10), || {
            let differences = before.differences(&Snapshot::take(&namespace, folders)?);
            expect("the host", "as before", differences.join("\n"), differences.is_empty())
        });
        if compared.is_err() && another_cluster_runs() {
            say("life: not judged: another cluster on this host comes and goes with its own mounts and cgroups");
            return Ok(());
        }
        compared
    });
}

/// Whether somebody else's `ironkeel up` runs here; ours is dead by the time this is asked.
fn another_cluster_runs() -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_up = |command: &[u8]| {
        let mut words = command.split(|b| *b == 0);
        words.next().is_some_and(|program| program.ends_with(b"ironkeel")) && words.next() == Some(b"up")
    };
    processes.filter_map(|p| std::fs::read(p.path().join("cmdline")).ok()).any(|command| is_up(&command))
}
