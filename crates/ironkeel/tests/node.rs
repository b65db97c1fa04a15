//! Real containers on a real node: what a pod's spec asks for is what its processes see, and what
//! happens to them is what its status tells.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ironkeel_testkit::run::{LONG, SHORT, eventually};
use ironkeel_testkit::tools::{Tool, can_run};
use ironkeel_testkit::{Background, Checks, Cluster, Options, Outcome, expect, expect_words, must};

/// The pods that most checks look at.
const PODS: &str = include_str!("node/pods.yaml");
/// Pods that start at once.
const CROWD: usize = 30;
/// The state of a pod's containers in one line.
const STATES: &str = ".status";

#[test]
fn containers_get_what_their_pods_ask_for_and_tell_what_became_of_them() {
    if !can_run("node", &[Tool::Kubectl]) {
        return;
    }
    let mut cluster = must("a cluster", Cluster::start(Options::new(env!("CARGO_BIN_EXE_ironkeel"))));
    let mut checks = Checks::new("node");
    let node = Node { cluster: &cluster };
    checks.check("pods are taken", || node.apply(&PODS.replace("SCRATCH", &node.scratch().display().to_string())));
    node.what_containers_see(&mut checks);
    node.how_containers_end(&mut checks);
    node.resize(&mut checks);
    node.volumes(&mut checks);
    node.probes_and_hooks(&mut checks);
    node.forced_deletion(&mut checks);
    node.streams(&mut checks);
    node.static_pods(&mut checks);
    node.kubelets_own_answers(&mut checks);
    checks.check("a crowd starts and goes at once", || node.crowd());
    restart_in_a_crowd(&mut cluster, &mut checks);
    checks.finish();
}

/// Kills everything in the midst of pods being made: afterwards each runs once.
fn restart_in_a_crowd(cluster: &mut Cluster, checks: &mut Checks) {
    let id = || Node { cluster }.field("pod limited", ".status.containerStatuses[0].containerID");
    let before = must("a container", id());
    checks.check("killed in the midst of a crowd, the node finishes it and keeps what ran", || {
        let deploy = ["create", "deployment", "later", "--image=busybox:1", "--replicas=12", "--", "sleep", "1000"];
        Node { cluster }.run(&deploy)?;
        Node { cluster }.wait_running("app=later", 2)?;
        cluster.kill9()?;
        cluster.restart()?;
        let node = Node { cluster };
        node.run(&["rollout", "status", "deployment/later", "--timeout=60s"])?;
        let ips = node.field("pods -l app=later", "range .items[*]}{.status.podIP}{\"\\n\"}{end")?;
        let mut ips: Vec<&str> = ips.lines().collect();
        ips.sort_unstable();
        ips.dedup();
        expect("addresses of twelve pods", 12, ips.len(), ips.len() == 12)?;
        let after = node.field("pod limited", ".status.containerStatuses[0].containerID")?;
        expect("the container that ran before", &before, &after, before == after)?;
        let said = node.exec("limited", "echo still here")?;
        expect_words("exec after the restart", &said, &["still here"])
    });
}

struct Node<'a> {
    cluster: &'a Cluster,
}

impl Node<'_> {
    fn scratch(&self) -> PathBuf {
        self.cluster.scratch().join("host-path")
    }

    fn apply(&self, manifest: &str) -> Outcome {
        self.cluster.kubectl_with(&["apply", "-f", "-"], manifest)?.done()
    }

    fn run(&self, args: &[&str]) -> Outcome<String> {
        self.cluster.kubectl(args)?.ok()
    }

    fn field(&self, what: &str, path: &str) -> Outcome<String> {
        self.cluster.field(what, path)
    }

    fn exec(&self, pod: &str, script: &str) -> Outcome<String> {
        self.run(&["exec", pod, "--", "sh", "-c", script])
    }

    /// Waits until the pod's status says all of `words`.
    fn status(&self, pod: &str, words: &[&str]) -> Outcome<String> {
        eventually(&format!("pod {pod}"), SHORT, || {
            let status = self.field(&format!("pod {pod}"), STATES)?;
            expect_words("its status", &status, words)?;
            Ok(status)
        })
    }

    fn phase(&self, pod: &str, phase: &str) -> Outcome<String> {
        self.status(pod, &[&format!("\"phase\":\"{phase}\"")])
    }

    fn wait_running(&self, selector: &str, least: usize) -> Outcome {
        eventually(&format!("{least} running pods of {selector}"), SHORT, || {
            let phases = self.field(&format!("pods -l {selector}"), ".items[*].status.phase")?;
            let running = phases.split(' ').filter(|phase| *phase == "Running").count();
            expect("running", format!("at least {least}"), running, running >= least)
        })
    }

    fn logs_say(&self, pod: &str, words: &[&str]) -> Outcome<String> {
        eventually(&format!("words of {pod}"), SHORT, || {
            let log = self.run(&["logs", pod])?;
            expect_words("its log", &log, words)?;
            Ok(log)
        })
    }

    fn what_containers_see(&self, checks: &mut Checks) {
        checks.check("variables from maps, secrets, fields and resources, and their expansion", || {
            self.phase("environment", "Succeeded")?;
            let ip = self.field("pod environment", ".status.podIP")?;
            let node = self.field("pod environment", ".spec.nodeName")?;
            let words = format!(
                "green green s3cret environment {node} {ip} environment 250 10 green/s3cret $(COLOR) . green /tmp"
            );
            expect_words("what it saw", &self.run(&["logs", "environment"])?, &[&words])
        });
        checks.check("users, groups, capabilities and a read-only root", || {
            let words = [
                "uid=1001 gid=2002 groups=2002,3003,4004",
                "0:3003:2777",
                "/root-file: Read-only file system",
                "CapEff:\t0000000000000000",
                "NoNewPrivs:\t1",
                "Seccomp:\t2",
            ];
            self.logs_say("restricted", &words).map(drop)
        });
        checks.check("a memory volume is as large as it may be", || {
            let log = self.logs_say("restricted", &["No space left on device"])?;
            expect_words("what fitted", &log, &["4096", "4194304"])
        });
        checks.check("limits are the cgroup's", || {
            self.logs_say("limited", &["33554432\n50000\n102"])
                .or_else(|_| self.logs_say("limited", &["33554432", "50000 100000"]))
                .map(drop)
        });
        checks.check("a shared process namespace", || {
            self.status("shared", &["\"ready\":true"])?;
            expect_words("the processes", &self.exec("shared", "ps -o args")?, &["sleep 1111", "sleep 2222"])
        });
        checks.check("the host's network and processes", || {
            self.phase("on-host", "Running")?;
            let host = self.field("pod on-host", ".status.hostIP")?;
            let own = self.field("pod on-host", ".status.podIP")?;
            expect("its address", &host, &own, host == own)?;
            let count = self.exec("on-host", "ls -d /proc/[0-9]* | wc -l")?;
            let count: usize = count.trim().parse().unwrap_or_default();
            expect("processes", "the host's", count, count > 20)
        });
        checks.check("a port of the host", || {
            self.phase("host-port", "Running")?;
            eventually("the page", SHORT, || {
                let page = self.cluster.get(self.cluster.node(18080), "/")?;
                expect_words("the page", &page.body, &["by-port"])
            })
        });
        checks.check("init containers and sidecars in their order", || {
            self.phase("initialized", "Succeeded")?;
            let order = self.run(&["logs", "initialized", "-c", "main"])?;
            expect_words("the order", &order, &["first\nsidecar\nsecond\nmain"])?;
            let sidecar = self.run(&["logs", "initialized", "-c", "sidecar"])?;
            expect_words("the sidecar's end", &sidecar, &["sidecar ended"])
        });
    }

    fn how_containers_end(&self, checks: &mut Checks) {
        let mut check = |name: &str, pod: &str, words: &[&str]| {
            checks.check(name, || self.status(pod, words).map(drop));
        };
        check("too much memory", "too-hungry", &["\"phase\":\"Failed\"", "OOMKilled", "\"exitCode\":137"]);
        check("a failed init container", "failed-init", &["\"phase\":\"Failed\"", "\"exitCode\":7", "PodInitializing"]);
        check(
            "a key that is missing",
            "missing-key",
            &["CreateContainerConfigError", "couldn't find key absent in ConfigMap"],
        );
        check(
            "root where it must not be",
            "must-not-be-root",
            &["CreateContainerConfigError", "image will run as root"],
        );
        check("an image that is absent", "no-image", &["ErrImageNeverPull"]);
        check("a deadline", "late", &["\"phase\":\"Failed\"", "\"reason\":\"DeadlineExceeded\""]);
        check("a failed postStart hook", "bad-hook", &["\"phase\":\"Failed\"", "\"exitCode\":137"]);
        check("restart on failure", "on-failure", &["\"phase\":\"Succeeded\"", "\"restartCount\":1"]);
        let words = ["\"message\":\"said\"", "\"message\":\"logged\\n\"", "\"exitCode\":3"];
        check("last words from the file and from the log", "last-words", &words);
        checks.check("a command that does not exist", || {
            let status = self.status("bad-command", &["\"phase\":\"Failed\"", "StartError", "\"exitCode\":128"])?;
            expect("a last state, when it never ran again", "none", &status, status.contains("\"lastState\":{}"))
        });
        checks.check("a crash loop backs off, and the log before is kept", || {
            let status = self.status("crashing", &["CrashLoopBackOff", "\"exitCode\":5"])?;
            // Twice as long after each time; on a busy machine it is looked at later than after the first.
            let after = |restarts: u32| {
                let wait = format!("back-off {}s restarting", 10 << (restarts - 1));
                status.contains(&format!("\"restartCount\":{restarts},")) && status.contains(&wait)
            };
            expect("its status", "a back-off of its restarts", &status, (1..=4).any(after))?;
            expect_words("its status", &status, &["\"phase\":\"Running\""])?;
            expect_words("the log before", &self.run(&["logs", "crashing", "-p"])?, &["run "])
        });
    }

    /// What the container reads in its cgroup, whichever version the host has.
    fn limits_inside(&self, pod: &str) -> Outcome<String> {
        let script = "cd /sys/fs/cgroup; cat cpu/cpu.cfs_quota_us memory/memory.limit_in_bytes 2>/dev/null || \
                      { cut -d' ' -f1 cpu.max; cat memory.max; }";
        self.exec(pod, script)
    }

    fn resize(&self, checks: &mut Checks) {
        let resize = |resources: &str| {
            let patch = format!("{{\"spec\":{{\"containers\":[{{\"name\":\"c\",\"resources\":{resources}}}]}}}}");
            self.run(&["patch", "pod", "resizable", "--subresource=resize", "-p", &patch]).map(drop)
        };
        let inside = |expected: &str| {
            eventually("the cgroup's limits", SHORT, || {
                let said = self.limits_inside("resizable")?;
                expect("quota and limit", expected, &said, said == expected)
            })
        };
        checks.check("more CPU comes in place", || {
            self.status("resizable", &["\"ready\":true"])?;
            let before = self.field("pod resizable", ".status.containerStatuses[0].containerID")?;
            inside("20000\n33554432\n")?;
            resize(r#"{"limits":{"cpu":"300m"},"requests":{"cpu":"60m"}}"#)?;
            inside("30000\n33554432\n")?;
            let status = self.status("resizable", &["\"cpu\":\"300m\"", "\"allocatedResources\":{\"cpu\":\"60m\""])?;
            expect_words("the same container", &status, &[&before, "\"restartCount\":0"])
        });
        checks.check("more memory comes with a restart, as its policy says", || {
            resize(r#"{"limits":{"memory":"48Mi"}}"#)?;
            self.status("resizable", &["\"restartCount\":1", "\"memory\":\"48Mi\"", "\"ready\":true"])?;
            inside("30000\n50331648\n")
        });
        checks.check("more than the node has is refused, and nothing changes", || {
            let patch =
                r#"{"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"5k"},"requests":{"cpu":"4k"}}}]}}"#;
            let refused = self.cluster.kubectl(&["patch", "pod", "resizable", "--subresource=resize", "-p", patch])?;
            refused.fails(1, &["Forbidden", "node didn't have enough allocatable resources: cpu"])?;
            let status = self.status("resizable", &["\"cpu\":\"300m\"", "\"phase\":\"Running\""])?;
            expect("conditions", "no resize", &status, !status.contains("PodResize"))?;
            inside("30000\n50331648\n")
        });
    }

    fn volumes(&self, checks: &mut Checks) {
        checks.check("maps, secrets, fields, a host's file and a projection as files", || {
            self.phase("sources", "Running")?;
            let script = "cat /settings/color /one/color /keys/deep/token /all/color /all/labels; echo; \
                          cat /down/name; echo; cat /down/memory; echo; stat -L -c %a /settings/color; \
                          echo x 2>/dev/null > /host-name || echo refused";
            let said = self.exec("sources", script)?;
            expect_words("the files", &said, &["greengreens3cretgreentier=\"one\"", "sources\n16", "440", "refused"])
        });
        checks.check("a token for an audience, bound to the pod", || {
            let claims = self.exec("sources", "cut -d. -f2 /all/bound | tr _- /+ | base64 -d 2>/dev/null; true")?;
            let uid = self.field("pod sources", ".metadata.uid")?;
            expect_words(
                "its claims",
                &claims,
                &["\"aud\":[\"vault\"]", &uid, "\"sub\":\"system:serviceaccount:default:default\""],
            )
        });
        checks.check("the pod's own token is good at the API server", || {
            let token = self.exec("sources", "cat /var/run/secrets/kubernetes.io/serviceaccount/token")?;
            let said = self.run(&[
                "auth",
                "whoami",
                "-o",
                "json",
                "--token",
                token.trim(),
                "--kubeconfig",
                "/dev/null",
                "--insecure-skip-tls-verify",
                "--server",
                &self.server()?,
            ]);
            expect_words("who it is", &said?, &["system:serviceaccount:default:default", "sources"])
        });
        checks.check("changes of the sources come through, but not to a subPath", || {
            self.run(&["patch", "configmap", "settings", "-p", r#"{"data":{"color":"blue","new":"x"}}"#])?;
            self.run(&["label", "pod", "sources", "tier=two", "--overwrite"])?;
            eventually("the new files", SHORT, || {
                let said =
                    self.exec("sources", "cat /settings/color /all/color /down/labels /one/color /settings/new")?;
                expect_words("the files", &said, &["bluebluetier=\"two\"greenx"])
            })
        });
    }

    fn server(&self) -> Outcome<String> {
        self.run(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"])
    }

    fn probes_and_hooks(&self, checks: &mut Checks) {
        let ready = |ready: &str| {
            eventually(&format!("endpoints whose readiness is {ready}"), SHORT, || {
                let what = "endpointslices -l kubernetes.io/service-name=probed";
                let said = self.field(what, ".items[*].endpoints[*].conditions.ready")?;
                expect("readiness", ready, &said, said == ready)
            })
        };
        checks.check("readiness comes, goes and comes, and endpoints follow", || {
            ready("true")?;
            self.exec("probed", "rm /tmp/www/ready")?;
            ready("false")?;
            self.exec("probed", "echo > /tmp/www/ready")?;
            ready("true")
        });
        checks.check("failed liveness restarts", || {
            self.exec("probed", "rm /tmp/alive")?;
            self.status("probed", &["\"restartCount\":1", "\"ready\":true"])?;
            let events = self.run(&["get", "events", "--field-selector", "involvedObject.name=probed"])?;
            expect_words("events", &events, &["Liveness probe failed", "failed liveness probe, will be restarted"])
        });
        checks.check("hooks run around the container's life, before SIGTERM", || {
            self.status("hooked", &["\"ready\":true"])?;
            self.run(&["delete", "pod", "hooked"])?;
            let said = std::fs::read_to_string(self.scratch().join("hooked")).unwrap_or_default();
            expect("what it wrote", "started, stopping, term", &said, said == "started\nstopping\nterm\n")
        });
        checks.check("who does not hear SIGTERM is killed when its time is over", || {
            self.phase("stubborn", "Running")?;
            let start = Instant::now();
            self.run(&["delete", "pod", "stubborn"])?;
            let took = start.elapsed();
            let (least, most) = (Duration::from_secs(2), Duration::from_secs(20));
            expect("its end", "about 2 s later", format!("{took:?}"), (least..most).contains(&took))
        });
    }

    fn forced_deletion(&self, checks: &mut Checks) {
        let sleepers = || {
            let processes = std::fs::read_dir("/proc").unwrap().flatten();
            let lines = processes.filter_map(|p| std::fs::read(p.path().join("cmdline")).ok());
            lines.filter(|line| line.starts_with(b"sleep\x0098765\0")).count()
        };
        checks.check("a forced deletion waits for nobody", || {
            self.phase("patient", "Running")?;
            expect("its process", 1, sleepers(), sleepers() == 1)?;
            self.run(&["delete", "pod", "patient", "--force", "--grace-period=0"])?;
            eventually("the end of its process", SHORT, || expect("its process", 0, sleepers(), sleepers() == 0))
        });
        checks.check("a volume's source may come late", || {
            self.run(&["create", "configmap", "later", "--from-literal=key=value"])?;
            self.phase("early", "Running").map(drop)
        });
    }

    fn streams(&self, checks: &mut Checks) {
        checks.check("logs: all, the tail, with times", || {
            let all = self.logs_say("talker", &["line 1\nline 2\nline 3", "to-stderr"])?;
            expect("lines", 4, all.lines().count(), all.lines().count() == 4)?;
            let tail = self.run(&["logs", "talker", "--tail=1"])?;
            expect("the tail", "one line", &tail, tail.lines().count() == 1)?;
            let timed = self.run(&["logs", "talker", "--timestamps", "--since=1h"])?;
            expect_words("times", &timed, &["Z line 1"])
        });
        checks.check("attach reaches stdin, and a followed log its answer", || {
            let follow = self.cluster.kubectl_command(&["logs", "-f", "talker", "--tail=1"]);
            let mut follow = Background::start(follow)?;
            follow.wait_for("to-stderr", SHORT).or_else(|_| follow.wait_for("line", SHORT))?;
            let mut shell = self.cluster.kubectl_command(&["attach", "-i", "talker"]);
            let mut shell =
                shell.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
            std::io::Write::write_all(shell.stdin.as_mut().unwrap(), b"a word\n").unwrap();
            let heard = follow.wait_for("got a word", SHORT).map(drop);
            shell.kill().and_then(|()| shell.wait()).unwrap();
            heard
        });
        checks.check("exec: stdin, the exit code, a command that is not there", || {
            let said = self.cluster.kubectl_with(&["exec", "-i", "shared", "-c", "b", "--", "cat"], "through")?.ok()?;
            expect_words("cat", &said, &["through"])?;
            let code = self.cluster.kubectl(&["exec", "shared", "-c", "b", "--", "sh", "-c", "exit 42"])?.code;
            expect("the exit code", 42, code, code == 42)?;
            let absent = self.cluster.kubectl(&["exec", "shared", "-c", "b", "--", "/no/such"])?;
            expect_words("no command", &absent.stderr, &["no such file or directory"])
        });
        checks.check("a forwarded port", || {
            let mut forward = self.cluster.kubectl_beside(&["port-forward", "pod/host-port", "19090:8080"])?;
            forward.wait_for("Forwarding from 127.0.0.1:19090", SHORT)?;
            let page = self.cluster.get(([127, 0, 0, 1], 19090).into(), "/")?;
            expect_words("the page", &page.body, &["by-port"])
        });
        checks.check("an ephemeral container sees its target", || {
            let args = ["debug", "shared", "--image=busybox:1", "--target=a", "--profile=general", "-c", "dbg"];
            self.run(&[args.as_slice(), &["--", "sh", "-c", "ps -o args"]].concat())?;
            eventually("its log", SHORT, || {
                expect_words("its log", &self.run(&["logs", "shared", "-c", "dbg"])?, &["sleep 1111"])
            })?;
            self.status("shared", &["\"ephemeralContainerStatuses\"", "\"reason\":\"Completed\""]).map(drop)
        });
    }

    fn static_pods(&self, checks: &mut Checks) {
        let file = self.cluster.data_dir().join("manifests/fixed.yaml");
        let manifest = |version: &str| {
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: fixed, namespace: default, labels: {{v: '{version}'}}}}, \
                 spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: c, image: 'busybox:1', \
                 command: [sh, -c, 'echo version {version}; sleep 1000']}}]}}}}"
            )
        };
        let name = || Ok(format!("fixed-{}", self.field("nodes", ".items[0].metadata.name")?));
        let runs = |version: &str| {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, manifest(version)).unwrap();
            let pod = name()?;
            eventually("the mirror pod", SHORT, || {
                let said = self.field(&format!("pod {pod}"), ".metadata.labels.v")?;
                expect("its version", version, &said, said == version)
            })?;
            self.logs_say(&pod, &[&format!("version {version}")]).map(drop)
        };
        checks.check("a static pod appears", || runs("1"));
        checks.check("it changes with its manifest", || runs("2"));
        checks.check("its mirror comes back", || {
            let pod = name()?;
            let uid = self.field(&format!("pod {pod}"), ".metadata.uid")?;
            self.run(&["delete", "pod", &pod, "--force", "--grace-period=0"])?;
            eventually("another mirror", SHORT, || {
                let now = self.field(&format!("pod {pod}"), ".metadata.uid")?;
                expect("its uid", "another", &now, now != uid)
            })
        });
        checks.check("it goes with its manifest", || {
            std::fs::remove_file(&file).unwrap();
            let pod = name()?;
            self.run(&["wait", "--for=delete", &format!("pod/{pod}"), "--timeout=20s"]).map(drop)
        });
    }

    fn kubelets_own_answers(&self, checks: &mut Checks) {
        let node = must("the node", self.field("nodes", ".items[0].metadata.name"));
        let mut check = |path: &str, words: &[&str]| {
            checks.check(&format!("the kubelet's {path}"), || {
                let answer = self.run(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/{path}")])?;
                expect_words(path, &answer, words)
            });
        };
        check("healthz", &["ok"]);
        check("pods", &["PodList", "\"limited\""]);
        let words = [
            "\"limited\"",
            "workingSetBytes",
            "usageCoreNanoSeconds",
            "rootfs",
            "\"imageFs\"",
            "\"startTime\"",
            "\"rxBytes\"",
        ];
        check("stats/summary", &words);
        let words = [
            "container_memory_working_set_bytes{container=\"c\",namespace=\"default\",pod=\"limited\"}",
            "container_start_time_seconds{container=\"c\",namespace=\"default\",pod=\"limited\"}",
            "pod_cpu_usage_seconds_total{namespace=\"default\",pod=\"limited\"}",
            "node_cpu_usage_seconds_total",
        ];
        check("metrics/resource", &words);
        check("containerLogs/default/talker/c?tailLines=2", &["got a word"]);
    }

    fn crowd(&self) -> Outcome {
        let replicas = format!("--replicas={CROWD}");
        self.run(&["create", "deployment", "crowd", "--image=busybox:1", &replicas, "--", "sleep", "1000"])?;
        self.run(&["rollout", "status", "deployment/crowd", "--timeout=60s"])?;
        self.run(&["scale", "deployment", "crowd", "--replicas=0"])?;
        // Deleted in the midst of their start.
        for index in 0..4 {
            self.run(&[
                "run",
                &format!("brief-{index}"),
                "--image=busybox:1",
                "--labels=app=crowd",
                "--",
                "sleep",
                "1000",
            ])?;
        }
        self.run(&["delete", "pods", "-l", "app=crowd", "--grace-period=1", "--wait=false"])?;
        eventually("no pod of the crowd", LONG, || {
            let left = self.field("pods -l app=crowd", ".items[*].metadata.name")?;
            expect("pods", "none", &left, left.is_empty())
        })
    }
}
