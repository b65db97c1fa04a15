//! ComponentStatus: deprecated, stored nowhere, found out when somebody asks.
//!
//! A component of this process is healthy as long as it runs ([`crate::ApiServer::hosts`]). One that
//! holds its lease is, too. Of any other is said what its own `/healthz` on this host answers, as
//! upstream has it. `etcd-0` is the store.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use ironkeel_object::{FieldSelector, LabelSelector, Map, ObjectMeta, Value};
use ironkeel_registry::{ApiError, Row};
use parking_lot::Mutex;

use crate::answer::{self, partial_metadata};
use crate::body::Body;
use crate::context::Context;
use crate::negotiate::Shape;
use crate::outbound::{self, Backend, Host, Trust};
use crate::server::Server;
use crate::{table, targets};

/// How long a component may take to answer, in seconds (upstream's).
const PROBE_SECONDS: u64 = 20;
/// Most bytes that are read of an answer (upstream's).
const PROBE_BYTES: usize = 10 << 10;
/// Components beside the store: name, lease, port.
const COMPONENTS: &[(&str, &str, u16)] =
    &[("controller-manager", "kube-controller-manager", 10_257), ("scheduler", "kube-scheduler", 10_259)];
const STORE: &str = "etcd-0";

/// The components that run in this process, each with how often.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostedComponents(Arc<Mutex<BTreeMap<&'static str, usize>>>);

/// Held by a component of this process as long as it runs.
#[derive(Debug)]
pub struct HostedComponent {
    name: &'static str,
    all: HostedComponents,
}

impl HostedComponents {
    pub(crate) fn enter(&self, name: &'static str) -> HostedComponent {
        *self.0.lock().entry(name).or_default() += 1;
        HostedComponent { name, all: self.clone() }
    }

    fn has(&self, name: &str) -> bool {
        self.0.lock().get(name).is_some_and(|running| *running > 0)
    }
}

impl Drop for HostedComponent {
    fn drop(&mut self) {
        if let Some(running) = self.all.0.lock().get_mut(self.name) {
            *running -= 1;
        }
    }
}

/// The condition `Healthy`.
struct Health {
    status: &'static str,
    message: String,
    error: String,
}

impl Health {
    fn ok() -> Self {
        Health { status: "True", message: "ok".to_owned(), error: String::new() }
    }

    fn failed(message: String) -> Self {
        Health { status: "False", message, error: String::new() }
    }

    fn of(self, name: &str) -> Value {
        let mut condition = Map::new();
        condition.insert("type", "Healthy");
        condition.insert("status", self.status);
        for (field, text) in [("message", self.message), ("error", self.error)] {
            if !text.is_empty() {
                condition.insert(field, text);
            }
        }
        let mut out = Value::object();
        out.set_gvk("v1", "ComponentStatus");
        out.meta_mut().insert("name", name.to_owned());
        *out.slot(&["conditions"]) = vec![Value::Object(condition)].into();
        out
    }
}

/// Whether somebody holds the lease now.
fn leads(server: &Server, lease: &str) -> bool {
    let Ok(lease) = targets::tree(&server.registry, "coordination.k8s.io", "leases", "kube-system", lease) else {
        return false;
    };
    let renewed = lease.str_at(&["spec", "renewTime"]).and_then(|t| t.parse::<jiff::Timestamp>().ok());
    let lasts = lease.i64_at(&["spec", "leaseDurationSeconds"]).unwrap_or(0);
    let held = lease.str_at(&["spec", "holderIdentity"]).is_some_and(|holder| !holder.is_empty());
    held && renewed.is_some_and(|at| at.as_second().saturating_add(lasts) >= server.registry.clock().now().as_second())
}

async fn probe(port: u16) -> Health {
    let host = Host::at(Ipv4Addr::LOCALHOST.into(), port);
    let url = format!("https://{}/healthz", host.authority());
    let ask = async {
        let tls = outbound::client_tls(Trust::Anyone, None)?;
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = http::Uri::from_static("/healthz");
        let authority = host.authority();
        request.headers_mut().insert(http::header::HOST, authority.parse().map_err(|_| "no host".to_owned())?);
        let response = outbound::send(&Backend { host, tls: Some((tls, None)) }, request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), PROBE_BYTES).collect().await.map_err(|e| e.to_string())?;
        Ok::<_, String>((status, body.to_bytes()))
    };
    match tokio::time::timeout(Duration::from_secs(PROBE_SECONDS), ask).await {
        Ok(Ok((status, body))) if status.is_success() => {
            Health { message: String::from_utf8_lossy(&body).into_owned(), ..Health::ok() }
        }
        Ok(Ok((status, _))) => Health::failed(format!("HTTP probe failed with statuscode: {}", status.as_u16())),
        Ok(Err(why)) => Health::failed(format!("Get {url:?}: {why}")),
        Err(_) => Health::failed(format!("Get {url:?}: context deadline exceeded")),
    }
}

async fn status(server: &Server, name: &str) -> Option<Value> {
    if name == STORE {
        let health = match server.registry.store().current_revision().await {
            Ok(_) => Health::ok(),
            Err(e) => Health { error: e.to_string(), ..Health::failed(String::new()) },
        };
        return Some(health.of(STORE));
    }
    let (name, lease, port) = COMPONENTS.iter().find(|(known, ..)| *known == name)?;
    if server.hosted.has(name) || leads(server, lease) {
        return Some(Health::ok().of(name));
    }
    Some(probe(*port).await.of(name))
}

/// `componentstatuses`, one or all.
pub(crate) async fn answer(c: &Context, row: &Arc<Row>) -> Result<Response<Body>, ApiError> {
    c.check_table_options()?;
    c.warnings.lock().push("v1 ComponentStatus is deprecated in v1.19+".to_owned());
    let server = &c.server;
    if c.info.verb == "get" {
        let name = &c.info.name;
        let found = status(server, name).await.ok_or_else(|| ApiError::not_found("", "componentstatus", name))?;
        return Ok(match c.output.shape {
            Shape::Objects => answer::value(200, &found, &c.output),
            Shape::Metadata(beta) => answer::value(200, &partial_metadata(&found, beta), &c.output),
            Shape::Table(beta) => answer::value(200, &as_table(c, row, &[found], beta), &c.output),
        });
    }
    let labels = LabelSelector::parse(&c.query.get("labelSelector").unwrap_or_default())?;
    let fields = FieldSelector::parse(&c.query.get("fieldSelector").unwrap_or_default())?;
    let names = COMPONENTS.iter().map(|(name, ..)| *name).chain([STORE]);
    let all: Vec<Value> = join_all(names.map(|name| status(server, name)))
        .await
        .into_iter()
        .flatten()
        .filter(|o| labels.matches_object(o))
        .filter(|o| fields.matches(|field| (field == "metadata.name").then(|| o.name().to_owned())))
        .collect();
    let (kind, version, items) = match c.output.shape {
        Shape::Table(beta) => return Ok(answer::value(200, &as_table(c, row, &all, beta), &c.output)),
        Shape::Objects => ("ComponentStatusList", "v1", all),
        Shape::Metadata(beta) => {
            let version = if beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" };
            ("PartialObjectMetadataList", version, all.iter().map(|o| partial_metadata(o, beta)).collect())
        }
    };
    let mut out = Map::new();
    out.insert("apiVersion", version);
    out.insert("kind", kind);
    out.insert("metadata", Map::new());
    out.insert("items", Value::Array(items));
    Ok(answer::value(200, &Value::Object(out), &c.output))
}

fn as_table(c: &Context, row: &Row, objects: &[Value], beta: bool) -> Value {
    let now = c.server.registry.clock().now().as_second();
    let mut out = table::begin(row, beta, true);
    for object in objects {
        table::push(&mut out, row, object, c.include_object(), beta, now);
    }
    out
}
