//! APIServices for what this server serves itself: built-in groups once at start, those of custom
//! resources as they come and go. Objects that somebody made without our label are left alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use ironkeel_object::{ObjectMeta, ObjectSource, Value, object};
use ironkeel_registry::{ApiError, Change, DeleteOptions, Reason, Registry};

use super::availability::{self, Condition};
use super::priorities;
use crate::bootstrap;

/// Who keeps an APIService: `onstart` for built-in ones, `true` for those of custom resources.
const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";
const GROUP: &str = "apiregistration.k8s.io";

struct Spec(Value, &'static str);

impl Change for Spec {
    fn apply(&self, current: &Value) -> Result<Value, ApiError> {
        let mut out = current.clone();
        *out.slot(&["spec"]) = self.0.clone();
        *out.slot(&["metadata", "labels", LABEL]) = self.1.into();
        Ok(out)
    }
}

/// By APIService name: the spec and the label's value.
type Wanted = BTreeMap<String, (Value, &'static str)>;

fn want(wanted: &mut Wanted, group: &str, version: &str, priorities: (i64, i64), label: &'static str) {
    let spec = object!({
        "group": group,
        "version": version,
        "groupPriorityMinimum": (priorities.0),
        "versionPriority": (priorities.1),
    });
    wanted.entry(format!("{version}.{group}")).or_insert((spec, label));
}

fn built_in(registry: &Registry, wanted: &mut Wanted) {
    for row in registry.rows().iter().filter(|row| row.kind.custom.is_none()) {
        let (group, version) = (row.kind.resource.group, row.kind.resource.version);
        if let Some(priorities) = priorities::of(group, version) {
            want(wanted, group, version, priorities, "onstart");
        }
    }
}

fn custom(registry: &Registry, wanted: &mut Wanted) {
    let Some(crds) = ironkeel_schema::resource("apiextensions.k8s.io", "v1", "customresourcedefinitions") else {
        return;
    };
    for crd in ObjectSource::list(registry, crds, "") {
        let group = crd.str_at(&["spec", "group"]).unwrap_or_default();
        for version in crd.items_at(&["spec", "versions"]) {
            let served = version.at(&["served"]).and_then(Value::as_bool).unwrap_or(false);
            if let Some(name) = version.str_at(&["name"]).filter(|_| served) {
                want(wanted, group, name, priorities::CUSTOM, "true");
            }
        }
    }
}

/// Makes the APIServices what they should be. `starting` looks at the built-in ones, too.
pub(super) async fn sync(registry: &Arc<Registry>, starting: bool) -> Result<(), ApiError> {
    let mut wanted = Wanted::new();
    if starting {
        built_in(registry, &mut wanted);
    }
    custom(registry, &mut wanted);
    // Not there where `--runtime-config` has switched the version off.
    let resource = ironkeel_schema::resource(GROUP, "v1", "apiservices");
    let Some(resource) = resource.filter(|_| registry.row(GROUP, "v1", "apiservices").is_some()) else { return Ok(()) };
    let existing = ObjectSource::list(registry.as_ref(), resource, "");
    for object in &existing {
        match (object.label(LABEL), wanted.remove(object.name())) {
            // Whoever took the label away keeps the object.
            (None, _) => {}
            (Some("true"), None) => {
                remove(registry, object).await?;
                continue;
            }
            // A version that an earlier start served.
            (Some("onstart"), None) if starting => {
                remove(registry, object).await?;
                continue;
            }
            (Some(_), None) => {}
            (Some(_), Some((spec, label))) => mend(registry, object, spec, label).await?,
        }
        if object.at(&["spec", "service"]).is_none_or(Value::is_null) {
            availability::tell(registry, object.name(), Condition::local()).await?;
        }
    }
    let mut creates: Vec<BoxFuture<'static, Result<(), ApiError>>> = Vec::with_capacity(wanted.len());
    for (name, (spec, label)) in wanted {
        creates.push(create(registry.clone(), name, spec, label).boxed());
    }
    let mut running = futures::stream::iter(creates).buffer_unordered(bootstrap::PARALLEL);
    while let Some(done) = running.next().await {
        done?;
    }
    Ok(())
}

async fn create(registry: Arc<Registry>, name: String, spec: Value, label: &'static str) -> Result<(), ApiError> {
    let mut object = object!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": { "name": (name.as_str()) },
    });
    *object.slot(&["metadata", "labels", LABEL]) = label.into();
    *object.slot(&["spec"]) = spec;
    let row = bootstrap::row_of(&registry, &object)?;
    let mut request = bootstrap::request(&row, &object);
    request.name = String::new();
    match registry.create(&request, object).await {
        Err(e) if e.reason == Reason::AlreadyExists => Ok(()),
        Err(e) => Err(e),
        Ok(_) => availability::tell(&registry, &name, Condition::local()).await,
    }
}

async fn mend(registry: &Arc<Registry>, object: &Value, spec: Value, label: &'static str) -> Result<(), ApiError> {
    if object["spec"] == spec && object.label(LABEL) == Some(label) {
        return Ok(());
    }
    let row = bootstrap::row_of(registry, object)?;
    match registry.update(&bootstrap::request(&row, object), &Spec(spec, label)).await {
        Err(e) if e.reason == Reason::NotFound => Ok(()),
        other => other.map(drop),
    }
}

async fn remove(registry: &Arc<Registry>, object: &Value) -> Result<(), ApiError> {
    let row = bootstrap::row_of(registry, object)?;
    let options = DeleteOptions { uid: Some(object.uid().to_owned()), ..DeleteOptions::default() };
    match registry.delete(&bootstrap::request(&row, object), &options).await {
        Err(e) if matches!(e.reason, Reason::NotFound | Reason::Conflict) => Ok(()),
        other => other.map(drop),
    }
}
