//! An unmodified kubectl on the guestbook: every command that the README and daily work use.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use ironkeel_testkit::run::{self, LONG, SHORT, eventually};
use ironkeel_testkit::tools::{Tool, can_run};
use ironkeel_testkit::{Checks, Cluster, Options, Outcome, Output, expect, expect_words, must};

const NEEDED: &[Tool] = &[Tool::Kubectl];

#[test]
fn an_unmodified_kubectl_works_on_the_example() {
    if !can_run("kubectl", NEEDED) {
        return;
    }
    let cluster = must("a cluster", Cluster::start(Options::new(env!("CARGO_BIN_EXE_ironkeel"))));
    let mut checks = Checks::new("kubectl");
    checks.check("apply", || cluster.deploy_guestbook());
    let user = User { cluster: &cluster };
    user.reads(&mut checks);
    user.looks_into_pods(&mut checks);
    user.changes_objects(&mut checks);
    user.rolls_out(&mut checks);
    user.applies(&mut checks);
    user.deletes(&mut checks);
    checks.check("the main process complains about nothing fatal", || {
        let log = cluster.log();
        expect("the log of `ironkeel up`", "no panic", &log, !log.contains("panicked at"))
    });
    checks.check("stop", || cluster_stops(cluster));
    checks.finish();
}

fn cluster_stops(mut cluster: Cluster) -> Outcome {
    let code = cluster.stop()?;
    expect("the exit code after Ctrl-C", 0, code, code == 0)
}

/// Somebody who works in the namespace of the example.
struct User<'a> {
    cluster: &'a Cluster,
}

impl User<'_> {
    /// kubectl with the words of `line`, in the example's namespace.
    fn types(&self, line: &str) -> Outcome<Output> {
        self.cluster.kubectl(&words(line))
    }

    fn one_web_pod(&self) -> Outcome<String> {
        self.cluster
            .field("-n guestbook pods -l app=web --field-selector=status.phase=Running", ".items[0].metadata.name")
    }

    fn reads(&self, checks: &mut Checks) {
        checks.check("get", || {
            self.types("get pods,deployments,services,configmaps,secrets")?.says(&["pod/web-", "3/3"]).map(drop)
        });
        checks.check("get -o wide", || {
            let header = ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"];
            let text = self.types("get pods -o wide")?.says(&header)?;
            let running = text.lines().filter(|l| l.contains("1/1") && l.contains("Running")).count();
            expect("running pods", 4, &text, running == 4)
        });
        checks.check("get -o yaml", || {
            let said = ["kind: Deployment", "strategy:", "type: RollingUpdate", "availableReplicas: 3"];
            self.types("get deployment web -o yaml")?.says(&said).map(drop)
        });
        checks
            .check("get nodes", || self.types("get nodes -o wide")?.says(&["Ready", "v1.36", "192.0.2.10"]).map(drop));
        checks.check("get -w", || {
            let mut watch = self.cluster.kubectl_beside(&words("get configmaps -w"))?;
            watch.wait_for("web ", SHORT)?;
            self.types("create configmap watched --from-literal=a=1")?.done()?;
            watch.wait_for("watched ", SHORT).map(drop)
        });
        checks.check("describe", || {
            self.types("describe deployment web")?.says(&["NewReplicaSet:", "ScalingReplicaSet", "3 available"])?;
            let pod = self.one_web_pod()?;
            let said = ["Controlled By:", "ReplicaSet/web-", "Scheduled", "Pulled", "Started", "Container ID:"];
            self.types(&format!("describe pod {pod}"))?.says(&said)?;
            self.types("describe service web")?.says(&["Endpoints:", ":8080", "30080"])?;
            self.types("describe node")?.says(&["Allocatable:", "MemoryPressure", "Non-terminated Pods:"]).map(drop)
        });
        checks.check("explain", || {
            self.types("explain deployment.spec.strategy.rollingUpdate.maxSurge")?.says(&["IntOrString"])?;
            self.types("explain pods.metadata")?.says(&["Standard object's metadata", "CreationTimestamp is a"])?;
            self.types("explain pods.spec --recursive")?.says(&["containers", "topologySpreadConstraints"]).map(drop)
        });
        checks.check("api-resources", || {
            self.types("api-resources")?
                .says(&["deployments", "deploy", "apps/v1", "Ingress", "storage.k8s.io/v1"])
                .map(drop)
        });
        checks.check("api-versions, version, cluster-info", || {
            let versions =
                self.types("api-versions")?.says(&["apps/v1", "batch/v1", "rbac.authorization.k8s.io/v1"])?;
            let stable = !versions.contains("alpha") && !versions.contains("beta");
            expect("versions", "stable ones alone", &versions, stable)?;
            self.types("version")?.says(&["Server Version: v1.36"])?;
            self.types("cluster-info")?.says(&["is running at"]).map(drop)
        });
        checks.check("auth can-i", || {
            self.types("auth can-i create deployments")?.says(&["yes"])?;
            let web = "--as=system:serviceaccount:guestbook:default";
            self.types(&format!("auth can-i list secrets {web}"))?.fails(1, &["no"])?;
            self.types(&format!("get secrets {web}"))?.fails(1, &["Forbidden", "cannot list resource \"secrets\""])?;
            self.types("auth whoami")?.says(&["system:masters"]).map(drop)
        });
        checks.check("get events", || {
            self.types("get events")?.says(&["Scheduled", "Started", "ScalingReplicaSet"]).map(drop)
        });
    }

    fn looks_into_pods(&self, checks: &mut Checks) {
        checks.check("logs, logs --tail, logs -l", || {
            let pod = self.one_web_pod()?;
            self.types(&format!("logs {pod}"))?.says(&["listening on"])?;
            let one = self.types(&format!("logs {pod} --tail=1 --timestamps"))?.ok()?;
            expect("lines", 1, &one, one.lines().count() == 1 && one.contains('Z'))?;
            self.types("logs -l app=web --prefix")?.says(&["[pod/web-"])?;
            self.types("logs deployment/store -c prepare")?.done()
        });
        checks.check("logs -f", || {
            let pod = self.one_web_pod()?;
            let ip = self.cluster.field(&format!("-n guestbook pod {pod}"), ".status.podIP")?;
            let mut follow = self.cluster.kubectl_beside(&words(&format!("logs -f {pod}")))?;
            follow.wait_for("listening on", SHORT)?;
            for path in ["/followed-1", "/followed-2"] {
                self.cluster.get(format!("{ip}:8080").parse().unwrap(), path)?;
                follow.wait_for(path, SHORT)?;
            }
            Ok(())
        });
        checks.check("exec", || {
            let pod = self.one_web_pod()?;
            let exec =
                |script: &str| self.cluster.kubectl(&["-n", "guestbook", "exec", &pod, "--", "sh", "-c", script]);
            exec("echo out; echo err >&2")?.says(&["out\n"])?;
            exec("exit 7")?.fails(7, &["exit code 7"])?;
            let args = ["-n", "guestbook", "exec", "-i", &pod, "--", "cat"];
            let echoed = self.cluster.kubectl_with(&args, &"0123456789\n".repeat(20_000))?.ok()?;
            expect("bytes through cat", 220_000, echoed.len(), echoed.len() == 220_000)
        });
        checks.check("exec -it", || {
            let pod = self.one_web_pod()?;
            let command = self.cluster.kubectl_command(&["-n", "guestbook", "exec", "-it", &pod, "--", "sh"]);
            let output = run::finish_in_terminal(command, "stty size; tty\nexit 5\n", LONG)?;
            expect_words("the screen", &output.stdout, &["/dev/pts/", "40 132"])?;
            output.fails(5, &[])
        });
        checks.check("attach", || {
            let pod = self.one_web_pod()?;
            let ip = self.cluster.field(&format!("-n guestbook pod {pod}"), ".status.podIP")?;
            let mut attached = self.cluster.kubectl_beside(&words(&format!("attach {pod}")))?;
            eventually("a line through attach", SHORT, || {
                self.cluster.get(format!("{ip}:8080").parse().unwrap(), "/attached")?;
                attached.wait_for("/attached", Duration::from_millis(500))
            })
            .map(drop)
        });
        checks.check("port-forward", || {
            let mut forward = self.cluster.kubectl_beside(&words("port-forward service/web 18080:80"))?;
            forward.wait_for("Forwarding from 127.0.0.1:18080", SHORT)?;
            for _ in 0..3 {
                let answer = self.cluster.get(([127, 0, 0, 1], 18080).into(), "/")?;
                expect_words(
                    "the page",
                    &answer.body,
                    &["Guestbook, version 1", "first entry, by the init container"],
                )?;
            }
            Ok(())
        });
        checks.check("cp", || {
            let pod = self.one_web_pod()?;
            let (there, back) = (self.cluster.scratch().join("there"), self.cluster.scratch().join("back"));
            let text = "copied\n".repeat(30_000);
            std::fs::write(&there, &text).unwrap();
            self.types(&format!("cp {} {pod}:/tmp/copy", there.display()))?.done()?;
            self.types(&format!("cp {pod}:/tmp/copy {}", back.display()))?.done()?;
            let same = std::fs::read_to_string(&back).is_ok_and(|b| b == text);
            expect("the copy of a copy", "the same bytes", "others", same)
        });
    }

    fn changes_objects(&self, checks: &mut Checks) {
        checks.check("label", || {
            self.types("label deployment web tier=front")?.says(&["labeled"])?;
            self.types("get deployments -l tier=front -o name")?.says(&["deployment.apps/web"])?;
            self.types("label deployment web tier=back")?.fails(1, &["already has a value"])?;
            self.types("label deployment web tier-")?.says(&["unlabeled"]).map(drop)
        });
        checks.check("annotate", || {
            self.types("annotate service web example.com/owner=tests")?.says(&["annotated"])?;
            let owner = self.cluster.field("-n guestbook service web", r".metadata.annotations.example\.com/owner")?;
            expect("the annotation", "tests", &owner, owner == "tests")
        });
        checks.check("patch", || {
            for (kind, patch) in [
                ("strategic", r#"{"data":{"A":"1"}}"#),
                ("merge", r#"{"data":{"B":"2","A":null}}"#),
                ("json", r#"[{"op":"add","path":"/data/C","value":"3"}]"#),
            ] {
                let args = ["-n", "guestbook", "patch", "configmap", "watched", "--type", kind, "-p", patch];
                self.cluster.kubectl(&args)?.says(&["patched"])?;
            }
            let data = self.cluster.field("-n guestbook configmap watched", ".data")?;
            let kept = data.contains(r#""B":"2""#) && data.contains(r#""C":"3""#) && !data.contains(r#""A""#);
            expect("the data after three patches", "a, B and C", &data, kept)
        });
        checks.check("edit", || {
            let mut edit = self.cluster.kubectl_command(&words("edit configmap watched"));
            edit.env("KUBE_EDITOR", "sed -i -e s/B:/Edited:/");
            run::finish(edit, None, LONG)?.says(&["edited"])?;
            let data = self.cluster.field("-n guestbook configmap watched", ".data")?;
            expect("the data after the edit", "Edited", &data, data.contains(r#""Edited":"2""#))
        });
        checks.check("replace", || {
            let object = self.types("get configmap watched -o json")?.ok()?.replace("Edited", "Replaced");
            self.cluster.kubectl_with(&words("replace -f -"), &object)?.says(&["replaced"])?;
            self.cluster.kubectl_with(&words("replace -f -"), &object)?.fails(1, &["the object has been modified"])
        });
        checks.check("create, expose, run", || {
            self.types("create serviceaccount robot")?.says(&["created"])?;
            self.types("create token robot")?.says(&["."])?;
            self.types("create job once --image=docker.io/library/busybox:1 -- echo done-once")?.done()?;
            self.types("wait --for=condition=complete job/once --timeout=30s")?.done()?;
            self.types("logs job/once")?.says(&["done-once"])?;
            self.types("run box --image=docker.io/library/busybox:1 --restart=Never --command -- sleep 1000")?
                .done()?;
            self.types("wait --for=condition=Ready pod/box --timeout=30s")?.says(&["condition met"])?;
            self.types("expose pod box --port=80")?.says(&["exposed"]).map(drop)
        });
        checks.check("wait --for=jsonpath, wait --for=delete", || {
            self.types("wait --for=jsonpath={.status.phase}=Running pod/box --timeout=30s")?
                .says(&["condition met"])?;
            let gone = self.cluster.kubectl_beside(&words("wait --for=delete pod/box --timeout=60s"))?;
            self.types("delete pod box --grace-period=1")?.says(&["deleted"])?;
            let (code, lines) = gone.wait_for_end(LONG)?;
            expect("the exit code of wait --for=delete", 0, lines.join("\n"), code == 0)
        });
    }

    fn rolls_out(&self, checks: &mut Checks) {
        checks.check("scale", || {
            self.types("scale deployment web --replicas=5")?.says(&["scaled"])?;
            self.types("wait --for=jsonpath={.status.readyReplicas}=5 deployment/web --timeout=60s")?.done()?;
            self.types("scale deployment web --current-replicas=2 --replicas=3")?.fails(1, &["2"])?;
            self.types("scale deployment web --replicas=3")?.done()?;
            self.types("wait --for=jsonpath={.status.replicas}=3 deployment/web --timeout=60s")?.done()
        });
        checks.check("set image", || {
            self.types("set image deployment/web web=example.com/guestbook:2")?.says(&["image updated"])?;
            self.types("annotate deployment/web kubernetes.io/change-cause=second")?.done()
        });
        checks.check("rollout status", || {
            self.types("rollout status deployment/web --timeout=60s")?.says(&["successfully rolled out"])?;
            self.answers_version("2")
        });
        checks.check("rollout history", || {
            self.types("rollout history deployment/web")?.says(&["REVISION", "1 ", "2 ", "second"])?;
            self.types("rollout history deployment/web --revision=1")?.says(&["example.com/guestbook:1"]).map(drop)
        });
        checks.check("rollout undo", || {
            self.types("rollout undo deployment/web")?.says(&["rolled back"])?;
            self.types("rollout status deployment/web --timeout=60s")?.done()?;
            self.answers_version("1")
        });
        checks.check("rollout restart, pause, resume", || {
            self.types("rollout pause deployment/web")?.says(&["paused"])?;
            self.types("rollout undo deployment/web")?.fails(1, &["paused"])?;
            self.types("rollout resume deployment/web")?.says(&["resumed"])?;
            self.types("rollout restart deployment/web")?.says(&["restarted"])?;
            self.types("rollout status deployment/web --timeout=60s")?.done()
        });
        checks.check("set env, set resources", || {
            self.types("set env deployment/store EXTRA=1")?.says(&["env updated"])?;
            self.types("set resources deployment/store --requests=cpu=11m")?
                .says(&["resource requirements updated"])?;
            self.types("rollout status deployment/store --timeout=60s")?.done()
        });
    }

    /// Every ready pod of the Service runs `version`; one that is on its way out may answer until then.
    fn answers_version(&self, version: &str) -> Outcome {
        eventually("the new version", SHORT, || {
            for _ in 0..6 {
                let answer = self.cluster.get(self.cluster.node(30080), "/version")?;
                expect("the version", version, &answer.body, answer.body.trim() == version)?;
            }
            Ok(())
        })
    }

    fn applies(&self, checks: &mut Checks) {
        let manifest = |value: &str| {
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: applied, namespace: guestbook }}\ndata: {{ k: {value}, same: s }}\n"
            )
        };
        checks.check("apply twice, with a removal", || {
            self.cluster.kubectl_with(&words("apply -f -"), &manifest("one"))?.says(&["configmap/applied created"])?;
            self.cluster.kubectl_with(&words("apply -f -"), &manifest("one"))?.says(&["unchanged"])?;
            let without = manifest("one").replace(", same: s", "");
            self.cluster.kubectl_with(&words("apply -f -"), &without)?.says(&["configured"])?;
            let data = self.cluster.field("-n guestbook configmap applied", ".data")?;
            expect("the data", r#"{"k":"one"}"#, &data, data == r#"{"k":"one"}"#)
        });
        checks.check("diff", || {
            self.cluster.kubectl_with(&words("diff -f -"), &manifest("two"))?.fails(1, &["-  k: one", "+  k: two"])?;
            let kept = self.cluster.field("-n guestbook configmap applied", ".data.k")?;
            expect("the value after a diff", "one", &kept, kept == "one")?;
            let same = manifest("one").replace(", same: s", "");
            self.cluster.kubectl_with(&words("diff -f -"), &same)?.done()
        });
        checks.check("apply --server-side", || {
            let ours = manifest("mine").replace("applied", "serverside");
            let apply = "apply --server-side --field-manager=first -f -";
            self.cluster.kubectl_with(&words(apply), &ours)?.says(&["serverside-applied"])?;
            let theirs = ours.replace("mine", "yours");
            let apply = "apply --server-side --field-manager=second -f -";
            self.cluster.kubectl_with(&words(apply), &theirs)?.fails(1, &["conflict with \"first\"", ".data.k"])?;
            self.cluster.kubectl_with(&words(&format!("{apply} --force-conflicts")), &theirs)?.done()?;
            let text = self.types("get configmap serverside -o yaml --show-managed-fields")?;
            text.says(&["manager: second", "operation: Apply", "f:k: {}", "k: yours"]).map(drop)
        });
        checks.check("apply --dry-run=server", || {
            let other = manifest("dry").replace("applied", "dry");
            self.cluster.kubectl_with(&words("apply --dry-run=server -f -"), &other)?.says(&["(server dry run)"])?;
            self.types("get configmap dry")?.fails(1, &["NotFound"])
        });
    }

    fn deletes(&self, checks: &mut Checks) {
        checks.check("delete", || {
            self.types("delete configmap applied serverside")?
                .says(&["\"applied\" deleted", "\"serverside\" deleted"])?;
            self.types("delete deployment web --cascade=foreground")?.says(&["deleted"])?;
            self.types("get pods -l app=web --ignore-not-found")?.ok().and_then(|left| {
                let running = left.lines().filter(|l| l.contains("Running")).count();
                expect("running pods of a deleted Deployment", 0, &left, running == 0)
            })
        });
        checks.check("delete namespace", || {
            self.types("delete namespace guestbook --timeout=80s")?.says(&["deleted"])?;
            self.types("get namespace guestbook")?.fails(1, &["NotFound"])?;
            self.types("get pods,services,secrets")?.done()
        });
    }
}

fn words(line: &str) -> Vec<&str> {
    ["-n", "guestbook"].into_iter().chain(line.split(' ')).collect()
}
