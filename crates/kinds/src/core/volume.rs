//! PersistentVolume.

use ironkeel_object::{ObjectMeta, Value};

use crate::core::claim::{access_modes, validate_modes, volume_mode};
use crate::error::Errors;
use crate::pod_spec::storage_sources::{self, Holder};
use crate::pod_spec::{containers, node_selector, present, string};
use crate::structural::Depth;
use crate::{Path, TableContext, equality, names, print, resources, rules, strategy};

pub(crate) struct Rules;

/// Members of the spec that are no volume source.
const PLAIN: &[&str] = &[
    "capacity",
    "accessModes",
    "claimRef",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "mountOptions",
    "volumeMode",
    "nodeAffinity",
    "volumeAttributesClassName",
];

/// Sources in the order that upstream looks at them, with the names of their paths when refused as
/// a second one and when checked.
const SOURCES: &[(&str, &str, &str)] = &[
    ("hostPath", "hostPath", "hostPath"),
    ("gcePersistentDisk", "gcePersistentDisk", "persistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore", "awsElasticBlockStore"),
    ("glusterfs", "glusterfs", "glusterfs"),
    ("flocker", "flocker", "flocker"),
    ("nfs", "nfs", "nfs"),
    ("rbd", "rbd", "rbd"),
    ("quobyte", "quobyte", "quobyte"),
    ("cephfs", "cephFS", "cephfs"),
    ("iscsi", "iscsi", "iscsi"),
    ("cinder", "cinder", "cinder"),
    ("fc", "fc", "fc"),
    ("flexVolume", "flexVolume", "flexVolume"),
    ("azureFile", "azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk", "azureDisk"),
    ("scaleIO", "scaleIO", "scaleIO"),
    ("local", "local", "local"),
    ("storageos", "storageos", "storageos"),
    ("csi", "csi", "csi"),
];

fn sources(name: &str, spec: &Value, has_affinity: bool, at: &Path, e: &mut Errors) {
    let mut found = 0;
    for (kind, refused_as, shown_as) in SOURCES {
        let Some(s) = present(spec, kind) else { continue };
        // Upstream lets a flex volume stand beside another source.
        if *kind != "flexVolume" && found > 0 {
            e.forbidden(&at.child(refused_as), "may not specify more than 1 volume type");
            continue;
        }
        found += 1;
        if *kind != "local" {
            storage_sources::validate(kind, s, Holder::PersistentVolume(name), &at.child(shown_as), e);
            continue;
        }
        let path = at.child("local").child("path");
        match string(s, "path") {
            None => e.required(&path, ""),
            Some(p) => containers::no_backsteps(p, &path, e),
        }
        if !has_affinity {
            e.required(&at.child("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    if found == 0 {
        e.required(at, "must specify a volume type");
    }
}

fn capacity(spec: &Value, at: &Path, e: &mut Errors) {
    let list = spec.get("capacity").and_then(Value::as_object);
    let at = at.child("capacity");
    if list.is_none_or(|c| c.is_empty()) {
        e.required(&at, "");
    }
    if !list.is_some_and(|c| c.contains_key("storage") && c.len() == 1) {
        e.not_supported(&at, spec.get("capacity").cloned().unwrap_or_default(), &["storage"]);
    }
    for (name, value) in list.into_iter().flat_map(|m| m.iter()) {
        let Some(q) = resources::quantity(Some(value)) else { continue };
        if q.signum() < 0 {
            e.invalid(&at.key(name), q.value(), "must be a valid resource quantity");
        }
        if q.signum() <= 0 {
            e.invalid(&at.key(name), print::scalar(Some(value)), "must be greater than zero");
        }
    }
}

/// Gives requirements of an older affinity the keys that their labels have today, where the newer one has those.
fn graduate(old: &mut Value, new: &Value) {
    const GRADUATED: &[(&str, &str)] = &[
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ];
    let terms = old.get_mut("required").and_then(|r| r.get_mut("nodeSelectorTerms")).and_then(Value::as_array_mut);
    for (term, newer) in terms.into_iter().flatten().zip(new.items_at(&["required", "nodeSelectorTerms"])) {
        let list = term.get_mut("matchExpressions").and_then(Value::as_array_mut);
        for (r, n) in list.into_iter().flatten().zip(newer.items_at(&["matchExpressions"])) {
            let (was, is) = (r.str_at(&["key"]).unwrap_or_default(), n.str_at(&["key"]).unwrap_or_default());
            let today = GRADUATED.iter().find(|(beta, _)| *beta == was).map_or("", |(_, today)| today);
            if is == today {
                let is = is.to_owned();
                *r.slot(&["key"]) = is.into();
            }
        }
    }
}

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        let Some(spec) = strategy::spec(o) else { return };
        for (f, v) in [("persistentVolumeReclaimPolicy", "Retain"), ("volumeMode", "Filesystem")] {
            if spec.get(f).is_none_or(|x| x.is_null() || (f != "volumeMode" && x.is_empty())) {
                spec.insert(f, v);
            }
        }
        if let Some(h) = spec.get_mut("hostPath").and_then(Value::as_object_mut)
            && h.get("type").is_none_or(Value::is_null)
        {
            h.insert("type", "");
        }
        strategy::default_phase(o, "Pending");
    }
    fn prepare_create(&self, o: &mut Value) {
        *o.slot(&["status", "phase"]) = "Pending".into();
    }
    fn stamp(&self, o: &mut Value, old: Option<&Value>, subresource: Option<&str>, now: &str) {
        const SINCE: [&str; 2] = ["status", "lastPhaseTransitionTime"];
        let phase = |v: &Value| v.str_at(&["status", "phase"]).map(str::to_owned);
        let since = |v: &Value| v.str_at(&SINCE).map(str::to_owned);
        match (old, subresource) {
            (None, _) => *o.slot(&SINCE) = now.into(),
            (Some(old), Some("status")) if phase(old) == phase(o) => {
                if let (None, Some(before)) = (since(o), since(old)) {
                    *o.slot(&SINCE) = before.into();
                }
            }
            // Whoever changes the phase may say since when.
            (Some(old), Some("status")) if since(o).is_none() || since(o) == since(old) => *o.slot(&SINCE) = now.into(),
            _ => {}
        }
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        let spec = o.get("spec").unwrap_or(&Value::Null);
        if spec.items_at(&["accessModes"]).is_empty() {
            e.required(&at.child("accessModes"), "");
        }
        validate_modes(spec, &at, e);
        capacity(spec, &at, e);
        let policy = string(spec, "persistentVolumeReclaimPolicy").unwrap_or_default();
        let path = at.child("persistentVolumeReclaimPolicy");
        if !matches!(policy, "" | "Delete" | "Recycle" | "Retain") {
            e.not_supported(&path, policy, &["Delete", "Recycle", "Retain"]);
        }
        let root = spec.str_at(&["hostPath", "path"]).is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b == b'/'));
        if root && policy == "Recycle" {
            e.forbidden(&path, "may not be 'recycle' for a hostPath mount of '/'");
        }
        if let Some(c) = string(spec, "storageClassName") {
            e.invalid_each(&at.child("storageClassName"), c, names::subdomain(c));
        }
        if let Some(a) = present(spec, "nodeAffinity") {
            let at = at.child("nodeAffinity").child("required");
            match present(a, "required") {
                None => e.required(&at, "must specify required node constraints"),
                Some(r) => node_selector(r, &at, e),
            }
        }
        sources(o.name(), spec, present(spec, "nodeAffinity").is_some(), &at, e);
        volume_mode(spec, &at, e);
        if let Some(c) = spec.str_at(&["volumeAttributesClassName"]) {
            let path = at.child("volumeAttributesClassName");
            if c.is_empty() {
                e.required(&path, "an empty string is disallowed");
            } else {
                e.invalid_each(&path, c, names::subdomain(c));
            }
            if present(spec, "csi").is_none() {
                e.required(&at.child("csi"), "has to be specified when using volumeAttributesClassName");
            }
        }
    }
    fn revalidates(&self, _subresource: Option<&str>) -> bool {
        false
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            return;
        }
        self.validate(o, e);
        let source = |v: &Value| {
            let mut s = v.get("spec").cloned().unwrap_or_default();
            if let Some(m) = s.as_object_mut() {
                m.retain(|k, _| !PLAIN.contains(&k));
            }
            s
        };
        let (mut now, was) = (source(o), source(old));
        // A volume from before the field may get the Secret to grow with.
        const GROWS_WITH: &str = "controllerExpandSecretRef";
        if let (Some(before), Some(csi)) = (present(&was, "csi"), now.get_mut("csi").and_then(Value::as_object_mut))
            && present(before, GROWS_WITH).is_none()
        {
            csi.remove(GROWS_WITH);
        }
        if !equality::equal_as("core/v1.PersistentVolumeSource", &now, &was) {
            e.forbidden(
                &Path::new("spec").child("persistentvolumesource"),
                "spec.persistentvolumesource is immutable after creation",
            );
        }
        e.immutable(&Path::new("volumeMode"), o.at(&["spec", "volumeMode"]), old.at(&["spec", "volumeMode"]));
        let (new, before) = (o.at(&["spec", "nodeAffinity"]), old.at(&["spec", "nodeAffinity"]));
        let fixed = before.filter(|b| !b.is_null());
        let mut graduated = fixed.cloned().unwrap_or_default();
        graduate(&mut graduated, new.unwrap_or(&Value::Null));
        if fixed.is_some() && !equality::equal_as("core/v1.VolumeNodeAffinity", new.unwrap_or(&Value::Null), &graduated)
        {
            let text = "field is immutable, except for updating from beta label to GA";
            e.invalid(&Path::new("nodeAffinity"), new.cloned().unwrap_or_default(), text);
        }
        let class = |v: &Value| v.at(&["spec", "volumeAttributesClassName"]).is_some_and(|c| !c.is_null());
        if class(old) && !class(o) {
            let at = Path::new("spec").child("volumeAttributesClassName");
            e.forbidden(&at, "update from non-nil value to nil is forbidden");
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "persistentVolume"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let claim = match o.str_at(&["spec", "claimRef", "name"]) {
            Some(n) => format!("{}/{n}", o.str_at(&["spec", "claimRef", "namespace"]).unwrap_or_default()),
            None => String::new(),
        };
        let phase = if o.deletion_timestamp().is_some() {
            "Terminating".into()
        } else {
            print::text(o, &["status", "phase"], "")
        };
        vec![
            print::scalar(o.at(&["spec", "capacity", "storage"])).into(),
            access_modes(o.items_at(&["spec", "accessModes"])).into(),
            print::text(o, &["spec", "persistentVolumeReclaimPolicy"], ""),
            phase,
            claim.into(),
            print::text(o, &["spec", "storageClassName"], ""),
            print::text(o, &["spec", "volumeAttributesClassName"], "<unset>"),
            print::text(o, &["status", "reason"], ""),
            print::age(o, c),
            print::text(o, &["spec", "volumeMode"], "<unset>"),
        ]
    }
}
