//! What every cluster has: namespaces, default roles and priority classes, the `kubernetes` Service.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ironkeel_auth::RequestHeaderConfig;
use ironkeel_object::{Gvk, Map, ObjectMeta, Value, object};
use ironkeel_registry::{AdmitAll, ApiError, Change, Reason, Registry, Row, User, WriteRequest};
use tokio::time::Instant;

use crate::hooks::{Hook, Hooks};
use crate::legacy_tokens;
use crate::server::Config;

/// Objects written at once, so that they share an fsync.
pub(crate) const PARALLEL: usize = 64;
/// How long a start waits for a shared store, in seconds (upstream's roles hook).
const PATIENCE_SECONDS: u64 = 30;
/// Pause between two tries, in milliseconds.
const RETRY_MS: u64 = 250;

struct Become(Value);

impl Change for Become {
    fn apply(&self, current: &Value) -> Result<Value, ApiError> {
        let mut out = self.0.clone();
        out.meta_mut().insert("resourceVersion", current.resource_version());
        Ok(out)
    }
}

/// Does what must be there before anything is served. A shared store that does not answer for a while, or
/// another server that writes the same, is waited for; upstream's post-start hooks try again likewise.
///
/// # Errors
/// The work's own: at once where trying again cannot help, otherwise after [`PATIENCE_SECONDS`].
pub(crate) async fn insist<F: Future<Output = Result<(), ApiError>>>(
    registry: &Registry,
    work: impl Fn() -> F,
) -> Result<(), ApiError> {
    let until = Instant::now() + Duration::from_secs(PATIENCE_SECONDS);
    loop {
        match work().await {
            Err(error) if registry.store().shared() && passes(&error) && Instant::now() < until => {
                tracing::warn!(%error, "what every cluster has could not be written; trying again");
                tokio::time::sleep(Duration::from_millis(RETRY_MS)).await;
            }
            done => return done,
        }
    }
}

fn passes(error: &ApiError) -> bool {
    use Reason::{AlreadyExists, Conflict, NotFound, ServiceUnavailable, Timeout, TooManyRequests};
    matches!(error.reason, AlreadyExists | Conflict | NotFound | ServiceUnavailable | Timeout | TooManyRequests)
}

/// Writes what is missing, and mends what changed.
pub(crate) async fn run(
    registry: &Arc<Registry>,
    config: &Config,
    kubernetes_ip: IpAddr,
    hooks: &Hooks,
) -> Result<(), ApiError> {
    let namespaces = ["kube-system", "default", "kube-public", "kube-node-lease"];
    ensure(
        registry,
        namespaces
            .iter()
            .map(|n| {
                object!({
                    "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": (*n) },
                })
            })
            .collect(),
        |_, _| None,
    )
    .await?;
    hooks.finished(&[Hook::Namespaces]);
    ensure(registry, ironkeel_auth::bootstrap_policy(), ironkeel_auth::reconcile).await?;
    hooks.finished(&[Hook::Roles]);
    ensure(registry, priority_classes(), |_, _| None).await?;
    hooks.finished(&[Hook::PriorityClasses]);
    ensure(registry, vec![kubernetes_service(config, kubernetes_ip)], replace_ports).await?;
    // Replicas that share a store put themselves among the others afterwards.
    if !registry.store().shared() {
        ensure(registry, endpoints(config, &[config.advertise_address]), replace_endpoints).await?;
    }
    hooks.finished(&[Hook::Bootstrap]);
    legacy_tokens::track(registry).await?;
    hooks.finished(&[Hook::LegacyTokens]);
    publish_authorities(registry, &config.client_ca_pem, config.request_header.as_ref()).await?;
    hooks.finished(&[Hook::ClusterAuthentication]);
    Ok(())
}

pub(crate) fn row_of(registry: &Registry, object: &Value) -> Result<Arc<Row>, ApiError> {
    let gvk: Gvk = object.gvk();
    let rows = registry.rows();
    let found = rows
        .iter()
        .find(|r| r.kind_name() == gvk.kind && r.group() == gvk.group && r.kind.resource.version == gvk.version);
    found.cloned().ok_or_else(ApiError::no_such_resource)
}

pub(crate) fn request(row: &Arc<Row>, object: &Value) -> WriteRequest {
    WriteRequest {
        row: row.clone(),
        namespace: object.namespace().to_owned(),
        name: object.name().to_owned(),
        subresource: String::new(),
        user: Arc::new(User {
            name: "system:apiserver".to_owned(),
            groups: vec!["system:masters".to_owned()],
            ..User::default()
        }),
        verb: "update",
        dry_run: false,
        field_manager: "kube-apiserver".to_owned(),
        admission: Arc::new(AdmitAll),
        options: Arc::default(),
        warnings: Arc::default(),
        annotations: Arc::default(),
    }
}

/// Writes the objects that are missing, and mends the others. Those of versions that are not served are left out, as
/// upstream leaves out the hooks of groups that it does not serve.
pub(crate) async fn ensure(
    registry: &Arc<Registry>,
    objects: Vec<Value>,
    mend: fn(&Value, &Value) -> Option<Value>,
) -> Result<(), ApiError> {
    let writes = objects.into_iter().map(|wanted| async move {
        let Ok(row) = row_of(registry, &wanted) else { return Ok(()) };
        let mut request = request(&row, &wanted);
        let existing = match registry.get(&row, &request.namespace, &request.name) {
            Ok(entry) => registry.tree(&row, &entry)?,
            Err(_) => {
                request.name = String::new();
                return match registry.create(&request, wanted).await {
                    Err(e) if e.reason == Reason::AlreadyExists => Ok(()),
                    other => other.map(drop),
                };
            }
        };
        match mend(&existing, &wanted) {
            Some(mended) => registry.update(&request, &Become(mended)).await.map(drop),
            None => Ok(()),
        }
    });
    let mut running = futures::stream::iter(writes).buffer_unordered(PARALLEL);
    while let Some(done) = running.next().await {
        done?;
    }
    Ok(())
}

fn priority_classes() -> Vec<Value> {
    [
        ("system-node-critical", 2_000_001_000i64, "Used for system critical pods that must not be moved from their current node."),
        ("system-cluster-critical", 2_000_000_000, "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."),
    ]
    .into_iter()
    .map(|(name, value, description)| {
        object!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": { "name": name },
            "value": value,
            "description": description,
            "preemptionPolicy": "PreemptLowerPriority",
        })
    })
    .collect()
}

fn kubernetes_service(config: &Config, ip: IpAddr) -> Value {
    object!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": { "component": "apiserver", "provider": "kubernetes" },
        },
        "spec": {
            "clusterIP": (ip.to_string()),
            "ports": [{ "name": "https", "port": 443i64, "protocol": "TCP", "targetPort": (i64::from(config.secure_port)) }],
            "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
    })
}

fn replace_ports(existing: &Value, wanted: &Value) -> Option<Value> {
    let mut out = existing.clone();
    *out.slot(&["spec", "ports"]) = wanted["spec"]["ports"].clone();
    (out != *existing).then_some(out)
}

/// The `kubernetes` Service's EndpointSlice and Endpoints.
fn endpoints(config: &Config, addresses: &[IpAddr]) -> Vec<Value> {
    // Upstream's validation refuses loopback endpoints; a cluster that listens there has none.
    if !config.reconcile_endpoints || config.advertise_address.is_loopback() {
        return Vec::new();
    }
    let port = i64::from(config.secure_port);
    let family = if config.advertise_address.is_ipv4() { "IPv4" } else { "IPv6" };
    let mut slice = object!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": { "kubernetes.io/service-name": "kubernetes" },
        },
        "addressType": family,
        "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
    });
    let mut endpoints = object!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": [{ "ports": [{ "name": "https", "port": port, "protocol": "TCP" }] }],
    });
    let of = |make: fn(&str) -> Value| -> Vec<Value> { addresses.iter().map(|ip| make(&ip.to_string())).collect() };
    *slice.slot(&["endpoints"]) = of(|ip| object!({ "addresses": [(ip)], "conditions": { "ready": true } })).into();
    if let Some(subset) = endpoints.get_mut("subsets").and_then(|s| s.as_array_mut()?.first_mut()) {
        *subset.slot(&["addresses"]) = of(|ip| object!({ "ip": (ip) })).into();
    }
    vec![slice, endpoints]
}

/// Makes these addresses the endpoints of the `kubernetes` Service.
pub(crate) async fn publish(registry: &Arc<Registry>, config: &Config, addresses: &[IpAddr]) -> Result<(), ApiError> {
    ensure(registry, endpoints(config, addresses), replace_endpoints).await
}

fn replace_endpoints(existing: &Value, wanted: &Value) -> Option<Value> {
    let mut out = existing.clone();
    for key in ["endpoints", "subsets", "ports"] {
        if let Some(v) = wanted.get(key) {
            *out.slot(&[key]) = v.clone();
        }
    }
    (out != *existing).then_some(out)
}

/// Tells extension API servers of other authorities.
pub(crate) async fn publish_authorities(
    registry: &Arc<Registry>,
    client_ca_pem: &str,
    request_header: Option<&RequestHeaderConfig>,
) -> Result<(), ApiError> {
    let object = client_ca(client_ca_pem, request_header);
    // Without any authority there is nothing to tell.
    if object["data"].is_empty() {
        return Ok(());
    }
    ensure(registry, vec![object], replace_data).await
}

/// How extension API servers tell who asks: the authorities and headers of this server.
fn client_ca(client_ca_pem: &str, request_header: Option<&RequestHeaderConfig>) -> Value {
    let mut object = object!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "extension-apiserver-authentication", "namespace": "kube-system" },
    });
    let mut data = Map::new();
    if !client_ca_pem.is_empty() {
        data.insert("client-ca-file", client_ca_pem);
    }
    if let Some(proxies) = request_header {
        let list = |names: &[String]| serde_json::Value::from(names.to_vec()).to_string();
        data.insert("requestheader-client-ca-file", proxies.ca_pem.as_str());
        data.insert("requestheader-allowed-names", list(&proxies.allowed_names));
        data.insert("requestheader-username-headers", list(&proxies.username_headers));
        data.insert("requestheader-uid-headers", list(&proxies.uid_headers));
        data.insert("requestheader-group-headers", list(&proxies.group_headers));
        data.insert("requestheader-extra-headers-prefix", list(&proxies.extra_header_prefixes));
    }
    *object.slot(&["data"]) = Value::Object(data);
    object
}

fn replace_data(existing: &Value, wanted: &Value) -> Option<Value> {
    let mut out = existing.clone();
    *out.slot(&["data"]) = wanted["data"].clone();
    (out != *existing).then_some(out)
}
