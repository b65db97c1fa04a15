//! Health checks tell the truth, `/statusz` and `/flagz` what the process is, and leases of servers that are gone go.

use std::sync::Arc;

use http::Method;
use ironkeel_embedded::{Embedded, Options};
use serde_json::json;
use tokio::sync::watch;

use crate::gated::Gated;
use crate::support::{Answer, Http, cluster, start_over, start_tuned};

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.bytes.to_vec()).unwrap()
}

/// Asks until the answer has this code.
async fn until(http: &Http, path: &str, code: u16) {
    for _ in 0..2000 {
        if http.get(path).await.status == code {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{path} did not answer {code}: {}", text(&http.get(path).await));
}

#[tokio::test]
async fn a_hook_fails_its_check_until_its_work_is_done() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let inner = Embedded::open(dir.path().join("store"), Options::default()).unwrap();
    let (gate, open) = watch::channel(false);
    let store = Arc::new(Gated { inner, part: "/apiservices/", open });
    let c = start_over(dir, store, |_| {}).await;
    let admin = c.admin();
    let waiting = ["poststarthook/kube-apiserver-autoregistration", "autoregister-completion"];
    until(&admin, "/readyz/poststarthook/rbac/bootstrap-roles", 200).await;
    for family in ["healthz", "livez", "readyz"] {
        for name in waiting {
            let one = admin.get(&format!("/{family}/{name}")).await;
            assert_eq!((one.status.as_u16(), text(&one).as_str()), (500, "internal server error: not finished\n"));
        }
        let all = admin.get(&format!("/{family}")).await;
        assert_eq!(all.status, 500);
        assert!(text(&all).contains("[-]autoregister-completion failed: reason withheld\n"), "{}", text(&all));
        assert!(text(&all).contains("[+]poststarthook/rbac/bootstrap-roles ok\n"), "{}", text(&all));
        assert!(text(&all).ends_with(&format!("{family} check failed\n")), "{}", text(&all));
        let unknown = admin.get(&format!("/{family}/poststarthook/nothing")).await;
        assert_eq!((unknown.status.as_u16(), text(&unknown).as_str()), (404, "404 page not found\n"));
    }
    let failed: Vec<String> = text(&admin.get("/readyz").await)
        .lines()
        .filter_map(|l| l.strip_prefix("[-]")?.split(' ').next().map(str::to_owned))
        .collect();
    let excluded = failed.iter().map(|name| format!("exclude={name}")).collect::<Vec<_>>().join("&");
    assert_eq!(admin.get(&format!("/readyz?{excluded}")).await.status, 200);
    gate.send(true).unwrap();
    for name in waiting {
        until(&admin, &format!("/readyz/{name}"), 200).await;
    }
    until(&admin, "/readyz", 200).await;
    let metrics = text(&admin.get("/metrics/slis").await);
    for line in [
        "kubernetes_healthcheck{name=\"autoregister-completion\",type=\"readyz\"} 1",
        "kubernetes_healthchecks_total{name=\"autoregister-completion\",type=\"livez\",status=\"error\"} 2",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[tokio::test]
async fn leases_of_servers_that_are_gone_are_deleted() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    let c = start_tuned(dir.clone(), Options::default(), |c| c.hostname = "one".into()).await;
    let admin = c.admin();
    until(&admin, "/readyz", 200).await;
    let lease = |name: &str, label: &str, renewed: Option<&str>| {
        let spec = match renewed {
            Some(at) => json!({ "holderIdentity": name, "leaseDurationSeconds": 3600, "renewTime": at }),
            None => json!({ "holderIdentity": name }),
        };
        json!({ "metadata": { "name": name, "labels": { "apiserver.kubernetes.io/identity": label } }, "spec": spec })
    };
    let (old, future) = (Some("2020-01-01T00:00:00.000000Z"), Some("2120-01-01T00:00:00.000000Z"));
    for object in [
        lease("gone", "kube-apiserver", old),
        lease("broken", "kube-apiserver", None),
        lease("alive", "kube-apiserver", future),
        lease("other", "something-else", old),
    ] {
        admin.post(leases, &object).await.expect(201);
    }
    let own: Vec<String> =
        admin.get(&format!("{leases}?labelSelector=kubernetes.io%2Fhostname%3Done")).await.json()["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
    assert_eq!(own.len(), 1);
    drop(admin);
    c.shutdown.cancel();
    c.serving.await.unwrap();
    drop(c.api);
    // A server looks when it starts.
    let c = start_tuned(dir, Options::default(), |c| c.hostname = "two".into()).await;
    let admin = c.admin();
    for (name, code) in [("gone", 404), ("broken", 404), ("alive", 200), ("other", 200), (own[0].as_str(), 200)] {
        until(&admin, &format!("{leases}/{name}"), code).await;
    }
}

#[tokio::test]
async fn the_process_tells_what_it_is_and_how_it_was_started() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let flags = vec![("authorization-mode".to_owned(), "[Node,RBAC]".to_owned()), ("v".to_owned(), "2".to_owned())];
    let c = start_tuned(dir, Options::default(), |c| c.flags = flags).await;
    let admin = c.admin();
    let get = async |path: &str, accept: &str| admin.send(Method::GET, path, &[("accept", accept)], "").await;
    for accept in ["", "*/*", "text/plain"] {
        let status = get("/statusz", accept).await;
        assert_eq!(status.headers["content-type"], "text/plain; charset=utf-8");
        let said = text(&status);
        assert!(said.starts_with("\napiserver statusz\nWarning: This endpoint is not meant to be machine parseable"));
        assert!(said.contains("/flagz /healthz /livez /metrics /readyz /statusz /version\n"), "{said}");
        let said = text(&get("/flagz", accept).await);
        assert!(said.contains("authorization-mode=[Node,RBAC]\nv=2\n"), "{said}");
    }
    let object = get("/statusz", "application/json;v=v1beta1;g=config.k8s.io;as=Statusz").await;
    assert_eq!(object.headers["content-type"], "application/json;g=config.k8s.io;v=v1beta1;as=Statusz");
    let object = object.expect(200);
    assert_eq!((&object["kind"], &object["apiVersion"]), (&json!("Statusz"), &json!("config.k8s.io/v1beta1")));
    assert_eq!((&object["metadata"]["name"], &object["emulationVersion"]), (&json!("apiserver"), &json!("1.36")));
    assert_eq!(object["paths"].as_array().unwrap().len(), 7);
    let object = get("/flagz", "application/yaml;v=v1alpha1;g=config.k8s.io;as=Flagz").await;
    assert!(object.headers["warning"].to_str().unwrap().contains("deprecated"));
    assert!(text(&object).contains("authorization-mode: '[Node,RBAC]'") || text(&object).contains("\"[Node,RBAC]\""));
    for wrong in ["application/json", "application/json;v=v2;g=config.k8s.io;as=Statusz", "application/xml"] {
        assert_eq!(get("/statusz", wrong).await.status, 406, "{wrong}");
    }
    assert_eq!(c.as_user("ann", &[]).get("/flagz").await.status, 403);
    assert_eq!(c.as_user("ann", &["system:monitoring"]).get("/statusz").await.status, 200);
}

#[tokio::test]
async fn every_answer_names_its_request() {
    let c = cluster().await;
    let admin = c.admin();
    let (one, two) = (admin.get("/version").await, admin.get("/nothing").await);
    let id = |answer: &Answer| answer.headers["audit-id"].to_str().unwrap().to_owned();
    assert_eq!((id(&one).len(), id(&two).len()), (36, 36));
    assert_ne!(id(&one), id(&two));
    let given = admin.send(Method::GET, "/version", &[("audit-id", "mine")], "").await;
    assert_eq!(id(&given), "mine");
}
