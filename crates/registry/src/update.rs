//! Update, through PUT, patches, apply and subresources: one loop that retries on conflict.

use std::sync::Arc;

use ironkeel_kinds::{validate_metadata, validate_metadata_update};
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_store::{Condition, WriteAnswer};

use crate::admit::Operation;
use crate::clock::rfc3339;
use crate::entry::{Entry, complete};
use crate::error::{ApiError, OPTIMISTIC_LOCK, Reason};
use crate::managed_fields;
use crate::owners;
use crate::registry::Registry;
use crate::request::{WriteRequest, Written};
use crate::rewrite::Standing;
use crate::services::Allocation;
use crate::storage::object_key;

/// Conflicts with other writers that one request sits out.
const CONFLICT_RETRIES: usize = 64;

/// How an update makes the new object out of the present one.
pub trait Change: Send + Sync {
    /// The new object, in the row's version. Called again after a conflict.
    fn apply(&self, current: &Value) -> Result<Value, ApiError>;

    /// The object to create where there is none; `None` makes that a 404.
    fn create(&self) -> Result<Option<Value>, ApiError> {
        Ok(None)
    }

    /// Whether the uid that the new object bears says which object is meant; otherwise it is a change like any other.
    fn names_what_it_changes(&self) -> bool {
        false
    }

    /// Whether this is a server-side apply, which writes `managedFields` itself.
    fn tracks_fields(&self) -> bool {
        false
    }
}

/// PUT: the body as it is.
#[derive(Debug)]
pub struct Replace(pub Value);

impl Change for Replace {
    fn apply(&self, _: &Value) -> Result<Value, ApiError> {
        Ok(self.0.clone())
    }

    fn create(&self) -> Result<Option<Value>, ApiError> {
        Ok(Some(self.0.clone()))
    }

    fn names_what_it_changes(&self) -> bool {
        true
    }
}

enum Turn {
    Done(Written),
    Again,
}

impl Registry {
    /// Updates an object; creates it where the change and the kind allow that.
    pub async fn update(&self, request: &WriteRequest, change: &dyn Change) -> Result<Written, ApiError> {
        let home = request.row.home()?;
        let key = object_key(&request.namespace, &request.name);
        home.cache.readable(&key)?;
        for _ in 0..CONFLICT_RETRIES {
            let turn = match home.cache.get(&key) {
                Some(entry) => self.update_once(request, change, &key, &entry).await?,
                None => {
                    let track = !change.tracks_fields();
                    if request.sub().is_some() || (track && !request.row.kind.hooks.create_on_update()) {
                        return Err(request.not_found(&request.name));
                    }
                    let Some(object) = change.create()? else {
                        return Err(request.not_found(&request.name));
                    };
                    match self.create_tracked(request, object, track).await {
                        // Another writer made it meanwhile: then this is a change of that.
                        Err(e) if e.reason == Reason::AlreadyExists && home.cache.get(&key).is_some() => Turn::Again,
                        made => return made,
                    }
                }
            };
            match turn {
                Turn::Done(written) => return Ok(written),
                Turn::Again => {}
            }
        }
        Err(request.conflict(&request.name, OPTIMISTIC_LOCK))
    }

    async fn update_once(
        &self,
        request: &WriteRequest,
        change: &dyn Change,
        key: &str,
        entry: &Arc<Entry>,
    ) -> Result<Turn, ApiError> {
        let row = &request.row;
        let hooks = &row.kind.hooks;
        let old = self.current(row, entry).await?;
        let mut new = change.apply(&old)?;
        request.place(&mut new)?;
        new.set_gvk(&row.api_version, row.kind_name());
        check_preconditions(request, &new, &old, change.names_what_it_changes())?;
        owners::keep_once(&mut new, request);
        let whole = row.kind.custom.is_some() && request.sub() == Some("status");
        if whole || new.uid().is_empty() {
            keep_metadata(&mut new, &old, &["uid"]);
        }
        carry_over(&mut new, &old, request.sub().is_some() && !change.tracks_fields());
        hooks.default(&mut new);
        complete(&row.kind, &mut new);
        // Who sends a field owns it, though the server may not keep it; what the server and admission change belongs
        // to nobody.
        if !change.tracks_fields() {
            managed_fields::track(&mut new, Some(&old), request, &rfc3339(self.clock.now()));
        }
        let attributes = request.attributes(Operation::Update, &request.name);
        let fields = new.meta().and_then(|m| m.get("managedFields")).cloned();
        request.admission.mutate(&attributes, &mut new, Some(&old)).await?;
        // Admission writes no more than this way may, and what it changes counts for the generation.
        keep_metadata(&mut new, &old, &["creationTimestamp", "generation"]);
        if old.deletion_timestamp().is_some() {
            keep_metadata(&mut new, &old, &["deletionTimestamp", "deletionGracePeriodSeconds"]);
        }
        managed_fields::restore(&mut new, fields, request);
        hooks.default(&mut new);
        hooks.prepare_update(&mut new, &old, request.sub());
        hooks.stamp(&mut new, Some(&old), request.sub(), &rfc3339(self.clock.now()));
        hooks.default(&mut new);
        complete(&row.kind, &mut new);
        let allocation = match request.sub() {
            None => self.allocate(request, key, &mut new, Some(&old)).await?,
            Some(_) => None,
        };
        self.check(request, &new, Some(&old), {
            let mut errors = validate_metadata(&new, &row.kind);
            errors.extend(managed_fields::errors(&new));
            errors.extend(validate_metadata_update(&new, &old));
            errors.extend(hooks.validate_update(&new, &old, request.sub()));
            errors
        })?;
        let admitted = request.admission.validate(&attributes, Some(&new), Some(&old)).await;
        let done = match admitted {
            Ok(()) => self.store_update(request, key, entry, &mut new, &old, allocation).await,
            Err(refused) => Err(refused),
        };
        // By now the caches show what was stored.
        request.admission.rolled_back(&attributes, &old);
        done
    }

    /// Stores an admitted update, where it changes anything.
    async fn store_update(
        &self,
        request: &WriteRequest,
        key: &str,
        entry: &Arc<Entry>,
        new: &mut Value,
        old: &Value,
        allocation: Option<Allocation<'_>>,
    ) -> Result<Turn, ApiError> {
        let row = &request.row;
        let home = row.home()?;
        new.meta_mut().insert("resourceVersion", old.resource_version());
        let same = *new == *old || managed_fields::equal_but_times(new, old);
        if same {
            // The times of what nobody changed stay.
            new.clone_from(old);
            let standing = match request.dry_run {
                true => Standing::Current,
                false => self.standing(row, key, entry, old).await?,
            };
            match standing {
                Standing::Current => return Ok(Turn::Done(Written { entry: entry.clone(), created: false })),
                Standing::Overtaken(revision) => {
                    if let Some(allocation) = allocation {
                        allocation.cancel().await;
                    }
                    return self.lost(revision).await;
                }
                Standing::Stale => {}
            }
        }
        if is_finished(new) {
            if let Some(allocation) = allocation {
                allocation.cancel().await;
            }
            return self.finish_delete(request, key, entry, new).await;
        }
        let encoded = self.encode(row, home, new).await?;
        if request.dry_run {
            let entry = Arc::new(Entry::new(key, entry.revision, encoded.bytes, encoded.extract));
            return Ok(Turn::Done(Written { entry, created: false }));
        }
        let lease = if home.plural == "events" { self.event_lease.get(&*self.store).await? } else { 0 };
        let _hint = self.feed.hint(&encoded.stored, encoded.extract.clone());
        let answer = self
            .store
            .put(Registry::store_key(home, key), encoded.stored.clone(), Condition::ModRevision(entry.revision), lease)
            .await?;
        match answer {
            WriteAnswer::Done { revision, .. } => {
                if let Some(allocation) = allocation {
                    self.allocated(key, allocation).await;
                }
                let entry = self.visible(home, key, revision, &encoded).await?;
                Ok(Turn::Done(Written { entry, created: false }))
            }
            WriteAnswer::Conflict { revision, .. } => {
                if let Some(allocation) = allocation {
                    allocation.cancel().await;
                }
                self.lost(revision).await
            }
        }
    }

    /// Another writer was first: a new turn once the caches show the other's write. Where the client
    /// named a resourceVersion, that turn finds it stale.
    async fn lost(&self, revision: u64) -> Result<Turn, ApiError> {
        self.feed.reached(revision).await?;
        Ok(Turn::Again)
    }

    /// The last finalizer is gone from an object that is being deleted: it goes now.
    async fn finish_delete(
        &self,
        request: &WriteRequest,
        key: &str,
        entry: &Arc<Entry>,
        last: &mut Value,
    ) -> Result<Turn, ApiError> {
        let home = request.row.home()?;
        let encoded = self.encode(&request.row, home, last).await?;
        if !request.dry_run {
            let turn = self.holders_turn(&request.row, key).await;
            let condition = Condition::ModRevision(entry.revision);
            match self.store.delete(Registry::store_key(home, key), condition).await? {
                WriteAnswer::Done { revision, .. } => {
                    self.released(turn, key, entry).await;
                    self.feed.reached(revision).await?;
                }
                WriteAnswer::Conflict { revision, .. } => return self.lost(revision).await,
            }
        }
        let entry = Arc::new(Entry::new(key, entry.revision, encoded.bytes, encoded.extract));
        Ok(Turn::Done(Written { entry, created: false }))
    }
}

/// An error where the uid or the resourceVersion that the client named does not hold.
fn check_preconditions(request: &WriteRequest, new: &Value, old: &Value, named: bool) -> Result<(), ApiError> {
    let uid = new.uid();
    if named && !uid.is_empty() && uid != old.uid() {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", old.uid());
        return Err(request.conflict(&request.name, &storage_error(request, &why)));
    }
    let version = new.resource_version();
    garbled_version(new)?;
    if version.is_empty() || version == "0" {
        if request.row.kind.hooks.unconditional_update() || request.sub() == Some("scale") {
            return Ok(());
        }
        let error = ironkeel_kinds::FieldError {
            path: ironkeel_kinds::Path::new("metadata").child("resourceVersion"),
            kind: ironkeel_kinds::FieldErrorKind::Invalid,
            message: "Invalid value: 0: must be specified for an update".to_owned(),
        };
        return Err(ApiError::invalid(request.row.group(), request.row.plural(), &request.name, &[error]));
    }
    if version != old.resource_version() {
        return Err(request.conflict(&request.name, OPTIMISTIC_LOCK));
    }
    Ok(())
}

/// 400: a resourceVersion that is none. Upstream says it under 500.
pub(crate) fn garbled_version(object: &Value) -> Result<(), ApiError> {
    let version = object.resource_version();
    if version.is_empty() || version.parse::<u64>().is_ok() {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("strconv.ParseUint: parsing {version:?}: invalid syntax")))
}

/// A failed precondition as upstream's store words it.
pub fn storage_error(request: &WriteRequest, why: &str) -> String {
    let (row, name) = (&request.row, &request.name);
    let prefix = row.stored.as_ref().map_or("", |home| home.prefix.as_str());
    let key = object_key(&request.namespace, name);
    format!("StorageError: invalid object, Code: 4, Key: {prefix}{key}, ResourceVersion: 0, AdditionalErrorMsg: {why}")
}

/// What no update may change.
fn carry_over(new: &mut Value, old: &Value, subresource: bool) {
    let untracked = new.meta().is_none_or(|m| !m.contains_key("managedFields"));
    new.meta_mut().remove("selfLink");
    let mut keys = vec!["creationTimestamp", "generation"];
    // Nobody ends an object by writing that it ends: validation refuses that.
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        let absent = |v: &Value| v.meta().and_then(|m| m.get(key)).is_none_or(Value::is_null);
        if !absent(old) || absent(new) {
            keys.push(key);
        }
    }
    if untracked || subresource {
        keys.push("managedFields");
    }
    keep_metadata(new, old, &keys);
}

/// Puts these members of the metadata back, be they absent.
fn keep_metadata(new: &mut Value, old: &Value, keys: &[&'static str]) {
    let meta = new.meta_mut();
    for key in keys {
        match old.meta().and_then(|m| m.get(key)) {
            Some(value) => meta.insert(*key, value.clone()),
            None => meta.remove(key),
        };
    }
}

/// Whether a delete that waited for finalizers (and no node) is complete.
pub(crate) fn is_finished(object: &Value) -> bool {
    object.deletion_timestamp().is_some()
        && object.i64_at(&["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) == 0
        && object.finalizers().is_empty()
        && !has_namespace_finalizers(object)
}

/// `spec.finalizers` of a Namespace.
pub(crate) fn has_namespace_finalizers(object: &Value) -> bool {
    object.get("kind").and_then(Value::as_str) == Some("Namespace")
        && object.get("apiVersion").and_then(Value::as_str) == Some("v1")
        && !object.items_at(&["spec", "finalizers"]).is_empty()
}
