//! Create: default, prepare, admit, default, validate, admit, store.

use std::sync::Arc;

use bytes::Bytes;
use ironkeel_kinds::{FieldError, FieldErrorKind, validate_metadata};
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_store::{Condition, StoreError, WriteAnswer};
use rand::Rng;

use crate::admit::{Attributes, Operation};
use crate::clock::rfc3339;
use crate::entry::{Entry, Extract, complete};
use crate::error::{ApiError, Reason};
use crate::managed_fields;
use crate::media;
use crate::owners;
use crate::registry::Registry;
use crate::request::{WriteRequest, Written};
use crate::services::Allocation;
use crate::storage::{Row, Stored, object_key};

/// Names tried for one `generateName`.
const GENERATE_ATTEMPTS: usize = 8;
/// Letters and digits of generated names: no vowels, nothing alike (upstream's `rand.String`).
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Length of the suffix.
const SUFFIX_LENGTH: usize = 5;
/// Longest name that a suffix leaves room in, in bytes.
const LONGEST_BASE: usize = 63 - SUFFIX_LENGTH;

/// A random suffix as upstream's name generator makes.
pub fn name_suffix() -> String {
    let mut rng = rand::rng();
    (0..SUFFIX_LENGTH).map(|_| SUFFIX_LETTERS[rng.random_range(0..SUFFIX_LETTERS.len())] as char).collect()
}

/// Who asks for a certificate is what the server knows, whatever the client writes.
fn name_requester(request: &WriteRequest, object: &mut Value) {
    if request.row.group() != "certificates.k8s.io" || request.row.plural() != "certificatesigningrequests" {
        return;
    }
    let user = &request.user;
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    spec.retain(|name, _| !matches!(name, "username" | "uid" | "groups" | "extra"));
    for (field, text) in [("username", &user.name), ("uid", &user.uid)] {
        if !text.is_empty() {
            spec.insert(field, text.as_str());
        }
    }
    if !user.groups.is_empty() {
        spec.insert("groups", user.groups.iter().map(|g| Value::from(g.as_str())).collect::<Vec<_>>());
    }
    for (key, values) in &user.extra {
        let values: Vec<Value> = values.iter().map(|v| Value::from(v.as_str())).collect();
        spec.object("extra").insert(key.clone(), values);
    }
}

impl Registry {
    /// Creates an object. `object` has been decoded and is of the row's kind.
    pub async fn create(&self, request: &WriteRequest, object: Value) -> Result<Written, ApiError> {
        self.create_tracked(request, object, true).await
    }

    /// `track` is false where an apply has written `managedFields` already.
    pub(crate) async fn create_tracked(
        &self,
        request: &WriteRequest,
        mut object: Value,
        track: bool,
    ) -> Result<Written, ApiError> {
        let row = &request.row;
        if row.kind.custom.as_ref().is_some_and(|c| c.terminating.load(std::sync::atomic::Ordering::Relaxed)) {
            let message = "create not allowed while custom resource definition is terminating";
            return Err(ApiError {
                message: message.to_owned(),
                ..ApiError::method_not_supported(row.group(), row.plural(), "create")
            });
        }
        request.place(&mut object)?;
        if object.resource_version().parse().is_ok_and(|version: u64| version != 0) {
            return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
        }
        object.set_gvk(&row.api_version, row.kind_name());
        let now = rfc3339(self.clock.now());
        let uid = uuid::Uuid::new_v4().to_string();
        let system = |object: &mut Value| {
            object.meta_mut().insert("uid", uid.as_str());
            object.meta_mut().insert("creationTimestamp", now.as_str());
        };
        let clear = |object: &mut Value| {
            for gone in ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"] {
                object.meta_mut().remove(gone);
            }
        };
        clear(&mut object);
        system(&mut object);
        let hooks = &row.kind.hooks;
        hooks.default(&mut object);
        complete(&row.kind, &mut object);
        // Who sends a field owns it, though the server may not keep it; what the server and admission add belongs to
        // nobody.
        if track {
            managed_fields::track(&mut object, None, request, &now);
        }
        let asked = object.name().to_owned();
        let base = object.meta_str("generateName").to_owned();
        // Who changes the object sees it as the client sent it: without what the server adds, and
        // before a name is chosen.
        for later in ["uid", "creationTimestamp"] {
            object.meta_mut().remove(later);
        }
        let attributes = request.attributes(Operation::Create, &asked);
        let shown = if asked.is_empty() { &base } else { &asked };
        let attributes = Attributes { shown_name: shown, ..attributes };
        let fields = object.meta().and_then(|m| m.get("managedFields")).cloned();
        owners::keep_once(&mut object, request);
        request.admission.mutate(&attributes, &mut object, None).await?;
        // Admission writes no more than the client could.
        request.place(&mut object)?;
        clear(&mut object);
        name_requester(request, &mut object);
        managed_fields::restore(&mut object, fields, request);
        system(&mut object);
        let base = object.meta_str("generateName").to_owned();
        if !object.name().is_empty() || base.is_empty() {
            return self.create_named(request, object, &asked).await;
        }
        let cut = (0..=base.len().min(LONGEST_BASE)).rev().find(|i| base.is_char_boundary(*i)).unwrap_or(0);
        let mut attempt = 1;
        loop {
            let mut named = object.clone();
            named.meta_mut().insert("name", format!("{}{}", &base[..cut], name_suffix()));
            match self.create_named(request, named, &asked).await {
                Err(e) if e.reason == Reason::AlreadyExists && attempt < GENERATE_ATTEMPTS => attempt += 1,
                done => return done,
            }
        }
    }

    /// Completes, validates and stores what has its name; `asked` is the name that the client gave.
    async fn create_named(&self, request: &WriteRequest, mut object: Value, asked: &str) -> Result<Written, ApiError> {
        let row = &request.row;
        let home = row.home()?;
        // Some fields say the name, so they wait for it.
        row.kind.hooks.default(&mut object);
        row.kind.hooks.prepare_create(&mut object);
        row.kind.hooks.stamp(&mut object, None, None, &rfc3339(self.clock.now()));
        // What was prepared has defaults of its own: upstream reads them into what it stored.
        row.kind.hooks.default(&mut object);
        complete(&row.kind, &mut object);
        let name = object.name().to_owned();
        let attributes = Attributes { shown_name: &name, ..request.attributes(Operation::Create, asked) };
        let key = object_key(if row.namespaced() { &request.namespace } else { "" }, &name);
        // Addresses are chosen only for what is otherwise valid, and validated with the rest.
        let allocation = self.allocate(request, &key, &mut object, None).await?;
        self.check(request, &object, None, {
            let mut errors = validate_metadata(&object, &row.kind);
            errors.extend(managed_fields::errors(&object));
            errors.extend(row.kind.hooks.validate(&object));
            errors
        })?;
        request.admission.validate(&attributes, Some(&object), None).await?;
        let stored = self.store_new(request, home, &key, &mut object, allocation).await;
        // The caches show what was stored.
        request.admission.rolled_back(&attributes, &object);
        stored
    }

    /// Collects warnings, and turns field errors into a 422.
    pub(crate) fn check(
        &self,
        request: &WriteRequest,
        object: &Value,
        old: Option<&Value>,
        errors: Vec<FieldError>,
    ) -> Result<(), ApiError> {
        let row = &request.row;
        let (tolerated, errors): (Vec<_>, Vec<_>) =
            errors.into_iter().partition(|e| e.kind == FieldErrorKind::Tolerated);
        if !errors.is_empty() {
            return Err(ApiError::invalid(row.group(), row.kind_name(), object.name(), &errors));
        }
        let mut warnings = row.kind.hooks.warnings(object, old, request.sub());
        let place = |e: FieldError| if e.path.as_str().is_empty() { e.message } else { e.to_string() };
        warnings.extend(tolerated.into_iter().map(place));
        if !warnings.is_empty() {
            request.warnings.lock().extend(warnings);
        }
        Ok(())
    }

    pub(crate) async fn allocate(
        &self,
        request: &WriteRequest,
        key: &str,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Option<Allocation<'_>>, ApiError> {
        if request.row.plural() != "services" || !request.row.group().is_empty() {
            return Ok(None);
        }
        self.give_addresses(key, object, old, request.dry_run).await.map(Some)
    }

    /// Ends an allocation whose Service is stored.
    pub(crate) async fn allocated(&self, key: &str, allocation: Allocation<'_>) {
        let (addresses, ports) = allocation.commit();
        if !(addresses.is_empty() && ports.is_empty()) {
            self.give_back(key, &addresses, &ports).await;
        }
    }

    async fn store_new(
        &self,
        request: &WriteRequest,
        home: &Arc<Stored>,
        key: &str,
        object: &mut Value,
        allocation: Option<Allocation<'_>>,
    ) -> Result<Written, ApiError> {
        let row = &request.row;
        let taken = || ApiError::already_exists(row.group(), row.plural(), object_name(key));
        let encoded = self.encode(row, home, object).await?;
        if request.dry_run {
            if home.cache.get(key).is_some() {
                return Err(taken());
            }
            return Ok(Written { entry: Arc::new(Entry::new(key, 0, encoded.bytes, encoded.extract)), created: true });
        }
        let lease = if home.plural == "events" { self.event_lease.get(&*self.store).await? } else { 0 };
        let _hint = self.feed.hint(&encoded.stored, encoded.extract.clone());
        let at = Registry::store_key(home, key);
        let answer = match self.store.put(at.clone(), encoded.stored.clone(), Condition::Absent, lease).await {
            Err(error @ StoreError::Unavailable(_)) => self.created_unheard(&at, &encoded.stored, error).await?,
            answer => answer?,
        };
        match answer {
            WriteAnswer::Done { revision, .. } => {
                if let Some(allocation) = allocation {
                    self.allocated(key, allocation).await;
                }
                let entry = self.visible(home, key, revision, &encoded).await?;
                Ok(Written { entry, created: true })
            }
            WriteAnswer::Conflict { revision, .. } => {
                // Whoever tries to change it now finds it.
                self.feed.reached(revision).await?;
                Err(taken())
            }
        }
    }

    /// Whether a create that the store did not answer was done: its bytes hold a uid that was made for it, so
    /// nobody else can have written them.
    async fn created_unheard(&self, at: &[u8], stored: &Bytes, error: StoreError) -> Result<WriteAnswer, ApiError> {
        match self.store.get(at, 0).await {
            Ok((Some(there), _)) if there.value == stored => {
                Ok(WriteAnswer::Done { revision: there.mod_revision, previous: None })
            }
            _ => Err(error.into()),
        }
    }

    /// Waits until the caches show a write; answers its entry.
    pub(crate) async fn visible(
        &self,
        home: &Stored,
        key: &str,
        revision: u64,
        encoded: &Encoded,
    ) -> Result<Arc<Entry>, ApiError> {
        self.feed.reached(revision).await?;
        match home.cache.get(key) {
            Some(entry) if entry.revision == revision => Ok(entry),
            _ => Ok(Arc::new(Entry::new(key, revision, encoded.bytes.clone(), encoded.extract.clone()))),
        }
    }
}

fn object_name(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

/// An object on its way into the store.
pub(crate) struct Encoded {
    /// The JSON that the cache serves.
    pub(crate) bytes: Bytes,
    /// What goes into the store.
    pub(crate) stored: Bytes,
    pub(crate) extract: Arc<Extract>,
}

/// The stored form of an object of the row's version.
pub(crate) fn encode_stored(row: &Row, home: &Stored, object: &mut Value) -> Result<Encoded, ApiError> {
    row.to_stored(object, home);
    let meta = object.meta_mut();
    meta.remove("resourceVersion");
    meta.remove("selfLink");
    complete(&home.kind, object);
    let extract = Arc::new(Extract::of(object, &home.kind, &home.selectable));
    let bytes = media::canonical(object);
    let stored = media::to_store(home, object, &bytes);
    Ok(Encoded { bytes, stored, extract })
}
