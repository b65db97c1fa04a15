//! What upstream's storage of ResourceClaims and their templates asks beside validation: who may have admin
//! access to devices, and who may write which part of a claim's status (`pkg/registry/resource/utils.go`).

use std::collections::BTreeSet;

use ironkeel_auth::UserInfo;
use ironkeel_kinds::{FieldError, FieldErrorKind, Path};
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Attributes, Operation};

use crate::Cluster;
use crate::attributes::caller;

const GROUP: &str = "resource.k8s.io";
/// The label of namespaces whose claims may have admin access.
const ADMIN_LABEL: &str = "resource.kubernetes.io/admin-access";
/// The node of a ServiceAccount's token.
const NODE_NAME_KEY: &str = "authentication.kubernetes.io/node-name";

pub(crate) fn validate(c: &Cluster, a: &Attributes<'_>, object: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    if a.row.group() != GROUP {
        return Ok(());
    }
    let errors = match (a.row.plural(), a.subresource, a.operation, old) {
        ("resourceclaims", "", Operation::Create, _) => admin_requested(c, a, &object["spec"]),
        ("resourceclaimtemplates", "", Operation::Create, _) => admin_requested(c, a, &object["spec"]["spec"]),
        ("resourceclaims", "status", Operation::Update, Some(old)) => {
            let mut errors = admin_granted(c, a, object, old);
            errors.extend(binding(c, a, object, old));
            errors.extend(driver_status(c, a, object, old));
            errors
        }
        _ => return Ok(()),
    };
    match errors.is_empty() {
        true => Ok(()),
        false => Err(ApiError::invalid(a.row.group(), a.row.kind_name(), object.name(), &errors)),
    }
}

fn is_true(v: &Value, key: &str) -> bool {
    v.get(key).and_then(Value::as_bool) == Some(true)
}

fn forbidden(path: Path, why: &str) -> FieldError {
    FieldError { path, kind: FieldErrorKind::Forbidden, message: format!("Forbidden: {why}") }
}

/// Of the first request for admin access in a claim's spec, in a namespace that is not for that.
fn admin_requested(c: &Cluster, a: &Attributes<'_>, spec: &Value) -> Vec<FieldError> {
    // Only `v1beta1` has it beside the request's name.
    let asks = |r: &Value| is_true(r, "adminAccess") || r.get("exactly").is_some_and(|e| is_true(e, "adminAccess"));
    let first = spec.items_at(&["devices", "requests"]).iter().position(asks);
    let path = |i| Path::new("spec").child("devices").child("requests").index(i).child("adminAccess");
    first.and_then(|i| not_for_admins(c, a, path(i))).into_iter().collect()
}

/// The same of an allocation, unless it was granted before.
fn admin_granted(c: &Cluster, a: &Attributes<'_>, object: &Value, old: &Value) -> Vec<FieldError> {
    let first = |o: &Value| {
        let results = o.items_at(&["status", "allocation", "devices", "results"]);
        results.iter().position(|r| is_true(r, "adminAccess"))
    };
    let path = |i| {
        let results = Path::new("status").child("allocation").child("devices").child("results");
        results.index(i).child("adminAccess")
    };
    let new = first(object).filter(|_| first(old).is_none());
    new.and_then(|i| not_for_admins(c, a, path(i))).into_iter().collect()
}

fn not_for_admins(c: &Cluster, a: &Attributes<'_>, path: Path) -> Option<FieldError> {
    let Some(namespace) = c.get("", "namespaces", "", a.namespace) else {
        let why =
            format!("could not retrieve namespace to verify admin access: namespaces {:?} not found", a.namespace);
        return Some(FieldError { path, kind: FieldErrorKind::Invalid, message: format!("Internal error: {why}") });
    };
    let label = namespace.at(&["metadata", "labels", ADMIN_LABEL]).and_then(Value::as_str);
    let why = format!("admin access to devices requires the `{ADMIN_LABEL}: true` label on the containing namespace");
    (label != Some("true")).then(|| forbidden(path, &why))
}

fn same(a: &Value, b: &Value, path: &[&str]) -> bool {
    let part = |v: &Value| v.at(path).filter(|v| !v.is_null() && !v.is_empty()).cloned();
    part(a) == part(b)
}

/// One question about a part of claims that only rules know.
struct Question<'q> {
    verb: &'q str,
    subresource: &'q str,
    namespace: &'q str,
    name: &'q str,
}

/// Why the user may not; `None` where they may.
fn refused(c: &Cluster, a: &Attributes<'_>, user: &UserInfo, q: &Question<'_>) -> Option<String> {
    let authorizer = c.authorizer.as_ref()?;
    let version = a.row.kind.resource.version;
    let asked = ironkeel_auth::Attributes {
        subresource: q.subresource,
        namespace: q.namespace,
        name: q.name,
        ..ironkeel_auth::Attributes::for_resource(user, q.verb, GROUP, version, "resourceclaims")
    };
    let decision = authorizer.authorize(&asked);
    let name = if q.name.is_empty() { String::new() } else { format!(" {:?}", q.name) };
    let why = || format!("resourceclaims.{GROUP}{name} is forbidden: {}", asked.refusal(decision.reason()));
    (!decision.is_allowed()).then(why)
}

/// Allocations and reservations are for who may bind claims.
fn binding(c: &Cluster, a: &Attributes<'_>, object: &Value, old: &Value) -> Option<FieldError> {
    if same(object, old, &["status", "allocation"]) && same(object, old, &["status", "reservedFor"]) {
        return None;
    }
    let user = caller(a);
    let verb = a.verb;
    let why = refused(c, a, &user, &Question { verb, subresource: "binding", namespace: "", name: "" })?;
    let path = Path::new("status").child("allocation");
    Some(forbidden(
        path,
        &format!(
            "changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"{verb}\" permission: {why}"
        ),
    ))
}

/// What a driver says of its devices is for that driver, on the claim's node or anywhere.
fn driver_status(c: &Cluster, a: &Attributes<'_>, object: &Value, old: &Value) -> Vec<FieldError> {
    if object.at(&["status", "allocation"]).is_none_or(Value::is_null) {
        return Vec::new();
    }
    let user = caller(a);
    let node = allocated_node(object);
    let its_node = user.name.starts_with("system:serviceaccount:")
        && matches!(user.extra.get(NODE_NAME_KEY).map(Vec::as_slice), Some([one]) if !node.is_empty() && one == node);
    let places: &[&str] = if its_node { &["associated-node", "arbitrary-node"] } else { &["arbitrary-node"] };
    let verbs: Vec<String> = places.iter().map(|place| format!("{place}:{}", a.verb)).collect();
    let mut errors = Vec::new();
    for driver in changed_drivers(object, old) {
        let ask = |verb: &String| {
            refused(c, a, &user, &Question { verb, subresource: "driver", namespace: a.namespace, name: driver })
        };
        let reasons: Vec<Option<String>> = verbs.iter().map(ask).collect();
        if reasons.iter().any(Option::is_none) {
            continue;
        }
        let why = reasons.into_iter().flatten().next().unwrap_or_default();
        errors.push(forbidden(
            Path::new("status").child("devices"),
            &format!(
                "changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[{}]\" permission: {why}",
                verbs.join(" ")
            ),
        ));
    }
    errors
}

/// The one node that an allocation is for; empty where it is not for one.
fn allocated_node(claim: &Value) -> &str {
    let terms = claim.items_at(&["status", "allocation", "nodeSelector", "nodeSelectorTerms"]);
    let [term] = terms else { return "" };
    let ([], [field]) = (term.items_at(&["matchExpressions"]), term.items_at(&["matchFields"])) else { return "" };
    match (field.str_at(&["key"]), field.str_at(&["operator"]), field.items_at(&["values"])) {
        (Some("metadata.name"), Some("In"), [one]) => one.as_str().unwrap_or_default(),
        _ => "",
    }
}

/// Drivers whose devices' status came, went or changed.
fn changed_drivers<'v>(object: &'v Value, old: &'v Value) -> BTreeSet<&'v str> {
    fn key(d: &Value) -> [Option<&str>; 4] {
        ["driver", "pool", "device", "shareID"].map(|k| d.str_at(&[k]).filter(|t| !t.is_empty()))
    }
    let (new, before) = (object.items_at(&["status", "devices"]), old.items_at(&["status", "devices"]));
    let changed = new.iter().filter(|d| !before.iter().any(|b| b == *d));
    let gone = before.iter().filter(|b| !new.iter().any(|d| key(d) == key(b)));
    changed.chain(gone).filter_map(|d| d.str_at(&["driver"])).collect()
}
