//! `PodTemplateSpec`, as workloads carry it, and the defaults of every pod spec.

use ironkeel_object::{Map, Value};

use crate::error::Errors;
use crate::{Path, equality, metadata, pod_spec, selector, strategy};

fn set(map: &mut Map, key: &'static str, value: impl Into<Value>) {
    if map.get(key).is_none_or(|v| v.is_null() || v.as_str() == Some("")) {
        map.insert(key, value);
    }
}

fn set_number(map: &mut Map, key: &'static str, value: i64) {
    if map.get(key).is_none_or(|v| v.is_null() || v.as_i64() == Some(0)) {
        map.insert(key, value);
    }
}

fn objects<'a>(map: &'a mut Map, key: &str) -> impl Iterator<Item = &'a mut Map> {
    map.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn child<'a>(map: &'a mut Map, key: &str) -> Option<&'a mut Map> {
    map.get_mut(key).and_then(Value::as_object_mut)
}

/// Bytes of an image reference that can be one.
const IMAGE_MAX_BYTES: usize = 255;

/// Whether an image reference means the tag `latest`: named so, or neither tag nor digest.
fn is_latest(image: &str) -> bool {
    if image.is_empty() || image.len() > IMAGE_MAX_BYTES || image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    let part = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    // What is no reference at all is left alone.
    if !last.split(':').next().unwrap_or_default().bytes().all(part) {
        return false;
    }
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn pull_policy(image: &str) -> &'static str {
    if is_latest(image) { "Always" } else { "IfNotPresent" }
}

/// Defaults of a `PodSpec`, wherever it stands.
pub(crate) fn default_pod_spec(spec: &mut Map) {
    set(spec, "dnsPolicy", "ClusterFirst");
    set(spec, "restartPolicy", "Always");
    set(spec, "schedulerName", "default-scheduler");
    if spec.get("securityContext").is_none_or(Value::is_null) {
        spec.insert("securityContext", Value::object());
    }
    if spec.get("terminationGracePeriodSeconds").is_none_or(Value::is_null) {
        spec.insert("terminationGracePeriodSeconds", 30_i64);
    }
    mirror_service_account(spec);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        objects(spec, list).for_each(default_container);
    }
    objects(spec, "volumes").for_each(default_volume);
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always the same.
fn mirror_service_account(spec: &mut Map) {
    let name = spec.str("serviceAccountName").filter(|s| !s.is_empty()).or_else(|| spec.str("serviceAccount"));
    if let Some(name) = name.map(str::to_owned).filter(|s| !s.is_empty()) {
        spec.insert("serviceAccountName", name.as_str());
        spec.insert("serviceAccount", name);
    }
}

fn default_container(c: &mut Map) {
    let policy = pull_policy(c.str("image").unwrap_or_default());
    set(c, "imagePullPolicy", policy);
    set(c, "terminationMessagePath", "/dev/termination-log");
    set(c, "terminationMessagePolicy", "File");
    if c.get("resources").is_none_or(Value::is_null) {
        c.insert("resources", Value::object());
    }
    for p in objects(c, "ports") {
        set(p, "protocol", "TCP");
    }
    for e in objects(c, "env") {
        if let Some(f) = child(e, "valueFrom").and_then(|v| child(v, "fieldRef")) {
            set(f, "apiVersion", "v1");
        }
        if let Some(r) = child(e, "valueFrom").and_then(|v| child(v, "resourceFieldRef")) {
            set(r, "divisor", "0");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(p) = child(c, probe) {
            set_number(p, "timeoutSeconds", 1);
            set_number(p, "periodSeconds", 10);
            set_number(p, "successThreshold", 1);
            set_number(p, "failureThreshold", 3);
            default_handler(p);
            if let Some(grpc) = child(p, "grpc")
                && grpc.get("service").is_none_or(Value::is_null)
            {
                grpc.insert("service", "");
            }
        }
    }
    if let Some(l) = child(c, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(h) = child(l, hook) {
                default_handler(h);
            }
        }
    }
}

fn default_handler(h: &mut Map) {
    if let Some(get) = child(h, "httpGet") {
        set(get, "path", "/");
        set(get, "scheme", "HTTP");
    }
}

fn default_volume(v: &mut Map) {
    if v.iter().all(|(k, x)| k == "name" || x.is_null()) {
        v.insert("emptyDir", Value::object());
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(s) = child(v, source) {
            if s.get("defaultMode").is_none_or(Value::is_null) {
                s.insert("defaultMode", 0o644_i64);
            }
            objects(s, "items").for_each(default_field_item);
            for p in objects(s, "sources") {
                if let Some(token) = child(p, "serviceAccountToken")
                    && token.get("expirationSeconds").is_none_or(Value::is_null)
                {
                    token.insert("expirationSeconds", 3600_i64);
                }
                if let Some(api) = child(p, "downwardAPI") {
                    objects(api, "items").for_each(default_field_item);
                }
            }
        }
    }
    if let Some(h) = child(v, "hostPath")
        && h.get("type").is_none_or(Value::is_null)
    {
        h.insert("type", "");
    }
    if let Some(i) = child(v, "image") {
        let policy = pull_policy(i.str("reference").unwrap_or_default());
        set(i, "pullPolicy", policy);
    }
    let claim = child(v, "ephemeral").and_then(|e| child(e, "volumeClaimTemplate")).and_then(|t| child(t, "spec"));
    if let Some(spec) = claim
        && spec.get("volumeMode").is_none_or(Value::is_null)
    {
        spec.insert("volumeMode", "Filesystem");
    }
    if let Some(d) = child(v, "azureDisk") {
        for (field, value) in [("cachingMode", "ReadWrite"), ("kind", "Shared"), ("fsType", "ext4")] {
            if d.get(field).is_none_or(Value::is_null) {
                d.insert(field, value);
            }
        }
        if d.get("readOnly").is_none_or(Value::is_null) {
            d.insert("readOnly", false);
        }
    }
    if let Some(i) = child(v, "iscsi") {
        set(i, "iscsiInterface", "default");
    }
    if let Some(r) = child(v, "rbd") {
        set(r, "pool", "rbd");
        set(r, "user", "admin");
        set(r, "keyring", "/etc/ceph/keyring");
    }
    if let Some(s) = child(v, "scaleIO") {
        set(s, "storageMode", "ThinProvisioned");
        set(s, "fsType", "xfs");
    }
}

fn default_field_item(item: &mut Map) {
    if let Some(f) = child(item, "fieldRef") {
        set(f, "apiVersion", "v1");
    }
    if let Some(r) = child(item, "resourceFieldRef") {
        set(r, "divisor", "0");
    }
}

/// Defaults of the template at `spec.template`.
pub(crate) fn default_template(holder: &mut Map) {
    if let Some(template) = strategy::member(holder, "template")
        && let Some(spec) = strategy::member(template, "spec")
    {
        default_pod_spec(spec);
    }
}

/// Metadata of a claim's template: labels and annotations, nothing else.
pub(crate) fn claim_metadata(template: &Value, path: &Path, e: &mut Errors) {
    let Some(meta) = template.get("metadata").and_then(Value::as_object) else { return };
    metadata::annotations(meta.get("annotations"), &path.child("annotations"), e);
    selector::labels(meta.get("labels"), &path.child("labels"), e);
    for (k, v) in meta.iter().filter(|(k, v)| !matches!(k.as_ref(), "labels" | "annotations") && !v.is_empty()) {
        let shown = if k.as_ref() == "uid" { "uID" } else { k.as_ref() };
        if v.as_i64() != Some(0) {
            e.forbidden(&path.child(shown), "cannot be set");
        }
    }
}

/// The labels of the template at `spec.template` of a workload.
pub(crate) fn template_labels(object: &Value) -> Option<&Value> {
    object.at(&["spec", "template", "metadata", "labels"])
}

/// Rules for a template.
pub(crate) fn validate_template(template: Option<&Value>, path: &Path, e: &mut Errors) {
    let Some(t) = template.filter(|t| !t.is_null()) else {
        e.required(path, "");
        return;
    };
    selector::labels(t.at(&["metadata", "labels"]), &path.child("labels"), e);
    metadata::annotations(t.at(&["metadata", "annotations"]), &path.child("annotations"), e);
    let spec = t.get("spec").unwrap_or(&Value::Null);
    pod_spec::validate(spec, "", &path.child("spec"), pod_spec::Place::Template, e);
    if !t.items_at(&["spec", "ephemeralContainers"]).is_empty() {
        e.forbidden(
            &path.child("spec").child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

/// The selector of a workload; answers whether it is one at all.
pub(crate) fn validate_selector(object: &Value, what: &str, e: &mut Errors) -> bool {
    let path = Path::new("spec").child("selector");
    let s = object.at(&["spec", "selector"]);
    if s.is_none_or(Value::is_null) {
        e.required(&path, "");
        return true;
    }
    let before = e.len();
    selector::label_selector(s, &path, e);
    let fine = e.len() == before;
    if selector::is_blank(s) {
        e.invalid(&path, s.cloned().unwrap_or_default(), &format!("empty selector is invalid for {what}"));
    }
    fine
}

/// Says that the selector does not make sense; `detail` is the kind's own.
pub(crate) fn unusable_selector(object: &Value, detail: &str, e: &mut Errors) {
    let s = object.at(&["spec", "selector"]).cloned().unwrap_or_default();
    e.invalid(&Path::new("spec").child("selector"), s, detail);
}

/// The template carries the labels that a well-formed selector asks for. No selector selects nothing.
pub(crate) fn validate_labels(object: &Value, e: &mut Errors) {
    let labels = template_labels(object);
    let s = object.at(&["spec", "selector"]).filter(|s| !s.is_null());
    if s.is_none_or(|s| !selector::matches(s, labels)) {
        let at = Path::new("spec").child("template").child("metadata").child("labels");
        e.invalid(&at, labels.cloned().unwrap_or_default(), "`selector` does not match template `labels`");
    }
}

/// A template that always restarts, as long-running workloads need it.
pub(crate) fn validate_always_restarts(object: &Value, kind: &str, e: &mut Errors) {
    let at = Path::new("spec").child("template").child("spec");
    let spec = object.at(&["spec", "template", "spec"]).unwrap_or(&Value::Null);
    let policy = spec.str_at(&["restartPolicy"]).unwrap_or_default();
    if policy != "Always" && !object.at(&["spec", "template"]).is_none_or(Value::is_null) {
        e.not_supported(&at.child("restartPolicy"), policy, &["Always"]);
    }
    if spec.get("activeDeadlineSeconds").is_some_and(|v| !v.is_null()) {
        let text = format!("activeDeadlineSeconds in {kind} is not Supported");
        e.forbidden(&at.child("activeDeadlineSeconds"), &text);
    }
}

/// `spec.selector` of a workload never changes.
pub(crate) fn immutable_selector(object: &Value, old: &Value, e: &mut Errors) {
    let (n, o) = (object.at(&["spec", "selector"]), old.at(&["spec", "selector"]));
    if !equality::same(n, o) {
        e.immutable(&Path::new("spec").child("selector"), n, o);
    }
}
