//! Priority and fairness at the server: keeps the bootstrap objects in place, follows the stored
//! FlowSchemas and PriorityLevelConfigurations, writes the schemas' conditions, and seats requests.
//!
//! The rules themselves are `ironkeel_fairness`.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::HeaderName;
use ironkeel_auth::UserInfo;
use ironkeel_fairness::{
    self as fairness, Classified, Controller, Details, Digest, ListStats, Seat, StatusUpdate, Width, Work,
};
use ironkeel_metrics::Gauge;
use ironkeel_object::{Map, ObjectMeta, ObjectSource, Value};
use ironkeel_registry::{
    ApiError, Change, DeleteOptions, Reason, Registry, Row, Selection, WatchStart, Watcher, WriteRequest, rfc3339,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::bootstrap;
use crate::request_info::{Query, RequestInfo};
use crate::server::Server;

/// Longest wait for a seat, in seconds: a quarter of what a request may take.
const WAIT_SECONDS: u64 = 15;
/// Wait before stored objects are watched again after a failure, in seconds.
const RETRY_SECONDS: u64 = 1;
const GROUP: &str = "flowcontrol.apiserver.k8s.io";
static SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
static LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

impl Details for RequestInfo {
    fn columns(&self) -> [String; 7] {
        let slash = if self.group.is_empty() { "" } else { "/" };
        [
            self.verb.to_owned(),
            self.path.clone(),
            self.scope().to_owned(),
            self.name.clone(),
            format!("{}{slash}{}", self.group, self.version),
            self.resource.clone(),
            self.subresource.clone(),
        ]
    }
}

/// A request as FlowSchemas see it.
pub(crate) fn digest<'a>(user: &'a UserInfo, info: &'a RequestInfo) -> Digest<'a> {
    Digest {
        user,
        verb: info.verb,
        is_resource: info.is_resource,
        group: &info.group,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: info.scope(),
        name: &info.name,
        path: &info.path,
    }
}

/// A request's place among those in flight; given back when it is dropped.
pub(crate) struct Place<'a> {
    /// `None` where priority and fairness is off.
    seat: Option<Seat>,
    gauge: &'a Gauge,
}

impl Place<'_> {
    /// How long the request has waited for it.
    pub(crate) fn waited(&self) -> Duration {
        self.seat.as_ref().map(Seat::waited).unwrap_or_default()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.gauge.add(-1);
    }
}

/// Seats a request. Long-running ones other than watches take no seat; a watch only while it begins.
pub(crate) async fn place<'a>(
    server: &'a Server,
    user: &Arc<UserInfo>,
    info: &Arc<RequestInfo>,
    query: &Query,
    classified: &mut Option<Classified>,
) -> Result<Option<Place<'a>>, ApiError> {
    let is_watch = info.verb == "watch";
    if info.is_long_running() && !is_watch {
        return Ok(None);
    }
    if server.limits.is_some() {
        let gauge = if info.is_mutating() { &server.metrics.mutating } else { &server.metrics.reading };
        gauge.add(1);
        return Ok(Some(Place { seat: None, gauge }));
    }
    let digest = digest(user, info);
    let Some(class) = server.fairness.classify(&digest) else {
        return Err(ApiError::internal("no flow schema matches, not even catch-all"));
    };
    let class = classified.insert(class);
    let width = width(server, info, query, class, &digest);
    let work = Work { user: user.clone(), details: info.clone() };
    let wait = Duration::from_secs(WAIT_SECONDS);
    match server.fairness.enter(class, &digest, width, Some(work), wait).await {
        Ok(seat) => {
            let gauge = if info.is_mutating() { &server.metrics.mutating } else { &server.metrics.reading };
            gauge.add(1);
            Ok(Some(Place { seat: Some(if is_watch { seat.for_watch() } else { seat }), gauge }))
        }
        Err(refusal) => {
            server.metrics.dropped(info);
            let seconds = i64::try_from(refusal.retry_after_seconds).unwrap_or(1);
            Err(ApiError::too_many_requests(refusal.to_string(), seconds))
        }
    }
}

fn width(server: &Server, info: &RequestInfo, query: &Query, class: &Classified, digest: &Digest<'_>) -> Width {
    match info.verb {
        "list" | "watch" if info.is_resource => {
            let later = |v: &str| !v.is_empty() && v != "0";
            if info.verb == "watch"
                && !query.flag("sendInitialEvents")
                && query.get("resourceVersion").is_some_and(|v| later(&v))
            {
                return Width::ONE;
            }
            let row = server.registry.row(&info.group, &info.version, &info.resource);
            let Some(stored) = row.as_ref().and_then(|r| r.stored.as_ref()) else { return Width::ONE };
            let stats = ListStats { objects: stored.cache.len() as u64, bytes: stored.cache.bytes() as u64 };
            let limit = query.get("limit").and_then(|l| l.parse().ok()).unwrap_or(0);
            Width::list(stats, limit, !info.name.is_empty(), class.max_seats())
        }
        "create" | "update" | "patch" | "delete" if info.is_resource && info.subresource != "token" => {
            let watchers = server.fairness.watches().interested(digest);
            class.observe_watchers(watchers);
            Width::write(watchers, class.max_seats())
        }
        _ => Width::ONE,
    }
}

/// Says in the answer which objects the request was classified by.
pub(crate) fn mark(headers: &mut HeaderMap, classified: Option<&Classified>) {
    if let Some(class) = classified {
        headers.insert(LEVEL_UID.clone(), class.priority_level_uid().clone());
        headers.insert(SCHEMA_UID.clone(), class.flow_schema_uid().clone());
    }
}

fn row(registry: &Registry, plural: &str) -> Result<Arc<Row>, ApiError> {
    registry.row(GROUP, "v1", plural).ok_or_else(ApiError::no_such_resource)
}

fn list(registry: &Registry, plural: &str) -> Vec<Arc<Value>> {
    ironkeel_schema::resource(GROUP, "v1", plural).map_or_else(Vec::new, |r| ObjectSource::list(registry, r, ""))
}

/// Writes the objects that are missing, and mends the mandatory ones.
pub(crate) async fn ensure(registry: &Arc<Registry>) -> Result<(), ApiError> {
    bootstrap::ensure(registry, fairness::suggested(), |e, w| fairness::reconcile(e, w, false)).await?;
    bootstrap::ensure(registry, fairness::mandatory(), |e, w| fairness::reconcile(e, w, true)).await?;
    for plural in ["flowschemas", "prioritylevelconfigurations"] {
        let Ok(row) = row(registry, plural) else { continue };
        for object in list(registry, plural) {
            if fairness::is_leftover(&object) {
                let request = bootstrap::request(&row, &object);
                if let Err(error) = registry.delete(&request, &DeleteOptions::default()).await {
                    tracing::info!(%error, name = object.name(), "an outdated suggestion was not deleted");
                }
            }
        }
    }
    Ok(())
}

/// Takes over what is stored, and writes the conditions that follow.
pub(crate) async fn digest_stored(registry: &Arc<Registry>, controller: &Controller) -> Result<(), ApiError> {
    let updates = controller.digest(&list(registry, "flowschemas"), &list(registry, "prioritylevelconfigurations"));
    if updates.is_empty() {
        return Ok(());
    }
    let row = row(registry, "flowschemas")?;
    let now = rfc3339(registry.clock().now());
    let writes = updates.into_iter().map(|update| {
        let request = WriteRequest {
            name: update.name.clone(),
            subresource: "status".to_owned(),
            field_manager: fairness::CONSUMER_FIELD_MANAGER.to_owned(),
            ..bootstrap::request(&row, &Value::object())
        };
        let change = Condition { update, now: now.clone() };
        async move { registry.update(&request, &change).await }
    });
    for written in futures::future::join_all(writes).await {
        match written {
            Err(e) if e.reason != Reason::NotFound => {
                tracing::info!(error = %e, "a condition of a FlowSchema was not written");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Sets the condition `Dangling`.
struct Condition {
    update: StatusUpdate,
    now: String,
}

impl Change for Condition {
    fn apply(&self, current: &Value) -> Result<Value, ApiError> {
        let mut out = current.clone();
        let mut condition = Map::new();
        condition.insert("type", "Dangling");
        condition.insert("status", if self.update.dangling { "True" } else { "False" });
        condition.insert("lastTransitionTime", self.now.as_str());
        condition.insert("reason", self.update.reason);
        condition.insert("message", self.update.message.as_str());
        let conditions = out.slot(&["status", "conditions"]);
        let mut all = conditions.as_array().unwrap_or_default().to_vec();
        all.retain(|c| c["type"].as_str() != Some("Dangling"));
        all.push(Value::Object(condition));
        *conditions = all.into();
        Ok(out)
    }
}

async fn watch(registry: &Registry, plural: &str) -> Result<Watcher, ApiError> {
    let row = row(registry, plural)?;
    registry.watch(&row, Selection::all(""), WatchStart::Now, 0).await
}

/// Follows the stored objects until it is dropped.
pub(crate) async fn run(registry: Arc<Registry>, controller: Arc<Controller>) {
    if row(&registry, "flowschemas").is_err() {
        return;
    }
    loop {
        if let Err(error) = follow(&registry, &controller).await {
            tracing::info!(%error, "following the configuration of priority and fairness begins anew");
        }
        tokio::time::sleep(Duration::from_secs(RETRY_SECONDS)).await;
    }
}

async fn follow(registry: &Arc<Registry>, controller: &Controller) -> Result<(), ApiError> {
    let mut schemas = watch(registry, "flowschemas").await?;
    let mut levels = watch(registry, "prioritylevelconfigurations").await?;
    digest_stored(registry, controller).await?;
    let every = |seconds| {
        let period = Duration::from_secs(seconds);
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let mut adjust = every(fairness::ADJUSTMENT_SECONDS);
    let mut mend = every(fairness::BOOTSTRAP_SECONDS);
    let (mut of_schemas, mut of_levels) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            seen = schemas.next(&mut of_schemas) => seen?,
            seen = levels.next(&mut of_levels) => seen?,
            _ = adjust.tick() => {
                controller.adjust();
                continue;
            }
            _ = mend.tick() => {
                if let Err(error) = ensure(registry).await {
                    tracing::info!(%error, "the bootstrap objects of priority and fairness were not mended");
                }
                continue;
            }
        }
        if of_schemas.is_empty() && of_levels.is_empty() {
            // The end of the stream: the server stops.
            std::future::pending::<()>().await;
        }
        of_schemas.clear();
        of_levels.clear();
        digest_stored(registry, controller).await?;
    }
}
