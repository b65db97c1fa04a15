//! What a user gets wrong: upstream's status code and reason, and nothing stored.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use ironkeel_testkit::run::{LONG, SHORT, eventually};
use ironkeel_testkit::tools::{Tool, can_run};
use ironkeel_testkit::{Background, Checks, Cluster, Error, Options, Outcome, expect, expect_words, http, must};
use serde_json::{Value, json};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[test]
fn bad_input_gets_upstreams_answer_and_stores_nothing() {
    if !can_run("bad_input", &[Tool::Kubectl]) {
        return;
    }
    let cluster = must("a cluster", Cluster::start(Options::new(env!("CARGO_BIN_EXE_ironkeel"))));
    let sender = must("kubectl proxy", Sender::start(&cluster));
    let mut checks = Checks::new("bad_input");
    sender.bodies(&mut checks);
    sender.fields(&mut checks);
    sender.requests(&mut checks);
    sender.conflicts(&mut checks);
    sender.through_kubectl(&mut checks);
    checks.check("an image that is nowhere: ErrImagePull, then ImagePullBackOff", || sender.missing_image());
    checks.check("an image that is never pulled", || sender.never_pulled());
    checks.check("a command that is not in the image", || sender.missing_command());
    checks.finish();
}

/// Sends requests as the administrator, through `kubectl proxy`.
struct Sender<'a> {
    cluster: &'a Cluster,
    server: SocketAddr,
    _proxy: Background,
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "bad" },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": "bad" } },
            "template": {
                "metadata": { "labels": { "app": "bad" } },
                "spec": { "containers": [{ "name": "c", "image": "docker.io/library/busybox:1" }] },
            },
        },
    })
}

impl<'a> Sender<'a> {
    fn start(cluster: &'a Cluster) -> Outcome<Self> {
        let mut proxy = cluster.kubectl_beside(&["proxy", "--port=18001"])?;
        proxy.wait_for("Starting to serve on", SHORT)?;
        Ok(Sender { cluster, server: ([127, 0, 0, 1], 18001).into(), _proxy: proxy })
    }

    fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Outcome<http::Answer> {
        let (server, headers) = (self.server, [("Content-Type", kind)]);
        let asked = self.cluster.namespace().enter(|| http::request(server, method, path, &headers, body))?;
        asked.map_err(|source| Error::Io { step: format!("{method} {path}"), source })
    }

    /// Sends a body that must be answered with a Status of this code, reason and words, and must not
    /// have become an object called `bad`.
    fn refused(&self, path: &str, kind: &str, body: &[u8], code: u16, reason: &str, words: &[&str]) -> Outcome {
        let answer = self.send("POST", path, kind, body)?;
        is_status(&answer, code, reason, words)?;
        let bare = path.split('?').next().unwrap_or_default();
        let stored = self.send("GET", &format!("{bare}/bad"), JSON, &[])?;
        expect("the object afterwards", 404, stored.status, stored.status == 404)
    }

    fn bodies(&self, checks: &mut Checks) {
        checks.check("JSON that is none", || {
            self.refused(CONFIGMAPS, JSON, br#"{"kind": "ConfigMap", "#, 400, "BadRequest", &[])
        });
        checks.check("a YAML bomb", || {
            let mut bomb =
                String::from("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
            for i in 1..12 {
                let above = format!("*a{},", i - 1).repeat(10);
                bomb += &format!("a{i}: &a{i} [{}]\n", above.trim_end_matches(','));
            }
            let answer = self.send("POST", CONFIGMAPS, YAML, bomb.as_bytes())?;
            let code = answer.status;
            expect("the status code", "400 or 413", format!("{code}: {}", answer.body), code == 400 || code == 413)?;
            let stored = self.send("GET", &format!("{CONFIGMAPS}/bad"), JSON, &[])?;
            expect("the object afterwards", 404, stored.status, stored.status == 404)
        });
        checks.check("deeply nested JSON", || {
            let deep = format!(
                r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"bad"}},"x":{}1{}}}"#,
                "[".repeat(20_000),
                "]".repeat(20_000)
            );
            self.refused(CONFIGMAPS, JSON, deep.as_bytes(), 400, "BadRequest", &[])
        });
        checks.check("a body of 4 MiB", || {
            let big = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "bad" }, "data": { "k": "x".repeat(4 << 20) } });
            self.refused(CONFIGMAPS, JSON, big.to_string().as_bytes(), 413, "RequestEntityTooLarge", &["limit is 3145728"])
        });
        checks.check("a ConfigMap of 1.5 MiB", || {
            let big = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "bad" }, "data": { "k": "x".repeat(3 << 19) } });
            self.refused(CONFIGMAPS, JSON, big.to_string().as_bytes(), 422, "Invalid", &["Too long", "1048576"])
        });
        checks.check("a body of another version, of another kind", || {
            let body = deployment().to_string();
            let words = [r#"Deployment in version \"v1\" cannot be handled as a ConfigMap"#];
            self.refused(CONFIGMAPS, JSON, body.as_bytes(), 400, "BadRequest", &words)?;
            let body = br#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"bad"}}"#;
            let words = [r#"Secret in version \"v1\" cannot be handled as a ConfigMap"#];
            self.refused(CONFIGMAPS, JSON, body, 400, "BadRequest", &words)
        });
    }

    fn fields(&self, checks: &mut Checks) {
        let changed = |change: &dyn Fn(&mut Value)| {
            let mut object = deployment();
            change(&mut object);
            object.to_string()
        };
        checks.check("an unknown field, strictly", || {
            let body = changed(&|d| d["spec"]["replica"] = json!(2));
            let path = format!("{DEPLOYMENTS}?fieldValidation=Strict");
            self.refused(
                &path,
                JSON,
                body.as_bytes(),
                400,
                "BadRequest",
                &[r#"strict decoding error: unknown field \"spec.replica\""#],
            )
        });
        checks.check("an unknown field, with a warning", || {
            let body = changed(&|d| d["spec"]["replica"] = json!(2));
            let path = format!("{DEPLOYMENTS}?fieldValidation=Warn&dryRun=All");
            let answer = self.send("POST", &path, JSON, body.as_bytes())?;
            let warning = answer.header("warning").unwrap_or_default();
            expect("the status code", 201, &answer.body, answer.status == 201)?;
            expect("the warning", "spec.replica", warning, warning.contains(r#"unknown field \"spec.replica\""#))
        });
        checks.check("a field given twice, strictly", || {
            let body = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"bad"},"data":{},"data":{}}"#;
            let path = format!("{CONFIGMAPS}?fieldValidation=Strict");
            self.refused(&path, JSON, body, 400, "BadRequest", &[r#"duplicate field \"data\""#])
        });
        checks.check("a wrong type", || {
            let body = changed(&|d| d["spec"]["replicas"] = json!("three"));
            self.refused(DEPLOYMENTS, JSON, body.as_bytes(), 400, "BadRequest", &["replicas"])
        });
        checks.check("a missing required field", || {
            let body = changed(&|d| d["spec"]["selector"] = Value::Null);
            self.refused(DEPLOYMENTS, JSON, body.as_bytes(), 422, "Invalid", &["spec.selector", "Required value"])
        });
        checks.check("two faults in one object", || {
            let body = changed(&|d| {
                d["spec"]["replicas"] = json!(-1);
                d["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("Sometimes");
            });
            let words = ["spec.replicas", "greater than or equal to 0", "imagePullPolicy", "Unsupported value"];
            self.refused(DEPLOYMENTS, JSON, body.as_bytes(), 422, "Invalid", &words)
        });
        checks.check("a name that is none", || {
            let body = changed(&|d| d["metadata"]["name"] = json!("Bad_Name"));
            self.refused(DEPLOYMENTS, JSON, body.as_bytes(), 422, "Invalid", &["metadata.name", "RFC 1123"])
        });
        checks.check("no name", || {
            let body = changed(&|d| d["metadata"] = json!({}));
            self.refused(DEPLOYMENTS, JSON, body.as_bytes(), 422, "Invalid", &["name or generateName is required"])
        });
    }

    fn requests(&self, checks: &mut Checks) {
        checks.check("paths that lead nowhere", || {
            for path in ["/api/v1/namespaces/default/nothings", "/apis/nowhere.example.com/v1", "/nowhere"] {
                let answer = self.send("GET", path, JSON, &[])?;
                expect(path, 404, answer.status, answer.status == 404)?;
            }
            Ok(())
        });
        checks.check("a media type that nobody speaks", || {
            let answer = self.send("POST", CONFIGMAPS, "text/csv", b"a,b")?;
            is_status(&answer, 415, "UnsupportedMediaType", &[])
        });
        checks.check("a verb that the resource lacks", || {
            let answer = self.send("PUT", CONFIGMAPS, JSON, b"{}")?;
            is_status(&answer, 405, "MethodNotAllowed", &[])
        });
        checks.check("a namespace that is not there", || {
            let body = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"bad"}}"#;
            let path = CONFIGMAPS.replace("default", "nowhere");
            self.refused(&path, JSON, body, 404, "NotFound", &[r#"namespaces \"nowhere\" not found"#])
        });
        checks.check("selectors that are none", || {
            let answer = self.send("GET", "/api/v1/pods?labelSelector=a%3D%3D%3Db", JSON, &[])?;
            is_status(&answer, 400, "BadRequest", &[])?;
            let answer = self.send("GET", "/api/v1/pods?fieldSelector=spec.nothing%3Db", JSON, &[])?;
            is_status(&answer, 400, "BadRequest", &["spec.nothing"])
        });
    }

    fn conflicts(&self, checks: &mut Checks) {
        let good = |value: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "good" }, "data": { "k": value } });
        let kept = |value: &str| -> Outcome {
            let stored = self.send("GET", &format!("{CONFIGMAPS}/good"), JSON, &[])?.json();
            expect("the stored value", value, &stored, stored["data"]["k"] == value)
        };
        checks.check("a name that is taken", || {
            let created = self.send("POST", CONFIGMAPS, JSON, good("1").to_string().as_bytes())?;
            expect("the first create", 201, &created.body, created.status == 201)?;
            let again = self.send("POST", CONFIGMAPS, JSON, good("2").to_string().as_bytes())?;
            is_status(&again, 409, "AlreadyExists", &[r#"configmaps \"good\" already exists"#])?;
            kept("1")
        });
        checks.check("a stale resourceVersion", || {
            let path = format!("{CONFIGMAPS}/good");
            let mut object = self.send("GET", &path, JSON, &[])?.json();
            object["data"]["k"] = json!("3");
            let updated = self.send("PUT", &path, JSON, object.to_string().as_bytes())?;
            expect("the first update", 200, &updated.body, updated.status == 200)?;
            object["data"]["k"] = json!("4");
            let stale = self.send("PUT", &path, JSON, object.to_string().as_bytes())?;
            is_status(&stale, 409, "Conflict", &["the object has been modified"])?;
            kept("3")
        });
        checks.check("a delete that expects another object", || {
            let options = json!({ "preconditions": { "uid": "00000000-0000-0000-0000-000000000000" } });
            let answer = self.send("DELETE", &format!("{CONFIGMAPS}/good"), JSON, options.to_string().as_bytes())?;
            is_status(&answer, 409, "Conflict", &["UID"])?;
            kept("3")
        });
        checks.check("an immutable field", || {
            let mut object = deployment();
            object["metadata"]["name"] = json!("fixed");
            object["spec"]["replicas"] = json!(0);
            let created = self.send("POST", DEPLOYMENTS, JSON, object.to_string().as_bytes())?;
            expect("the create", 201, &created.body, created.status == 201)?;
            let patch = br#"{"spec":{"selector":{"matchLabels":{"app":"other"}}}}"#;
            let path = format!("{DEPLOYMENTS}/fixed");
            let answer = self.send("PATCH", &path, "application/merge-patch+json", patch)?;
            is_status(&answer, 422, "Invalid", &["spec.selector", "field is immutable"])
        });
    }

    fn through_kubectl(&self, checks: &mut Checks) {
        checks.check("kubectl names the unknown field", || {
            let manifest = "{apiVersion: v1, kind: ConfigMap, metadata: {name: bad}, datum: {}}";
            let output = self.cluster.kubectl_with(&["apply", "-f", "-"], manifest)?;
            output.fails(1, &[r#"unknown field "datum""#])
        });
        checks.check("kubectl names the missing object", || {
            self.cluster.kubectl(&["get", "pod", "nobody"])?.fails(1, &[r#"pods "nobody" not found"#])
        });
    }

    fn run_pod(&self, name: &str, flags: &[&str]) -> Outcome {
        let args = [&["run", name, "--restart=Never"], flags].concat();
        self.cluster.kubectl(&args)?.done()
    }

    fn waits_for_reason(&self, pod: &str, reasons: &[&str]) -> Outcome {
        let path = ".status.containerStatuses[0].state.waiting.reason";
        eventually(&format!("the reason {reasons:?}"), LONG, || {
            let reason = self.cluster.field(&format!("pod {pod}"), path)?;
            expect("the waiting reason", reasons.join(" or "), &reason, reasons.contains(&reason.as_str()))
        })
    }

    fn missing_image(&self) -> Outcome {
        // Port 1 of loopback refuses at once.
        self.run_pod("nowhere", &["--image=127.0.0.1:1/nowhere:1"])?;
        // The first state passes; a look may come after it.
        self.waits_for_reason("nowhere", &["ErrImagePull", "ImagePullBackOff"])?;
        self.waits_for_reason("nowhere", &["ImagePullBackOff"])?;
        let described = self.cluster.kubectl(&["describe", "pod", "nowhere"])?.ok()?;
        expect_words(
            "the pod's events",
            &described,
            &["Failed to pull image", "ErrImagePull", "ImagePullBackOff", "refused"],
        )
    }

    fn never_pulled(&self) -> Outcome {
        self.run_pod("never", &["--image=127.0.0.1:1/nowhere:2", "--image-pull-policy=Never"])?;
        self.waits_for_reason("never", &["ErrImageNeverPull"])
    }

    fn missing_command(&self) -> Outcome {
        self.run_pod("mistyped", &["--image=docker.io/library/busybox:1", "--command", "--", "/no/such/program"])?;
        let pod = "pod mistyped";
        eventually("a terminated container", LONG, || {
            let code = self.cluster.field(pod, ".status.containerStatuses[0].state.terminated.exitCode")?;
            let message = self.cluster.field(pod, ".status.containerStatuses[0].state.terminated.message")?;
            let told = message.contains("no such file or directory") || message.contains("No such file or directory");
            expect("exit code and message", "128 and the reason", format!("{code} {message}"), code == "128" && told)
        })
    }
}

fn is_status(answer: &http::Answer, code: u16, reason: &str, words: &[&str]) -> Outcome {
    let status = answer.json();
    let right =
        answer.status == code && status["kind"] == "Status" && status["reason"] == reason && status["code"] == code;
    expect("the answer", format!("a Status {code} {reason}"), format!("{}: {}", answer.status, answer.body), right)?;
    expect_words("the answer", &answer.body, words)
}
