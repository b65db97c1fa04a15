//! Whether a remote APIService can be used: its Service, its endpoints, and an answer from it; told
//! in the `Available` condition. The answer, its resources, is kept for discovery.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{ACCEPT, ETAG, HOST, HeaderValue, IF_NONE_MATCH};
use http_body_util::{BodyExt, Limited};
use ironkeel_auth::UserInfo;
use ironkeel_object::{Map, Value};
use ironkeel_registry::{ApiError, Change, Reason, Registry, rfc3339};

use super::remote::front_proxy_headers;
use super::{Aggregator, Remote};
use crate::body::Body;
use crate::outbound::{self, Backend};
use crate::{bootstrap, targets};

/// How long a check may take, in seconds.
const CHECK_SECONDS: u64 = 5;
/// How often a check is tried before it counts as failed.
const ATTEMPTS: usize = 3;
/// Largest document that is taken from a remote server, in bytes.
const DOCUMENT_LIMIT_BYTES: usize = 16 << 20;

/// What a remote server said of itself.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// `/apis/<group>/<version>`: an APIResourceList.
    pub(super) resources: serde_json::Value,
    /// The path of its OpenAPI v3 document with its hash, where it has one.
    pub(super) openapi_v3: Option<String>,
    /// `/openapi/v2`, and its tag.
    pub(super) openapi_v2: Option<(String, Arc<serde_json::Value>)>,
}

/// The `Available` condition, without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) status: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Condition {
    pub(super) fn local() -> Self {
        Condition { status: "True", reason: "Local", message: "Local APIServices are always available".to_owned() }
    }

    fn failed(reason: &'static str, message: String) -> Self {
        Condition { status: "False", reason, message }
    }
}

struct SetCondition {
    condition: Condition,
    now: String,
}

impl Change for SetCondition {
    fn apply(&self, current: &Value) -> Result<Value, ApiError> {
        let mut out = current.clone();
        let wanted = &self.condition;
        let mut since = self.now.as_str();
        let old = current.items_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == Some("Available"));
        if let Some(old) = old.filter(|o| o.str_at(&["status"]) == Some(wanted.status)) {
            since = old.str_at(&["lastTransitionTime"]).unwrap_or(since);
        }
        let mut condition = Map::new();
        condition.insert("type", "Available");
        condition.insert("status", wanted.status);
        condition.insert("lastTransitionTime", since);
        condition.insert("reason", wanted.reason);
        condition.insert("message", wanted.message.as_str());
        let others = current.items_at(&["status", "conditions"]).iter();
        let mut all: Vec<Value> = others.filter(|c| c.str_at(&["type"]) != Some("Available")).cloned().collect();
        all.push(Value::Object(condition));
        *out.slot(&["status", "conditions"]) = all.into();
        Ok(out)
    }
}

/// Writes the condition, where it says something new.
pub(super) async fn tell(registry: &Arc<Registry>, name: &str, condition: Condition) -> Result<(), ApiError> {
    let Ok(object) = targets::tree(registry, "apiregistration.k8s.io", "apiservices", "", name) else { return Ok(()) };
    let same = object.items_at(&["status", "conditions"]).iter().any(|c| {
        let text = |key: &str| c.str_at(&[key]).unwrap_or_default();
        text("type") == "Available"
            && text("status") == condition.status
            && text("reason") == condition.reason
            && text("message") == condition.message
    });
    if same {
        return Ok(());
    }
    let row = bootstrap::row_of(registry, &object)?;
    let mut request = bootstrap::request(&row, &object);
    request.subresource = "status".to_owned();
    let change = SetCondition { condition, now: rfc3339(registry.clock().now()) };
    match registry.update(&request, &change).await {
        Err(e) if e.reason == Reason::NotFound => Ok(()),
        other => other.map(drop),
    }
}

/// Checks one APIService and writes what came of it; whether it is available.
pub(super) async fn check(registry: &Arc<Registry>, aggregator: &Aggregator, remote: &Remote) -> bool {
    let condition = match look(registry, remote) {
        Err(condition) => condition,
        Ok(()) => match ask(registry, aggregator, remote).await {
            Ok(found) => {
                let found = Arc::new(found);
                let before = aggregator.found.lock().insert(remote.name.clone(), found.clone());
                if before.is_none_or(|b| *b != *found) {
                    aggregator.bump();
                }
                Condition { status: "True", reason: "Passed", message: "all checks passed".to_owned() }
            }
            Err(message) => Condition::failed("FailedDiscoveryCheck", message),
        },
    };
    let available = condition.status == "True";
    if let Err(error) = tell(registry, &remote.name, condition).await {
        tracing::info!(%error, apiservice = remote.name, "a condition was not written");
    }
    available
}

/// What the stored objects tell.
fn look(registry: &Registry, remote: &Remote) -> Result<(), Condition> {
    let (name, namespace) = (&remote.service, &remote.namespace);
    let service = targets::tree(registry, "", "services", namespace, name)
        .map_err(|_| Condition::failed("ServiceNotFound", format!("service/{name} in {namespace:?} is not present")))?;
    if service.str_at(&["spec", "type"]).unwrap_or("ClusterIP") != "ClusterIP" {
        return Ok(());
    }
    let port = service.items_at(&["spec", "ports"]).iter().find(|p| p.i64_at(&["port"]) == Some(remote.port));
    let Some(port) = port else {
        return Err(Condition::failed(
            "ServicePortError",
            format!("service/{name} in {namespace:?} is not listening on port {}", remote.port),
        ));
    };
    let slices = targets::slices_of(registry, namespace, name).unwrap_or_default();
    if slices.is_empty() {
        return Err(Condition::failed(
            "EndpointsNotFound",
            format!("cannot find endpointslices for service/{name} in {namespace:?}"),
        ));
    }
    let port_name = port.str_at(&["name"]).unwrap_or_default();
    match targets::endpoints_of(registry, namespace, name, port_name) {
        Ok(found) if !found.is_empty() => Ok(()),
        _ => Err(Condition::failed(
            "MissingEndpoints",
            format!(
                "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
            ),
        )),
    }
}

struct Document {
    status: u16,
    tag: String,
    body: Bytes,
}

async fn get(backend: &Backend, path: &str, tag: &str) -> Result<Document, String> {
    let who = UserInfo {
        name: "system:kube-aggregator".to_owned(),
        groups: vec![UserInfo::MASTERS.to_owned()],
        ..UserInfo::default()
    };
    let url = format!("https://{}{path}", backend.host.authority());
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().map_err(|_| format!("{url} is no URL"))?;
    *request.headers_mut() = front_proxy_headers(&who);
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Ok(host) = HeaderValue::from_str(&backend.host.authority()) {
        headers.insert(HOST, host);
    }
    if !tag.is_empty()
        && let Ok(tag) = HeaderValue::from_str(tag)
    {
        headers.insert(IF_NONE_MATCH, tag);
    }
    let talk = async {
        let response = outbound::send(backend, request).await?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, DOCUMENT_LIMIT_BYTES).collect().await.map_err(|e| e.to_string())?.to_bytes();
        let tag = parts.headers.get(ETAG).and_then(|t| t.to_str().ok()).unwrap_or_default().to_owned();
        Ok::<_, String>(Document { status: parts.status.as_u16(), tag, body })
    };
    match tokio::time::timeout(Duration::from_secs(CHECK_SECONDS), talk).await {
        Ok(Ok(document)) => Ok(document),
        Ok(Err(e)) => Err(format!("failing or missing response from {url}: Get {url:?}: {e}")),
        Err(_) => Err(format!("failing or missing response from {url}: Get {url:?}: context deadline exceeded")),
    }
}

/// Asks the server what it serves.
async fn ask(registry: &Registry, aggregator: &Aggregator, remote: &Remote) -> Result<Found, String> {
    let path = remote.path();
    let mut outcome = Err("no attempt was made".to_owned());
    for _ in 0..ATTEMPTS {
        let backend = remote.backend(registry)?;
        outcome = match get(&backend, &path, "").await {
            Ok(d) if (200..300).contains(&d.status) => Ok((backend, d)),
            Ok(d) => {
                let url = format!("https://{}{path}", backend.host.authority());
                Err(format!("failing or missing response from {url}: bad status from {url}: {}", d.status))
            }
            Err(e) => Err(e),
        };
        if outcome.is_ok() {
            break;
        }
    }
    let (backend, list) = outcome?;
    let resources = serde_json::from_slice(&list.body).unwrap_or_default();
    let known = aggregator.found.lock().get(&remote.name).cloned();
    let known_v2 = known.as_ref().and_then(|k| k.openapi_v2.clone());
    // Servers without OpenAPI are usable all the same.
    let tag = known_v2.as_ref().map(|(tag, _)| tag.clone()).unwrap_or_default();
    let openapi_v2 = match get(&backend, "/openapi/v2", &tag).await {
        Ok(d) if d.status == 304 => known_v2,
        Ok(d) if d.status == 200 => serde_json::from_slice(&d.body).ok().map(|document| (d.tag, Arc::new(document))),
        _ => None,
    };
    let openapi_v3 = match get(&backend, "/openapi/v3", "").await {
        Ok(d) if d.status == 200 => {
            let index: serde_json::Value = serde_json::from_slice(&d.body).unwrap_or_default();
            let url = &index["paths"][path.trim_start_matches('/')]["serverRelativeURL"];
            url.as_str().map(str::to_owned)
        }
        _ => None,
    };
    Ok(Found { resources, openapi_v3, openapi_v2 })
}
