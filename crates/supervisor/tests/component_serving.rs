//! The servers of components that run alone: who may ask what, and what they tell.
#![allow(clippy::unwrap_used, missing_docs)]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ironkeel_supervisor::{ApiServerArguments, Component, ComponentArguments, api_server_arguments};
use ironkeel_testkit::free_port;
use tokio::sync::oneshot;

const TOKENS: &str = "t-admin,admin,1,\"system:masters\"\nt-manager,system:kube-controller-manager,2\n\
                      t-scheduler,system:kube-scheduler,3\nt-monitor,prometheus,4,\"system:monitoring\"\nt-ann,ann,5\n";

fn kubeconfig(dir: &Path, name: &str, port: u16, token: &str) -> PathBuf {
    let path = dir.join(format!("{name}-{port}.kubeconfig"));
    let user = if token.is_empty() { String::new() } else { format!("token: {token}") };
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         clusters: [{{name: k, cluster: {{server: \"https://127.0.0.1:{port}\", insecure-skip-tls-verify: true}}}}]\n\
         users: [{{name: u, user: {{{user}}}}}]\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// The code and the body.
async fn get(dir: &Path, port: u16, token: &str, path: &str) -> (u16, String) {
    let client = ironkeel_client::from_kubeconfig(kubeconfig(dir, "asker", port, token)).await.unwrap();
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    match client.request_text(request).await {
        Ok(text) => (200, text),
        Err(kube::Error::Api(status)) => (status.code, status.message),
        Err(error) => (0, error.to_string()),
    }
}

async fn until<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) {
    for _ in 0..1000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come");
}

fn component(component: Component, arguments: Vec<String>) -> (oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let Ok(ComponentArguments::Run(command)) = component.arguments(arguments) else { panic!("{component:?}") };
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::task::spawn_local(async move {
        let stop = async {
            let _ = stopped.await;
        };
        command.run("/nonexistent".into(), Box::pin(stop)).await.unwrap();
    });
    (stop, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn components_are_asked_by_whom_the_api_server_allows() {
    // Commands run where they were made.
    tokio::task::LocalSet::new().run_until(ask_components()).await;
}

async fn ask_components() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let (tokens, key) = (dir.join("tokens.csv"), dir.join("sa.key"));
    std::fs::write(&tokens, TOKENS).unwrap();
    std::fs::write(&key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let port = free_port();
    let line = format!(
        "--data-dir={} --bind-address=127.0.0.1 --secure-port={port} --service-account-issuer=https://issuer \
         --service-account-signing-key-file={} --token-auth-file={} --authorization-mode=RBAC",
        dir.join("data").display(),
        key.display(),
        tokens.display()
    );
    let arguments = line.split_whitespace().map(str::to_owned).collect();
    let Ok(ApiServerArguments::Serve(command)) = api_server_arguments(arguments) else { panic!("the API server") };
    let (stop_server, stopped) = oneshot::channel::<()>();
    let server = tokio::task::spawn_local(async move {
        let stop = async {
            let _ = stopped.await;
        };
        command.run(Box::pin(stop)).await.unwrap();
    });
    until("the API server", || async { get(dir, port, "t-admin", "/readyz").await.0 == 200 }).await;
    let flags = get(dir, port, "t-monitor", "/flagz").await;
    assert!(flags.1.contains("authorization-mode=[RBAC]\n"), "{flags:?}");
    assert!(get(dir, port, "t-monitor", "/metrics").await.1.contains("kubernetes_feature_enabled{name=\"WatchList\""));

    for (which, name, token) in [
        (Component::Scheduler, "kube-scheduler", "t-scheduler"),
        (Component::ControllerManager, "kube-controller-manager", "t-manager"),
    ] {
        let own = free_port();
        let config = kubeconfig(dir, name, port, token);
        let config = config.display();
        let line = format!(
            "--kubeconfig={config} --authentication-kubeconfig={config} --authorization-kubeconfig={config} \
             --bind-address=127.0.0.1 --secure-port={own} --leader-elect-lease-duration=5s \
             --leader-elect-renew-deadline=4s --leader-elect-retry-period=1s"
        );
        let (stop, task) = component(which, line.split_whitespace().map(str::to_owned).collect());
        until(name, || async { get(dir, own, "", "/healthz").await == (200, "ok".to_owned()) }).await;
        let anonymous = get(dir, own, "", "/metrics").await;
        assert_eq!(anonymous.0, 403, "{anonymous:?}");
        assert_eq!(get(dir, own, "t-ann", "/metrics").await.0, 403);
        assert_eq!(get(dir, own, "t-nobody", "/metrics").await.0, 401);
        assert_eq!(get(dir, own, "t-monitor", "/nothing").await.0, 403);
        assert_eq!(get(dir, own, "t-admin", "/nothing").await.0, 404);
        let page = get(dir, own, "t-monitor", "/metrics").await.1;
        assert!(page.contains("\nkubernetes_build_info{"), "{page}");
        assert!(page.contains("\nprocess_resident_memory_bytes "), "{page}");
        let flags = get(dir, own, "t-monitor", "/flagz").await.1;
        assert!(flags.contains(&format!("secure-port={own}\n")), "{flags}");
        if which == Component::ControllerManager {
            until("work in queues", || async {
                let page = get(dir, own, "t-monitor", "/metrics").await.1;
                page.lines().any(|l| {
                    let adds = l.strip_prefix("workqueue_adds_total{name=\"");
                    adds.is_some_and(|rest| rest.starts_with("serviceaccount\"") && !rest.ends_with(" 0"))
                })
            })
            .await;
        } else {
            let leads = "leader_election_master_status{name=\"kube-scheduler\"} 1";
            until("leadership", || async { get(dir, own, "t-monitor", "/metrics").await.1.contains(leads) }).await;
        }
        stop.send(()).unwrap();
        task.await.unwrap();
        assert_eq!(get(dir, own, "", "/healthz").await.0, 0, "the port is closed");
    }
    stop_server.send(()).unwrap();
    server.await.unwrap();
}
