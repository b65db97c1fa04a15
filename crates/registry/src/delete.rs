//! Delete of one object: preconditions, grace periods, finalizers.
//!
//! The rules are upstream's generic store's (`BeforeDelete`, `deletionFinalizersForGarbageCollection`,
//! `markAsDeleting`), and those of Namespaces and CustomResourceDefinitions, which begin to go in a way of
//! their own. Collections are `delete_collection`'s; what propagation asks for, `dependents`'.

use std::sync::Arc;

use ironkeel_kinds::DeletePlan;
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_store::{Condition, WriteAnswer};
use jiff::{Timestamp, ToSpan};

use crate::admit::Operation;
use crate::clock::rfc3339;
use crate::dependents;
use crate::entry::Entry;
use crate::error::{ApiError, OPTIMISTIC_LOCK};
use crate::registry::Registry;
use crate::request::{DeleteOptions, Deleted, WriteRequest};
use crate::services::{Turn, held};
use crate::storage::{Row, object_key};
use crate::update::has_namespace_finalizers;

/// Conflicts with other writers that one delete sits out.
const CONFLICT_RETRIES: usize = 64;
/// A graceful delete that is asked for stays one, in seconds, though its time is over.
const SHORTEST_GRACE_SECONDS: i64 = 1;

/// What is to be done about an object, which is changed already where it is to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing: it is on its way already.
    Keep,
    /// It is stored, and waits for a node or for finalizers.
    Mark,
    /// It is stored, so that everybody sees that it goes, and goes.
    MarkAndRemove,
    /// It goes.
    Remove,
}

/// What came of an attempt.
enum Attempt {
    Done(Deleted),
    /// The object was marked, and is to go in this state.
    Marked(Arc<Entry>),
    /// Another writer was first.
    Lost,
}

impl Registry {
    /// Deletes one object.
    pub async fn delete(&self, request: &WriteRequest, options: &DeleteOptions) -> Result<Deleted, ApiError> {
        let home = request.row.home()?;
        let key = object_key(&request.namespace, &request.name);
        dependents::warn(request, options);
        home.cache.readable(&key)?;
        let entry = home.cache.get(&key).ok_or_else(|| request.not_found(&request.name))?;
        self.delete_from(request, options, &key, entry, None).await
    }

    /// Deletes what is stored of an object that cannot be read, and nothing else; `false` where nothing is unreadable.
    pub async fn delete_unreadable(&self, request: &WriteRequest) -> Result<bool, ApiError> {
        let home = request.row.home()?;
        let key = object_key(&request.namespace, &request.name);
        let Some(what) = home.cache.unreadable().remove(&*key) else { return Ok(false) };
        tracing::warn!(resource = home.plural, %key, why = %what.why, "deleting an object that cannot be read");
        let at = Registry::store_key(home, &key);
        match self.store.delete(at, Condition::ModRevision(what.revision)).await? {
            WriteAnswer::Done { revision, .. } => {
                self.feed.reached(revision).await?;
                Ok(true)
            }
            WriteAnswer::Conflict { .. } => Err(request.conflict(&request.name, OPTIMISTIC_LOCK)),
        }
    }

    /// Deletes an object, beginning with this state of it. Another one of its name (one that was made anew
    /// meanwhile) is left alone where `only` names the one that is meant.
    pub(crate) async fn delete_from(
        &self,
        request: &WriteRequest,
        options: &DeleteOptions,
        key: &str,
        mut entry: Arc<Entry>,
        mut only: Option<Arc<Entry>>,
    ) -> Result<Deleted, ApiError> {
        let home = request.row.home()?;
        let mut marked = None;
        for _ in 0..CONFLICT_RETRIES {
            match self.delete_once(request, options, key, &entry).await? {
                Attempt::Done(done) => return Ok(done),
                Attempt::Lost => {}
                Attempt::Marked(now) => {
                    if let Some(done) = self.remove(request, key, &now).await? {
                        return Ok(done);
                    }
                    // Whoever named a version meant the one before, and the one that was made of it.
                    if options.resource_version.is_some() {
                        return Err(request.conflict(&request.name, OPTIMISTIC_LOCK));
                    }
                    only = Some(now.clone());
                    marked = Some(now);
                }
            }
            let there = match (home.cache.get(key), &only) {
                (Some(there), Some(meant)) => (there.tree()?.uid() == meant.tree()?.uid()).then_some(there),
                (there, _) => there,
            };
            entry = match (there, marked.take()) {
                (Some(there), kept) => {
                    marked = kept;
                    there
                }
                // Somebody else has finished what was begun here.
                (None, Some(marked)) => return Ok(Deleted::Gone(marked)),
                (None, None) => return Err(request.not_found(&request.name)),
            };
        }
        Err(request.conflict(&request.name, OPTIMISTIC_LOCK))
    }

    async fn delete_once(
        &self,
        request: &WriteRequest,
        options: &DeleteOptions,
        key: &str,
        entry: &Arc<Entry>,
    ) -> Result<Attempt, ApiError> {
        let row = &request.row;
        let home = row.home()?;
        let before = self.current(row, entry).await?;
        preconditions(request, options, &before)?;
        let mut object = before.clone();
        let next = begin(row, &mut object, options, self.clock.now());
        if next == Next::Keep {
            return Ok(Attempt::Done(Deleted::Pending(entry.clone())));
        }
        let attributes = request.attributes(Operation::Delete, &request.name);
        request.admission.validate(&attributes, None, Some(&before)).await?;
        if next == Next::Remove {
            return Ok(self.remove(request, key, entry).await?.map_or(Attempt::Lost, Attempt::Done));
        }
        let marked = if object == before {
            entry.clone()
        } else {
            let encoded = self.encode(row, home, &mut object).await?;
            if request.dry_run {
                let shown = Arc::new(Entry::new(key, entry.revision, encoded.bytes, encoded.extract));
                return Ok(Attempt::Done(match next {
                    Next::MarkAndRemove => Deleted::Gone(shown),
                    _ => Deleted::Pending(shown),
                }));
            }
            let _hint = self.feed.hint(&encoded.stored, encoded.extract.clone());
            let condition = Condition::ModRevision(entry.revision);
            let answer = self.store.put(Registry::store_key(home, key), encoded.stored.clone(), condition, 0).await?;
            match answer {
                WriteAnswer::Done { revision, .. } => self.visible(home, key, revision, &encoded).await?,
                WriteAnswer::Conflict { revision, .. } => {
                    self.feed.reached(revision).await?;
                    return Ok(Attempt::Lost);
                }
            }
        };
        Ok(match next {
            Next::MarkAndRemove => Attempt::Marked(marked),
            _ => Attempt::Done(Deleted::Pending(marked)),
        })
    }

    /// `None` after a conflict with another writer.
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
}

/// Whether the kind's first delete does nothing but mark, in a way of its own.
fn begins_apart(row: &Row) -> bool {
    is_namespace(row) || (row.group() == "apiextensions.k8s.io" && row.plural() == "customresourcedefinitions")
}

fn is_namespace(row: &Row) -> bool {
    row.group().is_empty() && row.plural() == "namespaces"
}

fn preconditions(request: &WriteRequest, options: &DeleteOptions, object: &Value) -> Result<(), ApiError> {
    let row = &request.row;
    let apart = begins_apart(row);
    let refuse = |why: String| {
        // Upstream names the kind here, not the resource.
        let what = if apart { row.plural() } else { row.kind_name() };
        Err(ApiError::conflict(row.group(), what, &request.name, &why))
    };
    if let Some(uid) = &options.uid
        && uid != object.uid()
    {
        let there = object.uid();
        return refuse(match apart {
            true => format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {there}"),
            false => format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({there}). The object might have been deleted and then recreated"
            ),
        });
    }
    if let Some(version) = &options.resource_version
        && version != object.resource_version()
    {
        let there = object.resource_version();
        return refuse(match apart {
            true => format!(
                "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {there}"
            ),
            false => format!(
                "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({there}). The object might have been modified"
            ),
        });
    }
    Ok(())
}

/// Changes the object as its delete asks, and says what is to be done about it.
fn begin(row: &Row, object: &mut Value, options: &DeleteOptions, now: Timestamp) -> Next {
    let deleting = object.deletion_timestamp().is_some();
    if begins_apart(row) && !deleting {
        row.kind.hooks.prepare_delete(object, &rfc3339(now));
        object.meta_mut().insert("deletionTimestamp", rfc3339(now));
        if is_namespace(row) {
            *object.slot(&["status", "phase"]) = "Terminating".into();
            dependents::set_namespace_finalizers(object, options);
        }
        return Next::Mark;
    }
    if is_namespace(row) && has_namespace_finalizers(object) {
        return Next::Keep;
    }
    let grace = match row.kind.hooks.plan_delete(object, options.grace_seconds) {
        DeletePlan::Now => None,
        DeletePlan::Graceful { seconds } if !deleting => {
            let generation = object.generation();
            let meta = object.meta_mut();
            meta.insert("deletionTimestamp", rfc3339(later(now, seconds)));
            meta.insert("deletionGracePeriodSeconds", seconds);
            if generation > 0 {
                meta.insert("generation", generation + 1);
            }
            Some(seconds)
        }
        DeletePlan::Graceful { .. } => {
            let have = object.i64_at(&["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0);
            let have = if have < 0 { SHORTEST_GRACE_SECONDS } else { have };
            match options.grace_seconds.map(|s| if s < 0 { SHORTEST_GRACE_SECONDS } else { s }) {
                _ if have == 0 => None,
                Some(seconds) if seconds < have => {
                    shorten(object, now, have, seconds);
                    Some(seconds)
                }
                // Neither longer, nor with other finalizers.
                _ => return Next::Keep,
            }
        }
    };
    dependents::set_finalizers(row, object, options);
    let blocked = !object.finalizers().is_empty();
    match grace {
        Some(0) if !blocked => Next::MarkAndRemove,
        Some(_) => Next::Mark,
        None if blocked => {
            mark(object, now);
            Next::Mark
        }
        None => Next::Remove,
    }
}

fn later(from: Timestamp, seconds: i64) -> Timestamp {
    from.checked_add(seconds.clamp(0, i64::from(i32::MAX)).seconds()).unwrap_or(from)
}

/// A shortened grace period counts from the moment of the first delete, and ends now at the earliest.
fn shorten(object: &mut Value, now: Timestamp, have: i64, seconds: i64) {
    let ends = object.deletion_timestamp().and_then(|t| t.parse::<Timestamp>().ok()).unwrap_or(now);
    let at = later(ends.checked_sub(have.seconds()).unwrap_or(now), seconds);
    let (at, seconds) = match at < now {
        true => (now, seconds.min(SHORTEST_GRACE_SECONDS)),
        false => (at, seconds),
    };
    let meta = object.meta_mut();
    meta.insert("deletionTimestamp", rfc3339(at));
    meta.insert("deletionGracePeriodSeconds", seconds);
}

/// What waits for its finalizers alone.
fn mark(object: &mut Value, now: Timestamp) {
    let generation = object.generation();
    let ends = object.deletion_timestamp().map(|t| t.parse::<Timestamp>());
    let meta = object.meta_mut();
    if ends.is_none() && generation > 0 {
        meta.insert("generation", generation + 1);
    }
    if !ends.is_some_and(|ends| ends.is_ok_and(|ends| ends <= now)) {
        meta.insert("deletionTimestamp", rfc3339(now));
    }
    meta.insert("deletionGracePeriodSeconds", 0i64);
}
