//! Two hosts, one cluster: pods of both reach each other under their own addresses, Services and names
//! work from either, the API server reaches the second kubelet, and nothing stays on either host.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ironkeel_testkit::run::{LONG, SHORT, eventually};
use ironkeel_testkit::tools::{Tool, can_run};
use ironkeel_testkit::{
    Checks, Cluster, Error, NetworkNamespace, Node, Options, Outcome, expect, expect_words, http, must,
};

/// A pod a node that tells its name and who asks.
const AGENTS: &str = include_str!("two_nodes/agents.yaml");
/// A shell function that asks an agent; the static busybox cannot look names up for `wget`.
const ASK: &str = r#"ask() { printf 'GET /cgi-bin/who HTTP/1.0\r\n\r\n' | nc -w 5 "$1" "$2"; }"#;
/// Requests in which both endpoints of a Service must answer; one of them alone: 1 in 2^40.
const REQUESTS: usize = 40;

#[test]
fn two_hosts_are_one_cluster_and_nothing_stays_on_either() {
    if !can_run("two_nodes", &[Tool::Kubectl]) {
        return;
    }
    let hosts = must("two hosts", NetworkNamespace::joined(2));
    let options = Options {
        namespace: Some(hosts[0].clone()),
        flags: ["--node-name", "first"].map(str::to_owned).to_vec(),
        ..Options::new(env!("CARGO_BIN_EXE_ironkeel"))
    };
    let cluster = must("a cluster", Cluster::start(options));
    let before = must("the second host's network", network_of(&hosts[1]));
    let mut second = must("a second node", Node::join(&cluster, "second", &hosts[1]));
    let mut checks = Checks::new("two_nodes");
    let two = Two { cluster: &cluster };
    checks.check("both nodes are Ready, each with a range of its own", || two.ready());
    checks.check("a pod runs on each", || two.agents());
    two.traffic(&mut checks, &hosts);
    two.kubelet(&mut checks);
    checks.check("a node that is killed and started again keeps its pods and their addresses", || {
        let before = two.places()?;
        second.kill9()?;
        second.start(&cluster)?;
        eventually("a Ready node", LONG, || two.ready())?;
        two.exec("second", "echo here")?;
        let after = two.places()?;
        expect("pods and addresses", format!("{before:?}"), format!("{after:?}"), before == after)
    });
    checks.check("a node that is stopped is not Ready", || {
        let code = second.stop()?;
        expect("the exit code of `node`", 0, code, code == 0)?;
        eventually("a node that is not Ready", SHORT, || {
            let ready = two.condition("second")?;
            expect("Ready", "False or Unknown", &ready, ready != "True")
        })
    });
    checks.check("reset leaves nothing on the second host", || {
        second.ironkeel(&["reset"])?.done()?;
        let after = network_of(&hosts[1])?;
        expect("its network", &before, &after, before == after)
    });
    checks.check("a node that is deleted loses its route on the first host", || {
        cluster.kubectl(&["delete", "node", "second"])?.done()?;
        eventually("the end of the route", SHORT, || {
            let routes = routes(&hosts[0])?;
            expect("routes", "none by the second host", &routes, !routes.contains(&hosts[1].address().to_string()))
        })
    });
    checks.finish();
}

fn ip(namespace: &NetworkNamespace, args: &[&str]) -> Outcome<String> {
    let mut command = namespace.command("ip");
    command.args(args);
    let output = command.output().map_err(|source| Error::Io { step: "ip".into(), source })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn routes(namespace: &NetworkNamespace) -> Outcome<String> {
    ip(namespace, &["route"])
}

/// Links and routes of a host.
fn network_of(namespace: &NetworkNamespace) -> Outcome<String> {
    Ok(format!("{}{}", ip(namespace, &["-brief", "link"])?, routes(namespace)?))
}

struct Two<'a> {
    cluster: &'a Cluster,
}

impl Two<'_> {
    fn condition(&self, node: &str) -> Outcome<String> {
        self.cluster.field(&format!("node {node}"), r#".status.conditions[?(@.type=="Ready")].status"#)
    }

    fn ready(&self) -> Outcome {
        eventually("two Ready nodes", LONG, || {
            for node in ["first", "second"] {
                let ready = self.condition(node)?;
                expect(node, "Ready", &ready, ready == "True")?;
            }
            Ok(())
        })?;
        let path = r#"range .items[*]}{.metadata.name}{" "}{.spec.podCIDR}{"\n"}{end"#;
        let ranges = self.cluster.field("nodes", path)?;
        let distinct: BTreeSet<&str> = ranges.lines().filter_map(|l| l.split_once(' ')).map(|(_, r)| r).collect();
        expect("ranges", "two", &ranges, distinct.len() == 2 && !distinct.contains(""))?;
        expect(
            "the first node's range",
            "the first",
            &ranges,
            ranges.lines().any(|l| l.starts_with("first") && l.ends_with(".0.0/24")),
        )
    }

    fn agents(&self) -> Outcome {
        self.cluster.kubectl_with(&["apply", "-f", "-"], AGENTS)?.done()?;
        self.cluster.kubectl(&["rollout", "status", "daemonset/agent", "--timeout=60s"])?.done()?;
        let nodes: Vec<String> = self.places()?.into_iter().map(|(node, ..)| node).collect();
        expect("nodes of the pods", "first, second", nodes.join(", "), nodes == ["first", "second"])
    }

    /// Node, name and address of each agent, by node.
    fn places(&self) -> Outcome<Vec<(String, String, Ipv4Addr)>> {
        let path = r#"range .items[*]}{.spec.nodeName}{" "}{.metadata.name}{" "}{.status.podIP}{"\n"}{end"#;
        let text = self.cluster.field("pods -l app=agent", path)?;
        let mut places: Vec<_> = text
            .lines()
            .filter_map(|line| {
                let mut words = line.split(' ');
                Some((words.next()?.to_owned(), words.next()?.to_owned(), words.next()?.parse().ok()?))
            })
            .collect();
        places.sort();
        Ok(places)
    }

    fn exec(&self, node: &str, script: &str) -> Outcome<String> {
        let places = self.places()?;
        let pod = places.iter().find(|(on, ..)| on == node).map(|(_, name, _)| name.clone()).unwrap_or_default();
        self.cluster.kubectl(&["exec", &pod, "--", "sh", "-c", script])?.ok()
    }

    /// What an agent answers to another's pod: its name and who asked.
    fn ask(&self, from: &str, server: &str) -> Outcome<String> {
        self.exec(from, &format!("{ASK}; ask {server}"))
    }

    fn traffic(&self, checks: &mut Checks, hosts: &[NetworkNamespace]) {
        for (from, to) in [("first", "second"), ("second", "first"), ("second", "second")] {
            checks.check(&format!("a pod on {from} reaches one on {to} under its own address"), || {
                let places = self.places()?;
                let of = |node: &str| places.iter().find(|(on, ..)| on == node).cloned().unwrap();
                let said = self.ask(from, &format!("{} 8080", of(to).2))?;
                let (name, client) = (format!("{} asked by", of(to).1), of(from).2.to_string());
                expect_words("the answer", &said, &[&name, &client])
            });
        }
        checks.check("each host reaches the other's pod", || {
            let places = self.places()?;
            for (host, place) in hosts.iter().zip(places.iter().rev()) {
                let server = (place.2, 8080).into();
                let answer = host.enter(|| http::get(server, "/cgi-bin/who"))?;
                let body = answer.map_err(|source| Error::Io { step: format!("GET from {server}"), source })?.body;
                expect_words("the answer", &body, &[&place.1])?;
            }
            Ok(())
        });
        for from in ["first", "second"] {
            checks.check(&format!("the Service by name over both nodes, from {from}"), || {
                let script = format!(
                    "{ASK}; ip=$(nslookup agents.default.svc.cluster.local | sed -n 's/^Address: //p'); \
                     for i in $(seq {REQUESTS}); do ask $ip 80 || exit 1; done"
                );
                let said = self.exec(from, &script)?;
                for (_, name, _) in self.places()? {
                    expect_words("the answers", &said, &[&name])?;
                }
                Ok(())
            });
        }
        checks.check("names from the second node", || {
            let said = self.exec("second", "nslookup kubernetes.default.svc.cluster.local")?;
            expect_words("nslookup", &said, &["Address"])?;
            let missing = self.exec("second", "nslookup none.default.svc.cluster.local 2>&1 || true")?;
            expect_words("nslookup", &missing, &["NXDOMAIN"])
        });
        checks.check("the API's Service from the second node", || {
            let said = self.exec(
                "second",
                "nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null && echo reached",
            )?;
            expect_words("nc", &said, &["reached"])
        });
        checks.check("a NodePort of either host leads to either pod", || {
            for target in hosts {
                let server = (target.address(), 30081).into();
                let mut names = BTreeSet::new();
                for _ in 0..REQUESTS {
                    let answer = hosts[0].enter(|| http::get(server, "/cgi-bin/who"))?;
                    let body = answer.map_err(|source| Error::Io { step: format!("GET from {server}"), source })?.body;
                    names.extend(body.split(' ').next().map(str::to_owned));
                }
                expect("pods that answered", 2, format!("{names:?}"), names.len() == 2)?;
            }
            Ok(())
        });
    }

    fn kubelet(&self, checks: &mut Checks) {
        checks.check("logs of a pod on the second node", || {
            let places = self.places()?;
            let (_, pod, _) = places.last().unwrap();
            self.cluster.kubectl(&["logs", pod])?.says(&["agent is up"]).map(drop)
        });
        checks.check("exec in a pod on the second node", || {
            let said = self.exec("second", "hostname")?;
            expect_words("hostname", &said, &["agent-"])
        });
        checks.check("the second kubelet by way of the API server, its certificate verified", || {
            self.cluster.kubectl(&["get", "--raw", "/api/v1/nodes/second/proxy/healthz"])?.says(&["ok"]).map(drop)
        });
    }
}
