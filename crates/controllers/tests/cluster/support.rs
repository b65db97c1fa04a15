//! A cluster of the API server and the controllers, and what tests do to it.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironkeel_apiserver::{ApiServer, Config as ServerConfig, UserInfo};
use ironkeel_auth::{AuthenticatorConfig, KeySet, ServiceAccountIssuer, SigningKey};
use ironkeel_client::from_service;
use ironkeel_controllers::Config;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// How long a test waits for what it expects.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// Beneath the API server.
    pub(crate) store: Arc<ironkeel_embedded::Embedded>,
    shutdown: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(Config::default()).await
    }

    /// With controllers that differ from the default by `config`.
    pub(crate) async fn start_with(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = ironkeel_embedded::Embedded::open(dir.path().join("store"), Default::default()).unwrap();
        let key = SigningKey::load_or_create(dir.path()).unwrap();
        let issuer = ServiceAccountIssuer::new("https://test", vec!["https://test".to_owned()], key, KeySet::default());
        let server_config = ServerConfig::new(AuthenticatorConfig::default(), issuer);
        let server = ApiServer::start(server_config, store.clone()).await.unwrap();
        let client_of = |server: &ApiServer, name: &str| {
            from_service(server.in_process(UserInfo::new(name, ["system:masters", "system:authenticated"])), name)
        };
        let client = client_of(&server, "admin");
        let shutdown = CancellationToken::new();
        let own = server.clone();
        let config = Config {
            root_ca: Some("a certificate".to_owned()),
            client_for: Some(Arc::new(move |name| {
                // Each controller with its own permissions: what they lack shows here.
                let user = UserInfo::for_service_account("kube-system", name);
                from_service(own.in_process(user), name)
            })),
            ..config
        };
        let running = ironkeel_controllers::run(config, client.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _ended = running.await;
            server.stop().await;
        });
        let cluster = Self { client, store, shutdown, _dir: dir };
        cluster
            .eventually::<ServiceAccount>("default", |accounts| accounts.iter().any(|a| a.name_any() == "default"))
            .await;
        cluster
    }

    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) async fn make<K>(&self, object: Value)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + DeserializeOwned
            + serde::Serialize
            + Clone
            + Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>("default").create(&PostParams::default(), &object).await.unwrap();
    }

    /// Lists until `holds`, and returns the list.
    pub(crate) async fn eventually<K>(&self, namespace: &str, holds: impl Fn(&[K]) -> bool) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let items = self.api::<K>(namespace).list(&ListParams::default()).await.unwrap().items;
            if holds(&items) {
                return items;
            }
            assert!(Instant::now() < deadline, "{} never as expected: {items:?}", K::kind(&()));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the object of that name is as `holds` says, and returns it.
    pub(crate) async fn becomes<K>(&self, name: &str, holds: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.api::<K>("default").get(name).await.unwrap();
            if holds(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "{} {name} never as expected: {found:#?}", K::kind(&()));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn make_node(&self, name: &str) {
        let nodes = Api::<Node>::all(self.client.clone());
        let node: Node = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
        patch(&nodes, name, json!({"spec": {"taints": []}})).await;
    }

    /// A kubelet, until the returned guard is dropped: new pods are bound, run and are ready, unless their image is `never:1`, and
    /// deleted ones go.
    pub(crate) fn kubelet(&self) -> tokio_util::sync::DropGuard {
        let stop = self.shutdown.child_token();
        let (client, stopped) = (self.client.clone(), stop.clone());
        tokio::spawn(stopped.run_until_cancelled_owned(async move {
            loop {
                if let Ok(pods) = Api::<Pod>::namespaced(client.clone(), "default").list(&ListParams::default()).await {
                    for pod in pods.items {
                        tend(&client, &pod).await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }));
        stop.drop_guard()
    }

    /// Says of a pod what a kubelet would.
    pub(crate) async fn report(&self, pod: &Pod, phase: &str, ip: &str) {
        let status = running(ip, phase);
        let api = self.api::<Pod>(&pod.namespace().unwrap());
        api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
    }

    pub(crate) async fn bind(&self, pod: &Pod, node: &str) {
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod.name_any()},
                             "target": {"kind": "Node", "name": node}});
        let pods = self.api::<Pod>("default");
        let _: Value =
            pods.create_subresource("binding", &pod.name_any(), &PostParams::default(), &binding).await.unwrap();
    }
}

pub(crate) fn template(labels: Value) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"containers": [
        {"name": "a", "image": "a:1", "ports": [{"name": "http", "containerPort": 8080}]}]}})
}

pub(crate) fn deployment(replicas: i32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
           "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                    "template": template(json!({"app": "web"}))}})
}

pub(crate) async fn patch<K>(api: &Api<K>, name: &str, patch: Value)
where
    K: DeserializeOwned + Clone + Debug,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

async fn tend(client: &Client, pod: &Pod) {
    let api = Api::<Pod>::namespaced(client.clone(), "default");
    let name = pod.name_any();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let image = pod.spec.as_ref().and_then(|spec| spec.containers[0].image.as_deref());
    // The pod may be gone or changed by now; the next look tells.
    if pod.metadata.deletion_timestamp.is_some() {
        let _ = api.delete(&name, &at_once()).await;
    } else if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none()) {
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                             "target": {"kind": "Node", "name": pinned_to(pod).unwrap_or("n1")}});
        let _ = api.create_subresource::<_, Value>("binding", &name, &PostParams::default(), &binding).await;
    } else if phase == Some("Pending") && image != Some("never:1") {
        let status = running("10.0.0.1", "Running");
        let _ = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status)).await;
    }
}

/// The node that a DaemonSet's pod is for.
fn pinned_to(pod: &Pod) -> Option<&str> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    terms.first()?.match_fields.as_ref()?.first()?.values.as_ref()?.first().map(String::as_str)
}

pub(crate) fn at_once() -> DeleteParams {
    DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }
}

fn running(ip: &str, phase: &str) -> Value {
    let ready = if phase == "Running" { "True" } else { "False" };
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap().to_string();
    json!({"status": {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": now}]}})
}

/// The status of the condition of that type, as JSON has it: `True`, `False`, `Unknown`; empty without one.
pub(crate) fn condition(object: &impl serde::Serialize, type_: &str) -> (String, String) {
    let object = serde_json::to_value(object).unwrap();
    let text = |found: &Value, field: &str| found[field].as_str().unwrap_or_default().to_owned();
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == type_);
    found.map(|found| (text(found, "status"), text(found, "reason"))).unwrap_or_default()
}
