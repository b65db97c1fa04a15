//! The example's Service answers: by its address, a node's port and its name, balanced, while a
//! container is killed and while a new version rolls out.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ironkeel_testkit::run::{SHORT, eventually};
use ironkeel_testkit::tools::{Tool, can_run, say};
use ironkeel_testkit::{Checks, Cluster, Error, Options, Outcome, expect, http, must};

/// Clients that ask while a version rolls out.
const LOAD_CLIENTS: usize = 3;
/// A client's pause between two requests.
const LOAD_PAUSE: Duration = Duration::from_millis(3);
/// Requests with which balance is judged.
const BALANCE_REQUESTS: usize = 90;
/// What a third of them may fall to by chance: five standard deviations below the mean.
const BALANCE_LEAST: usize = 8;
/// How long a killed container may take until it serves again. The goal is a second; the machine is shared.
const RECOVERY_LIMIT: Duration = Duration::from_secs(20);

#[test]
fn the_examples_service_answers_whatever_happens_to_its_pods() {
    if !can_run("network", &[Tool::Kubectl]) {
        return;
    }
    let cluster = must("a cluster", Cluster::start(Options::new(env!("CARGO_BIN_EXE_ironkeel"))));
    say(&format!("network: the cluster was ready after {:.2} s", cluster.ready_after().as_secs_f64()));
    let mut checks = Checks::new("network");
    let start = Instant::now();
    checks.check("deploy", || cluster.deploy_guestbook());
    say(&format!("network: two Deployments were ready {:.2} s after apply", start.elapsed().as_secs_f64()));
    let asks = Asks { cluster: &cluster };
    asks.services(&mut checks);
    asks.pods(&mut checks);
    checks.check("a rolling update under load loses no request", || asks.rolling_update());
    checks.check("scaling down under load loses no request", || asks.scaling_down());
    checks.check("a killed container serves again", || asks.killed_container());
    checks.finish();
}

struct Asks<'a> {
    cluster: &'a Cluster,
}

impl Asks<'_> {
    fn service_ip(&self) -> Outcome<SocketAddr> {
        address(&self.cluster.field("-n guestbook service web", ".spec.clusterIP")?, 80)
    }

    fn pods_ips(&self, app: &str) -> Outcome<Vec<(String, String)>> {
        let path = r#"range .items[*]}{.metadata.name}{" "}{.status.podIP}{"\n"}{end"#;
        let text = self.cluster.field(&format!("-n guestbook pods -l app={app}"), path)?;
        let pairs = text.lines().filter_map(|l| l.split_once(' '));
        Ok(pairs.map(|(name, ip)| (name.to_owned(), ip.to_owned())).collect())
    }

    /// Runs a shell line in a web pod.
    fn in_pod(&self, script: &str) -> Outcome<String> {
        let (pod, _) = self.pods_ips("web")?.into_iter().next().unwrap_or_default();
        self.cluster.kubectl(&["-n", "guestbook", "exec", &pod, "--", "sh", "-c", script])?.ok()
    }

    fn services(&self, checks: &mut Checks) {
        checks.check("by ClusterIP from the host", || {
            let page = self.cluster.get(self.service_ip()?, "/")?;
            expect("the page", "the store's entry", &page.body, page.body.contains("first entry"))
        });
        checks.check("by NodePort from the host", || {
            let page = self.cluster.get(self.cluster.node(30080), "/hostname")?;
            expect("the pod", "web-…", &page.body, page.body.starts_with("web-"))
        });
        checks.check("by ClusterIP and NodePort from a pod", || {
            for server in [self.service_ip()?, self.cluster.node(30080)] {
                let name = self.in_pod(&format!("guestbook get {server}/hostname"))?;
                expect("the pod", "web-…", &name, name.starts_with("web-"))?;
            }
            Ok(())
        });
        checks.check("by name from a pod", || {
            for name in ["web", "web.guestbook", "web.guestbook.svc", "web.guestbook.svc.cluster.local"] {
                let pod = self.in_pod(&format!("guestbook get {name}:80/hostname"))?;
                expect(name, "web-…", &pod, pod.starts_with("web-"))?;
            }
            Ok(())
        });
        checks.check("a name that does not exist", || {
            let said = self.in_pod("nslookup no-such.guestbook.svc.cluster.local 2>&1 || true")?;
            expect("nslookup", "NXDOMAIN", &said, said.contains("NXDOMAIN"))
        });
        checks.check("the API's own Service from a pod, with its token", || {
            let script = "cd /var/run/secrets/kubernetes.io/serviceaccount && cat namespace && test -s token && test -s ca.crt && \
                nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null && echo reached";
            let said = self.in_pod(script)?;
            expect("the mounted account and the API's port", "both", &said, said.contains("guestbook") && said.contains("reached"))
        });
        checks.check("balanced over the replicas", || {
            let mut count: BTreeMap<String, usize> = BTreeMap::new();
            let server = self.service_ip()?;
            for _ in 0..BALANCE_REQUESTS {
                let pod = self.cluster.get(server, "/hostname")?.body;
                *count.entry(pod.trim().to_owned()).or_default() += 1;
            }
            let fair = count.len() == 3 && count.values().all(|n| *n >= BALANCE_LEAST);
            expect("answers a pod", "three fair shares", format!("{count:?}"), fair)
        });
        checks.check("a posted entry is kept, and a wrong token refused", || {
            let server = self.cluster.node(30080);
            let asked =
                self.cluster.namespace().enter(|| http::request(server, "POST", "/entries", &[], b"a second entry"));
            let page = asked?.map_err(|source| Error::Io { step: "posting".into(), source })?;
            expect("the page", "the posted entry", &page.body, page.body.contains("a second entry"))?;
            let page = self.cluster.get(server, "/")?;
            expect("the next page", "the posted entry", &page.body, page.body.contains("a second entry"))?;
            let store = self.cluster.field("-n guestbook service store", ".spec.clusterIP")?;
            let refused = self.cluster.get(address(&store, 8080)?, "/entries")?;
            expect("the store without a token", 403, refused.status, refused.status == 403)
        });
        checks.check("a Service without endpoints refuses", || {
            self.cluster
                .kubectl(&["-n", "guestbook", "create", "service", "clusterip", "empty", "--tcp=80"])?
                .done()?;
            let ip = self.cluster.field("-n guestbook service empty", ".spec.clusterIP")?;
            let server = address(&ip, 80)?;
            eventually("a refusal", SHORT, || {
                let start = Instant::now();
                let answer = self.cluster.namespace().enter(|| http::get(server, "/"))?;
                let refused = answer.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused);
                expect("a connection", "refused at once", format!("after {:?}", start.elapsed()), refused)
            })
        });
    }

    fn pods(&self, checks: &mut Checks) {
        checks.check("pod to pod, and the host to a pod", || {
            for (name, ip) in self.pods_ips("web")? {
                let from_pod = self.in_pod(&format!("guestbook get {ip}:8080/hostname"))?;
                expect("the pod as a pod sees it", &name, &from_pod, from_pod.trim() == name)?;
                let from_host = self.cluster.get(address(&ip, 8080)?, "/hostname")?.body;
                expect("the pod as the host sees it", &name, &from_host, from_host.trim() == name)?;
            }
            Ok(())
        });
        checks.check("the resolver's file and the host's name", || {
            let said = self.in_pod("cat /etc/resolv.conf; hostname; cat /etc/hosts")?;
            let right = said.contains("search guestbook.svc.cluster.local svc.cluster.local cluster.local")
                && said.contains("ndots:5")
                && said.matches("web-").count() >= 2;
            expect("resolv.conf, hostname, hosts", "as upstream writes them", &said, right)
        });
    }

    fn rolling_update(&self) -> Outcome {
        let asked = self.under_load(|| {
            self.cluster
                .kubectl(&["-n", "guestbook", "set", "image", "deployment/web", "web=example.com/guestbook:2"])?
                .done()?;
            self.rolled_out()?;
            self.left(3)
        })?;
        let version = self.cluster.get(self.cluster.node(30080), "/version")?.body;
        expect("the version afterwards", 2, &version, version.trim() == "2")?;
        say(&format!("network: {asked} requests during the rolling update"));
        Ok(())
    }

    fn scaling_down(&self) -> Outcome {
        self.cluster.kubectl(&["-n", "guestbook", "scale", "deployment/web", "--replicas=5"])?.done()?;
        self.rolled_out()?;
        self.under_load(|| {
            self.cluster.kubectl(&["-n", "guestbook", "scale", "deployment/web", "--replicas=3"])?.done()?;
            self.left(3)
        })
        .map(drop)
    }

    /// Waits until those on their way out are gone.
    fn left(&self, count: usize) -> Outcome {
        eventually("the end of the other pods", SHORT, || {
            let left = self.pods_ips("web")?.len();
            expect("pods", count, left, left == count)
        })
    }

    fn rolled_out(&self) -> Outcome {
        self.cluster.kubectl(&["-n", "guestbook", "rollout", "status", "deployment/web", "--timeout=60s"])?.done()
    }

    /// Asks the Service by address and node port while `work` runs, a connection a request; how many
    /// were answered. Fails with the first that was not.
    fn under_load(&self, work: impl FnOnce() -> Outcome) -> Outcome<usize> {
        let servers = [self.service_ip()?, self.cluster.node(30080)];
        let over = AtomicBool::new(false);
        let client = |server: SocketAddr| {
            let (mut answered, mut lost) = (0, Vec::new());
            while !over.load(Ordering::Relaxed) {
                match http::get(server, "/version") {
                    Ok(answer) if answer.status == 200 => answered += 1,
                    other => lost.push(format!("{server}: {other:?}")),
                }
                std::thread::sleep(LOAD_PAUSE);
            }
            (answered, lost)
        };
        std::thread::scope(|scope| {
            let client = &client;
            let clients: Vec<_> = (0..LOAD_CLIENTS)
                .map(|i| scope.spawn(move || self.cluster.namespace().enter(|| client(servers[i % servers.len()]))))
                .collect();
            let outcome = work();
            over.store(true, Ordering::Relaxed);
            let (mut answered, mut lost) = (0, Vec::new());
            for client in clients {
                let (a, l) = client.join().unwrap()?;
                answered += a;
                lost.extend(l);
            }
            outcome?;
            let first = lost.first().cloned().unwrap_or_default();
            let told = format!("{} of {} lost; the first: {first}", lost.len(), answered + lost.len());
            expect("requests under load", "none lost", told, lost.is_empty() && answered > 0)?;
            Ok(answered)
        })
    }

    fn killed_container(&self) -> Outcome {
        let (pod, ip) = self.pods_ips("web")?.into_iter().next().unwrap_or_default();
        let server = address(&ip, 8080)?;
        let start = Instant::now();
        // It exits before it answers.
        let _ = self.cluster.namespace().enter(|| http::get(server, "/crash"))?;
        eventually("a serving container", RECOVERY_LIMIT, || self.cluster.get(server, "/hostname"))?;
        say(&format!("network: a killed container served again after {:.3} s", start.elapsed().as_secs_f64()));
        eventually("a restart in the pod's status", SHORT, || {
            let path = ".status.containerStatuses[0].restartCount";
            let restarts = self.cluster.field(&format!("-n guestbook pod {pod}"), path)?;
            expect("restarts", 1, &restarts, restarts == "1")
        })?;
        let said = self.cluster.kubectl(&["-n", "guestbook", "logs", "--previous", &pod])?;
        said.says(&["listening on"]).map(drop)
    }
}

fn address(ip: &str, port: u16) -> Outcome<SocketAddr> {
    format!("{ip}:{port}").parse().map_err(|_| Error::Unexpected {
        what: "an address".into(),
        expected: "an IPv4 address".into(),
        got: ip.to_owned(),
    })
}
