//! Finding rows: by name, by group, version and kind, by path.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::generated::resources::RESOURCES;
use crate::generated::types::TYPES;
use crate::{Resource, Type, TypeId};

static BY_NAME: LazyLock<HashMap<&'static str, TypeId>> =
    LazyLock::new(|| TYPES.iter().enumerate().map(|(i, t)| (t.name, TypeId(i as u16))).collect());

/// Every served resource, in upstream's discovery order.
pub fn resources() -> &'static [Resource] {
    RESOURCES
}

/// Every type; a [`TypeId`] is the place in it.
pub fn types() -> &'static [Type] {
    TYPES
}

/// The resource at `group`, `version` and plural name.
pub fn resource(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.plural == plural && r.group == group && r.version == version)
}

/// The type called `name`, for example `core/v1.Pod` or `meta/v1.Status`.
pub fn type_by_name(name: &str) -> Option<TypeId> {
    BY_NAME.get(name).copied()
}

/// The folder of a group in type names: `core` for the empty group, `rbac` for
/// `rbac.authorization.k8s.io`.
pub fn package_of(group: &str) -> &str {
    match group {
        "" => "core",
        "internal.apiserver.k8s.io" => "apiserverinternal",
        "meta.k8s.io" => "meta",
        other => other.split('.').next().unwrap_or(other),
    }
}

/// The type of a kind: served kinds, their lists (`PodList`), option kinds (`DeleteOptions` in any
/// group version, which stands for `meta/v1`) and reviews.
pub fn type_id_for_kind(group: &str, version: &str, kind: &str) -> Option<TypeId> {
    let own = BY_NAME.get(format!("{}/{version}.{kind}", package_of(group)).as_str());
    own.or_else(|| {
        let shared = matches!(
            kind,
            "DeleteOptions"
                | "CreateOptions"
                | "UpdateOptions"
                | "PatchOptions"
                | "GetOptions"
                | "ListOptions"
                | "WatchEvent"
                | "Status"
                | "APIGroup"
                | "APIGroupList"
                | "APIResourceList"
                | "APIVersions"
                | "Table"
                | "PartialObjectMetadata"
                | "PartialObjectMetadataList"
        );
        if shared { BY_NAME.get(format!("meta/v1.{kind}").as_str()) } else { None }
    })
    .copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ListType, ProtoContent, Shape};

    #[test]
    fn every_resource_has_an_object_and_a_list_type() {
        for r in resources() {
            assert_eq!(r.type_id.get().short_name(), r.kind);
            if r.has_verb("list") {
                let list = format!("{}List", r.kind);
                assert!(type_id_for_kind(r.group, r.version, &list).is_some(), "{list}");
            }
        }
    }

    #[test]
    fn fields_are_sorted_so_that_search_finds_them() {
        for t in TYPES {
            assert!(t.fields.is_sorted_by(|a, b| a.name < b.name), "{}", t.name);
            for p in t.proto {
                if let ProtoContent::Field(i) = p.content {
                    assert!((i as usize) < t.fields.len(), "{}", t.name);
                }
            }
        }
    }

    #[test]
    fn inlined_structs_stand_in_the_parents_json_and_under_their_own_number() {
        let volume = type_by_name("core/v1.Volume").expect("Volume").get();
        assert!(volume.field("emptyDir").is_some());
        assert!(matches!(volume.proto[1].content, ProtoContent::Inline(t) if t.get().name == "core/v1.VolumeSource"));
    }

    #[test]
    fn service_ports_merge_on_port_and_apply_on_port_and_protocol() {
        let spec = type_by_name("core/v1.ServiceSpec").expect("ServiceSpec").get();
        let ports = spec.field("ports").expect("ports");
        assert_eq!(ports.merge_key, Some("port"));
        assert_eq!(ports.list, ListType::Map(&["port", "protocol"]));
        assert!(matches!(ports.shape, Shape::List(Shape::Struct(_))));
    }
}
