//! Reading and writing `apiVersion`, `kind` and `metadata` of a dynamic object.

use crate::{Map, Value};

/// Group, version and kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Gvk {
    /// API group; empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind.
    pub kind: String,
}

impl Gvk {
    /// From `apps/v1` (or `v1`) and a kind.
    pub fn new(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Gvk { group: group.to_owned(), version: version.to_owned(), kind: kind.to_owned() }
    }

    /// `apps/v1` or `v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRef {
    /// `apps/v1`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// The one managing controller.
    pub controller: bool,
}

/// Accessors of metadata; implemented for [`Value`].
pub trait ObjectMeta {
    /// `metadata`, where it is an object.
    fn meta(&self) -> Option<&Map>;
    /// `metadata`, made where there is none.
    fn meta_mut(&mut self) -> &mut Map;
    /// `apiVersion` and `kind`; empty parts where absent.
    fn gvk(&self) -> Gvk;
    /// Sets `apiVersion` and `kind`.
    fn set_gvk(&mut self, api_version: &str, kind: &str);

    /// A string of the metadata; empty where absent.
    fn meta_str(&self, key: &str) -> &str {
        self.meta().and_then(|m| m.str(key)).unwrap_or_default()
    }
    /// `metadata.name`; empty where absent.
    fn name(&self) -> &str {
        self.meta_str("name")
    }
    /// `metadata.namespace`; empty where absent.
    fn namespace(&self) -> &str {
        self.meta_str("namespace")
    }
    /// `metadata.uid`; empty where absent.
    fn uid(&self) -> &str {
        self.meta_str("uid")
    }
    /// `metadata.resourceVersion`; empty where absent.
    fn resource_version(&self) -> &str {
        self.meta_str("resourceVersion")
    }
    /// `metadata.generation`; 0 where absent.
    fn generation(&self) -> i64 {
        self.meta().and_then(|m| m.get("generation")).and_then(Value::as_i64).unwrap_or(0)
    }
    /// `metadata.deletionTimestamp`, where set.
    fn deletion_timestamp(&self) -> Option<&str> {
        self.meta().and_then(|m| m.str("deletionTimestamp"))
    }
    /// `metadata.finalizers`.
    fn finalizers(&self) -> Vec<&str> {
        let list = self.meta().and_then(|m| m.get("finalizers")).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }
    /// A label.
    fn label(&self, key: &str) -> Option<&str> {
        self.meta().and_then(|m| m.get("labels")).and_then(|l| l.get(key)).and_then(Value::as_str)
    }
    /// An annotation.
    fn annotation(&self, key: &str) -> Option<&str> {
        self.meta().and_then(|m| m.get("annotations")).and_then(|l| l.get(key)).and_then(Value::as_str)
    }
    /// `metadata.ownerReferences`.
    fn owner_references(&self) -> Vec<OwnerRef> {
        let list = self.meta().and_then(|m| m.get("ownerReferences")).and_then(Value::as_array);
        let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        list.into_iter()
            .flatten()
            .map(|v| OwnerRef {
                api_version: text(v, "apiVersion"),
                kind: text(v, "kind"),
                name: text(v, "name"),
                uid: text(v, "uid"),
                controller: v.get("controller").and_then(Value::as_bool).unwrap_or(false),
            })
            .collect()
    }
}

impl ObjectMeta for Value {
    fn meta(&self) -> Option<&Map> {
        self.get("metadata").and_then(Value::as_object)
    }

    fn meta_mut(&mut self) -> &mut Map {
        if !matches!(self, Value::Object(_)) {
            *self = Value::object();
        }
        match self {
            Value::Object(m) => m.object("metadata"),
            _ => unreachable!("just made an object"),
        }
    }

    fn gvk(&self) -> Gvk {
        let text = |key| self.get(key).and_then(Value::as_str).unwrap_or_default();
        Gvk::new(text("apiVersion"), text("kind"))
    }

    fn set_gvk(&mut self, api_version: &str, kind: &str) {
        *self.slot(&["apiVersion"]) = api_version.into();
        *self.slot(&["kind"]) = kind.into();
    }
}
