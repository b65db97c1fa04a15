//! Volumes of a pod: which source, and the sources that only pods have.

use std::collections::HashSet;

use ironkeel_object::Value;

use crate::core::claim;
use crate::error::Errors;
use crate::pod_spec::storage_sources::{self, Holder, required};
use crate::pod_spec::{Place, containers, env, present, projections, string};
use crate::{Path, names, pod_template, resources};

pub(crate) const DOWNWARD_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const MODE_MAX: i64 = 0o777;

/// Sources in the order that upstream looks at them, with the name that a second one is refused
/// under and the name of the first one's path.
const SOURCES: &[(&str, &str, &str)] = &[
    ("emptyDir", "emptyDir", "emptyDir"),
    ("hostPath", "hostPath", "hostPath"),
    ("gitRepo", "gitRepo", "gitRepo"),
    ("gcePersistentDisk", "gcePersistentDisk", "persistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore", "awsElasticBlockStore"),
    ("secret", "secret", "secret"),
    ("nfs", "nfs", "nfs"),
    ("iscsi", "iscsi", "iscsi"),
    ("glusterfs", "glusterfs", "glusterfs"),
    ("flocker", "flocker", "flocker"),
    ("persistentVolumeClaim", "persistentVolumeClaim", "persistentVolumeClaim"),
    ("rbd", "rbd", "rbd"),
    ("cinder", "cinder", "cinder"),
    ("cephfs", "cephFS", "cephfs"),
    ("quobyte", "quobyte", "quobyte"),
    ("downwardAPI", "downwarAPI", "downwardAPI"),
    ("fc", "fc", "fc"),
    ("flexVolume", "flexVolume", "flexVolume"),
    ("configMap", "configMap", "configMap"),
    ("azureFile", "azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk", "azureDisk"),
    ("storageos", "storageos", "storageos"),
    ("projected", "projected", "projected"),
    ("scaleIO", "scaleIO", "scaleIO"),
    ("csi", "csi", "csi"),
    ("ephemeral", "ephemeral", "ephemeral"),
    ("image", "image", "image"),
];

/// The list `volumes`; answers the volumes that are well-formed: mounts may name only those.
pub(crate) fn validate<'a>(
    list: &'a [Value],
    pod_name: &str,
    place: Place,
    path: &Path,
    e: &mut Errors,
) -> Vec<&'a Value> {
    let mut good: Vec<&Value> = Vec::with_capacity(list.len());
    let mut taken: HashSet<&str> = HashSet::new();
    for (i, v) in list.iter().enumerate() {
        let at = path.index(i);
        let before = e.len();
        source(v, pod_name, place, &at, e);
        match string(v, "name") {
            None => e.required(&at.child("name"), ""),
            Some(n) => {
                let messages = names::label(n);
                if messages.is_empty() && taken.contains(n) {
                    e.duplicate(&at.child("name"), n);
                }
                e.invalid_each(&at.child("name"), n, messages);
            }
        }
        if e.len() == before {
            good.push(v);
            taken.extend(string(v, "name"));
        }
    }
    good
}

fn source(v: &Value, pod_name: &str, place: Place, path: &Path, e: &mut Errors) {
    let mut found = 0;
    for (kind, refused_as, shown_as) in SOURCES {
        let Some(s) = present(v, kind) else { continue };
        found += 1;
        if found > 1 {
            e.forbidden(&path.child(refused_as), "may not specify more than 1 volume type");
            continue;
        }
        let at = path.child(shown_as);
        if storage_sources::validate(kind, s, Holder::Pod, &at, e) {
            let name = v.str_at(&["name"]).unwrap_or_default();
            if *kind == "iscsi"
                && s.str_at(&["initiatorName"]).is_some()
                && name.len() + 1 + s.str_at(&["targetPortal"]).map_or(0, str::len) > 64
            {
                let text = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
                e.invalid(&path.child("name"), name, text);
            }
            continue;
        }
        match *kind {
            "emptyDir" if resources::quantity(s.get("sizeLimit")).is_some_and(|q| q.signum() < 0) => {
                e.forbidden(&at.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
            }
            "secret" => {
                required(s, &["secretName"], &at, e);
                keys(s, &at, e);
            }
            "configMap" => {
                required(s, &["name"], &at, e);
                keys(s, &at, e);
            }
            "downwardAPI" => {
                mode(s, "defaultMode", &at, e);
                s.items_at(&["items"]).iter().for_each(|f| downward_file(f, &at, e));
            }
            "projected" => projections::validate(s, &at, e),
            "persistentVolumeClaim" => required(s, &["claimName"], &at, e),
            "gitRepo" => {
                required(s, &["repository"], &at, e);
                let folder = s.str_at(&["directory"]).unwrap_or_default();
                containers::descending(folder, &at.child("directory"), e);
            }
            "image" => {
                if place == Place::Pod {
                    required(s, &["reference"], &at, e);
                }
                super::one_of(s, "pullPolicy", &["Always", "IfNotPresent", "Never"], &at, e);
            }
            "ephemeral" => ephemeral(s, v, pod_name, path, &at, e),
            _ => {}
        }
    }
    if found == 0 {
        e.required(path, "must specify a volume type");
    }
}

fn ephemeral(s: &Value, v: &Value, pod_name: &str, path: &Path, at: &Path, e: &mut Errors) {
    match present(s, "volumeClaimTemplate") {
        None => e.required(&at.child("volumeClaimTemplate"), ""),
        Some(t) => {
            let at = at.child("volumeClaimTemplate");
            pod_template::claim_metadata(t, &at.child("metadata"), e);
            claim::validate_spec(t.get("spec").unwrap_or(&Value::Null), &at.child("spec"), e);
        }
    }
    let name = v.str_at(&["name"]).unwrap_or_default();
    if !pod_name.is_empty() && !name.is_empty() {
        let claim = format!("{pod_name}-{name}");
        for m in names::subdomain(&claim) {
            e.invalid(&path.child("name"), name, &format!("PVC name \"{claim}\": {m}"));
        }
    }
}

/// A file mode in octal.
pub(crate) fn mode(s: &Value, field: &str, at: &Path, e: &mut Errors) {
    if let Some(m) = s.i64_at(&[field]).filter(|m| !(0..=MODE_MAX).contains(m)) {
        e.invalid(&at.child(field), m, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn keys(s: &Value, at: &Path, e: &mut Errors) {
    mode(s, "defaultMode", at, e);
    for (i, k) in s.items_at(&["items"]).iter().enumerate() {
        key_to_path(k, &at.child("items").index(i), e);
    }
}

/// `KeyToPath`.
pub(crate) fn key_to_path(k: &Value, at: &Path, e: &mut Errors) {
    required(k, &["key", "path"], at, e);
    if let Some(p) = string(k, "path") {
        containers::local_path(p, &at.child("path"), e);
    }
    mode(k, "mode", at, e);
}

/// One file of the downward API; upstream's paths leave out its index.
pub(crate) fn downward_file(f: &Value, at: &Path, e: &mut Errors) {
    match string(f, "path") {
        None => e.required(&at.child("path"), ""),
        Some(p) => containers::local_path(p, &at.child("path"), e),
    }
    match (present(f, "fieldRef"), present(f, "resourceFieldRef")) {
        (Some(r), other) => {
            env::field_ref(r, DOWNWARD_FIELDS, &at.child("fieldRef"), e);
            if other.is_some() {
                e.invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
        }
        (None, Some(r)) => env::resource_ref(r, true, &at.child("resourceFieldRef"), e),
        (None, None) => e.required(at, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(f, "mode", at, e);
}
