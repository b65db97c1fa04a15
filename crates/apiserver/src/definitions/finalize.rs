//! The end of a definition: its objects are deleted first, then its finalizer is taken off.

use std::sync::Arc;
use std::time::Duration;

use ironkeel_kinds::definition;
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{
    ApiError, CustomRows, DeleteOptions, ListRequest, Reason, Registry, Row, Selection, WatchStart, WriteRequest,
    rfc3339,
};

use super::{Edit, status, status_request};
use crate::bootstrap;

/// How long a failed attempt rests, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// Deletes what is left of a custom resource and lets its definition go. Tries until the definition is
/// gone or another.
pub(super) async fn run(registry: Arc<Registry>, row: Arc<Row>, definition: Value, rows: CustomRows, served: bool) {
    while let Err(error) = attempt(&registry, &row, &definition, &rows, served).await {
        if matches!(error.reason, Reason::NotFound | Reason::Conflict) {
            let uid = registry.get(&row, "", definition.name()).and_then(|e| e.kept_tree());
            if uid.map_or(true, |now| now.uid() != definition.uid()) {
                return;
            }
        }
        tracing::warn!(name = definition.name(), %error, "objects of a definition that goes cannot be deleted yet");
        let failed = format!("could not issue all deletes: {error}");
        let _ = condition(&registry, &row, &definition, "InstanceDeletionFailed", &failed, "True").await;
        tokio::time::sleep(Duration::from_millis(RETRY_MS)).await;
    }
}

async fn condition(
    registry: &Registry,
    row: &Arc<Row>,
    definition: &Value,
    reason: &str,
    message: &str,
    value: &str,
) -> Result<(), ApiError> {
    let now = rfc3339(registry.clock().now());
    let uid = definition.uid().to_owned();
    let (reason, message, value) = (reason.to_owned(), message.to_owned(), value.to_owned());
    let change = Edit(move |o: &mut Value| {
        o.meta_mut().insert("uid", uid.as_str());
        status::set(o.slot(&["status"]), "Terminating", &value, &reason, &message, &now);
    });
    registry.update(&status_request(row, definition), &change).await.map(drop)
}

async fn attempt(
    registry: &Arc<Registry>,
    row: &Arc<Row>,
    definition: &Value,
    rows: &CustomRows,
    served: bool,
) -> Result<(), ApiError> {
    let progress = "CustomResource deletion is in progress";
    condition(registry, row, definition, "InstanceDeletionInProgress", progress, "True").await?;
    if served {
        delete_objects(registry, rows).await?;
        condition(registry, row, definition, "InstanceDeletionCompleted", "removed all instances", "False").await?;
    } else {
        condition(registry, row, definition, "NeverEstablished", "resource was never established", "False").await?;
    }
    let uid = definition.uid().to_owned();
    let change = Edit(move |o: &mut Value| {
        let left: Vec<String> =
            o.finalizers().into_iter().filter(|f| *f != definition::CLEANUP_FINALIZER).map(str::to_owned).collect();
        let meta = o.meta_mut();
        meta.insert("uid", uid.as_str());
        if left.is_empty() {
            meta.remove("finalizers");
        } else {
            meta.insert("finalizers", left);
        }
    });
    // Finalizers are no part of the status.
    let request = WriteRequest { subresource: String::new(), ..bootstrap::request(row, definition) };
    match registry.update(&request, &change).await {
        Err(e) if e.reason == Reason::NotFound => Ok(()),
        done => done.map(drop),
    }
}

/// Deletes every object, and waits until the last one's finalizers have let it go.
async fn delete_objects(registry: &Arc<Registry>, rows: &CustomRows) -> Result<(), ApiError> {
    let Some(kind) = rows.kinds.first() else { return Ok(()) };
    let r = &kind.resource;
    let served = rows.kinds.iter().find_map(|k| registry.row(k.resource.group, k.resource.version, k.resource.plural));
    let Some(row) = served else {
        tracing::debug!(group = r.group, plural = r.plural, "nothing of the resource is served");
        return Ok(());
    };
    let home = row.home()?.clone();
    let mut watcher = registry.watch(&row, Selection::all(""), WatchStart::State, 0).await?;
    let request = bootstrap::request(&row, &Value::object());
    registry.delete_collection(&request, &DeleteOptions::default(), &ListRequest::default()).await?;
    let mut events = Vec::new();
    while !home.cache.is_empty() {
        events.clear();
        watcher.next(&mut events).await?;
        if events.is_empty() {
            return Err(ApiError::internal("the resource changed while its objects were being deleted"));
        }
    }
    Ok(())
}
