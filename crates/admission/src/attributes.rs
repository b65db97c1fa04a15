//! Parts of a request as AdmissionReview and the CEL variable `request` show them.

use ironkeel_auth::UserInfo;
use ironkeel_object::{Map, ObjectMeta, Value};
use ironkeel_registry::{Attributes, Operation, Row};

/// Group, version and kind of the body: of a Scale or an Eviction where that is what was sent.
pub(crate) fn request_kind(a: &Attributes<'_>, row: &Row, object: Option<&Value>) -> Value {
    let mut out = Map::new();
    let other = object.map(|o| o.gvk()).filter(|g| !g.kind.is_empty() && g.kind != a.row.kind_name());
    match other {
        Some(gvk) => {
            out.insert("group", gvk.group);
            out.insert("version", gvk.version);
            out.insert("kind", gvk.kind);
        }
        None => {
            out.insert("group", row.group());
            out.insert("version", row.kind.resource.version);
            out.insert("kind", row.kind_name());
        }
    }
    Value::Object(out)
}

/// Group, version and plural.
pub(crate) fn resource_value(row: &Row) -> Value {
    let mut out = Map::new();
    out.insert("group", row.group());
    out.insert("version", row.kind.resource.version);
    out.insert("resource", row.plural());
    Value::Object(out)
}

/// Who asks, as the authorizer takes it.
pub(crate) fn caller(a: &Attributes<'_>) -> UserInfo {
    UserInfo {
        name: a.user.name.clone(),
        uid: a.user.uid.clone(),
        groups: a.user.groups.clone(),
        extra: a.user.extra.iter().cloned().collect(),
    }
}

/// `userInfo`, empty members left out.
pub(crate) fn user_value(a: &Attributes<'_>) -> Value {
    let mut out = Map::new();
    for (key, text) in [("username", &a.user.name), ("uid", &a.user.uid)] {
        if !text.is_empty() {
            out.insert(key, text.as_str());
        }
    }
    if !a.user.groups.is_empty() {
        out.insert("groups", a.user.groups.clone());
    }
    if !a.user.extra.is_empty() {
        out.insert("extra", a.user.extra.iter().map(|(k, v)| (k.clone(), v.clone())).collect::<Map>());
    }
    Value::Object(out)
}

/// The options with their kind, as webhooks and `request.options` show them.
pub(crate) fn options_value(a: &Attributes<'_>) -> Value {
    let kind = match a.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Value::Null,
    };
    let mut out = a.options.as_object().cloned().unwrap_or_default();
    out.insert("apiVersion", "meta.k8s.io/v1");
    out.insert("kind", kind);
    Value::Object(out)
}
