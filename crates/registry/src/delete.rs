//! Delete: preconditions, finalizers, grace periods; and of whole collections.

use std::sync::Arc;

use ironkeel_kinds::DeletePlan;
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_store::{Condition, WriteAnswer};
use jiff::ToSpan;

use crate::admit::Operation;
use crate::clock::rfc3339;
use crate::entry::Entry;
use crate::error::{ApiError, OPTIMISTIC_LOCK, Reason};
use crate::registry::Registry;
use crate::request::{DeleteOptions, Deleted, Propagation, WriteRequest};
use crate::selector::Selection;
use crate::services::{Turn, held};
use crate::storage::{Row, object_key};
use crate::update::has_namespace_finalizers;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// Conflicts with other writers that one delete sits out.
const CONFLICT_RETRIES: usize = 64;
/// Objects of a collection that are deleted at once.
const COLLECTION_PARALLEL: usize = 16;

impl Registry {
    /// Deletes one object.
    pub async fn delete(&self, request: &WriteRequest, options: &DeleteOptions) -> Result<Deleted, ApiError> {
        let home = request.row.home()?;
        let key = object_key(&request.namespace, &request.name);
        for _ in 0..CONFLICT_RETRIES {
            let entry = home.cache.get(&key).ok_or_else(|| request.not_found(&request.name))?;
            if let Some(done) = self.delete_once(request, options, &key, &entry).await? {
                return Ok(done);
            }
        }
        Err(request.conflict(&request.name, OPTIMISTIC_LOCK))
    }

    /// `None` after a conflict with another writer.
    async fn delete_once(
        &self,
        request: &WriteRequest,
        options: &DeleteOptions,
        key: &str,
        entry: &Arc<Entry>,
    ) -> Result<Option<Deleted>, ApiError> {
        let row = &request.row;
        let home = row.home()?;
        let mut object = self.current(row, entry).await?;
        preconditions(request, options, &object)?;
        let attributes = request.attributes(Operation::Delete, &request.name);
        request.admission.validate(&attributes, None, Some(&object)).await?;

        let before = object.clone();
        let finalizers_changed = set_finalizers(&mut object, options.propagation);
        if object.deletion_timestamp().is_none() {
            row.kind.hooks.prepare_delete(&mut object, &rfc3339(self.clock.now()));
        }
        let plan = row.kind.hooks.plan_delete(&object, options.grace_seconds);
        let now = self.clock.now();
        let deleting = object.deletion_timestamp().is_some();
        let blocked = !object.finalizers().is_empty() || has_namespace_finalizers(&object);
        match plan {
            DeletePlan::Graceful { seconds } => {
                let running = object.i64_at(&["metadata", "deletionGracePeriodSeconds"]);
                let shorter = match running {
                    Some(have) if deleting => seconds < have && options.grace_seconds.is_some(),
                    _ => true,
                };
                if shorter {
                    mark(&mut object, now, seconds, deleting);
                } else if !finalizers_changed {
                    return Ok(Some(Deleted::Pending(entry.clone())));
                }
            }
            DeletePlan::Now if blocked => {
                let counted = object.i64_at(&["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) > 0;
                if !deleting || counted {
                    mark(&mut object, now, 0, deleting);
                }
            }
            DeletePlan::Now => return self.remove(request, key, entry).await,
        }
        if object == before {
            return Ok(Some(Deleted::Pending(entry.clone())));
        }
        let encoded = self.encode(row, home, &mut object).await?;
        if request.dry_run {
            let shown = Entry::new(key, entry.revision, encoded.bytes, encoded.extract);
            return Ok(Some(Deleted::Pending(Arc::new(shown))));
        }
        let _hint = self.feed.hint(&encoded.stored, encoded.extract.clone());
        let condition = Condition::ModRevision(entry.revision);
        let answer = self.store.put(Registry::store_key(home, key), encoded.stored.clone(), condition, 0).await?;
        match answer {
            WriteAnswer::Done { revision, .. } => {
                Ok(Some(Deleted::Pending(self.visible(home, key, revision, &encoded).await?)))
            }
            WriteAnswer::Conflict { revision, .. } => {
                self.feed.reached(revision).await?;
                Ok(None)
            }
        }
    }

    async fn remove(&self, request: &WriteRequest, key: &str, entry: &Arc<Entry>) -> Result<Option<Deleted>, ApiError> {
        let home = request.row.home()?;
        if request.dry_run {
            return Ok(Some(Deleted::Gone(entry.clone())));
        }
        let turn = self.holders_turn(&request.row, key).await;
        let condition = Condition::ModRevision(entry.revision);
        match self.store.delete(Registry::store_key(home, key), condition).await? {
            WriteAnswer::Done { revision, previous: Some(_) } => {
                self.released(turn, key, entry).await;
                self.feed.reached(revision).await?;
                Ok(Some(Deleted::Gone(Arc::new(entry.at_revision(revision)))))
            }
            WriteAnswer::Done { revision, previous: None } => {
                self.feed.reached(revision).await?;
                Err(request.not_found(&request.name))
            }
            WriteAnswer::Conflict { revision, .. } => {
                self.feed.reached(revision).await?;
                Ok(None)
            }
        }
    }

    /// The right to delete what holds addresses; none is needed for what does not.
    pub(crate) async fn holders_turn(&self, row: &Row, key: &str) -> Option<Turn<'_>> {
        match row.plural() == "services" && row.group().is_empty() {
            true => Some(self.services.turn(key).await),
            false => None,
        }
    }

    /// Gives back what a deleted object held. Nobody makes it anew in the meantime.
    pub(crate) async fn released(&self, turn: Option<Turn<'_>>, key: &str, entry: &Entry) {
        let Some(turn) = turn else { return };
        self.services.release(&turn);
        if let Ok(tree) = entry.tree() {
            let (addresses, ports) = held(&tree);
            self.give_back(key, &addresses, &ports.into_iter().collect::<Vec<_>>()).await;
        }
    }

    /// Deletes every selected object; answers those that were there.
    pub async fn delete_collection(
        &self,
        request: &WriteRequest,
        options: &DeleteOptions,
        selection: &Selection,
    ) -> Result<Vec<Arc<Entry>>, ApiError> {
        let home = request.row.home()?;
        let entries = home.cache.snapshot(&selection.namespace, "", |e| selection.matches(e)).entries;
        let mut deletes = Vec::with_capacity(entries.len());
        for entry in &entries {
            let one = WriteRequest {
                namespace: entry.namespace().to_owned(),
                name: entry.name().to_owned(),
                ..request.clone()
            };
            deletes.push(async move {
                match self.delete(&one, options).await {
                    Err(e) if e.reason != Reason::NotFound => Err(e),
                    _ => Ok(()),
                }
            });
        }
        let mut running =
            futures::stream::StreamExt::buffer_unordered(futures::stream::iter(deletes), COLLECTION_PARALLEL);
        let mut first_error = None;
        while let Some(done) = futures::StreamExt::next(&mut running).await {
            if let Err(e) = done {
                first_error.get_or_insert(e);
            }
        }
        drop(running);
        match first_error {
            Some(error) => Err(error),
            None => Ok(entries),
        }
    }
}

fn preconditions(request: &WriteRequest, options: &DeleteOptions, object: &Value) -> Result<(), ApiError> {
    if let Some(uid) = &options.uid
        && uid != object.uid()
    {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            object.uid()
        );
        return Err(request.conflict(&request.name, &why));
    }
    if let Some(version) = &options.resource_version
        && version != object.resource_version()
    {
        let why = format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). The object might have been modified",
            object.resource_version()
        );
        return Err(request.conflict(&request.name, &why));
    }
    Ok(())
}

/// Puts the garbage collector's finalizers in or out, as the propagation policy asks; whether that
/// changed anything.
fn set_finalizers(object: &mut Value, propagation: Option<Propagation>) -> bool {
    let Some(propagation) = propagation else { return false };
    let before: Vec<String> = object.finalizers().into_iter().map(str::to_owned).collect();
    let mut after: Vec<String> = before.iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).cloned().collect();
    match propagation {
        Propagation::Orphan => after.push(ORPHAN.to_owned()),
        Propagation::Foreground => after.push(FOREGROUND.to_owned()),
        Propagation::Background => {}
    }
    if after == before {
        return false;
    }
    if after.is_empty() {
        object.meta_mut().remove("finalizers");
    } else {
        object.meta_mut().insert("finalizers", after);
    }
    true
}

/// Sets `deletionTimestamp` so many seconds ahead.
fn mark(object: &mut Value, now: jiff::Timestamp, seconds: i64, again: bool) {
    let generation = object.generation();
    // A shortened grace period counts from the moment of the first delete.
    let previous = object.i64_at(&["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0);
    let start = object
        .deletion_timestamp()
        .filter(|_| again)
        .and_then(|t| t.parse::<jiff::Timestamp>().ok())
        .and_then(|t| t.checked_sub(previous.seconds()).ok())
        .unwrap_or(now);
    let at = start.checked_add(seconds.clamp(0, i64::from(i32::MAX)).seconds()).unwrap_or(now);
    let meta = object.meta_mut();
    meta.insert("deletionTimestamp", rfc3339(at));
    meta.insert("deletionGracePeriodSeconds", seconds);
    if generation > 0 && !again {
        meta.insert("generation", generation + 1);
    }
    let is_namespace = object.get("kind").and_then(Value::as_str) == Some("Namespace")
        && object.get("apiVersion").and_then(Value::as_str) == Some("v1");
    if is_namespace {
        object.meta_mut().remove("deletionGracePeriodSeconds");
        *object.slot(&["status", "phase"]) = "Terminating".into();
    }
}
