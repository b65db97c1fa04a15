//! An unmodified helm with a chart of the tests' own.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use ironkeel_testkit::tools::{Tool, can_run};
use ironkeel_testkit::{Checks, Cluster, Options, Outcome, expect, must};

const DEPLOYMENT: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  replicas: {{ .Values.replicas }}
  selector: { matchLabels: { app: {{ .Release.Name }} } }
  template:
    metadata:
      labels: { app: {{ .Release.Name }} }
    spec:
      containers:
        - name: web
          image: example.com/guestbook:{{ .Values.version }}
          args: [web]
          readinessProbe: { httpGet: { path: /readyz, port: 8080 }, periodSeconds: 1 }
"#;
const CONFIG: &str = r#"apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}
data:
  greeting: {{ .Values.greeting | quote }}
  kubernetes: {{ .Capabilities.KubeVersion.Version | quote }}
"#;
const HOOK: &str = r#"apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-before
  annotations: { helm.sh/hook: pre-upgrade, helm.sh/hook-delete-policy: "before-hook-creation,hook-succeeded" }
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{ name: hook, image: "docker.io/library/busybox:1", command: ["true"] }]
"#;

fn chart(folder: &Path) -> PathBuf {
    let chart = folder.join("greeter");
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(chart.join(name), text).unwrap();
    write("Chart.yaml", "apiVersion: v2\nname: greeter\nversion: 0.1.0\nkubeVersion: '>=1.36.0-0'\n");
    write("values.yaml", "replicas: 1\nversion: 1\ngreeting: hello\n");
    write("templates/deployment.yaml", DEPLOYMENT);
    write("templates/config.yaml", CONFIG);
    write("templates/hook.yaml", HOOK);
    chart
}

#[test]
fn an_unmodified_helm_installs_upgrades_rolls_back_and_uninstalls() {
    if !can_run("helm", &[Tool::Kubectl, Tool::Helm]) {
        return;
    }
    let cluster = must("a cluster", Cluster::start(Options::new(env!("CARGO_BIN_EXE_ironkeel"))));
    let chart = chart(cluster.scratch());
    let chart = chart.to_str().unwrap();
    let greeting = |expected: &str| -> Outcome {
        let got = cluster.field("-n charts configmap hi", ".data.greeting")?;
        expect("the greeting", expected, &got, got == expected)
    };
    let image = |expected: &str| -> Outcome {
        let got = cluster.field("-n charts deployment hi", ".spec.template.spec.containers[0].image")?;
        expect("the image", expected, &got, got.ends_with(expected))
    };
    let helm = |line: &str| cluster.helm(&["-n", "charts"].into_iter().chain(line.split(' ')).collect::<Vec<_>>());
    let mut checks = Checks::new("helm");
    checks.check("install --wait", || {
        helm(&format!("install hi {chart} --create-namespace --wait --timeout 60s"))?.says(&["STATUS: deployed"])?;
        let ready = cluster.field("-n charts deployment hi", ".status.readyReplicas")?;
        expect("ready replicas", 1, &ready, ready == "1")?;
        let version = cluster.field("-n charts configmap hi", ".data.kubernetes")?;
        expect(".Capabilities.KubeVersion", "v1.36", &version, version.starts_with("v1.36."))?;
        greeting("hello")
    });
    checks.check("list, status, get", || {
        helm("list")?.says(&["hi", "greeter-0.1.0", "deployed"])?;
        helm("status hi")?.says(&["REVISION: 1"])?;
        helm("get manifest hi")?.says(&["kind: Deployment"]).map(drop)
    });
    checks.check("a second install of the same name", || helm(&format!("install hi {chart}"))?.fails(1, &["in use"]));
    checks.check("upgrade --wait, with a hook", || {
        let set = "--set replicas=2,version=2,greeting=bye --wait --timeout 60s";
        helm(&format!("upgrade hi {chart} {set}"))?.says(&["REVISION: 2"])?;
        let ready = cluster.field("-n charts deployment hi", ".status.readyReplicas")?;
        expect("ready replicas", 2, &ready, ready == "2")?;
        image("guestbook:2")?;
        greeting("bye")
    });
    checks.check("rollback --wait", || {
        helm("rollback hi 1 --wait --timeout 60s")?.says(&["Rollback was a success"])?;
        helm("history hi")?.says(&["superseded", "Rollback to 1"])?;
        image("guestbook:1")?;
        greeting("hello")
    });
    checks.check("uninstall --wait", || {
        helm("uninstall hi --wait --timeout 60s")?.says(&["uninstalled"])?;
        cluster.kubectl(&["-n", "charts", "get", "deployment", "hi"])?.fails(1, &["NotFound"])?;
        cluster.kubectl(&["-n", "charts", "get", "configmap", "hi"])?.fails(1, &["NotFound"])?;
        let secrets = cluster.kubectl(&["-n", "charts", "get", "secrets", "-o", "name"])?.ok()?;
        expect("release records", "none", &secrets, !secrets.contains("helm.release"))
    });
    checks.finish();
}
