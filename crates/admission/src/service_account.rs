//! ServiceAccount: every Pod has one, its token mounted unless told otherwise, and its pull secrets.

use std::sync::Arc;
use std::time::Duration;

use ironkeel_object::{FieldSelector, LabelSelector, ObjectMeta, Value, object};
use ironkeel_registry::{ApiError, Attributes, Selection, WatchStart, name_suffix};

use crate::Cluster;

/// Where the token is mounted.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long a Pod may wait for its namespace's ServiceAccount to be made, in milliseconds.
const ACCOUNT_WAIT_MS: u64 = 1_000;
/// Lifetime of a mounted token, in seconds; the odd 7 seconds mark it as upstream's default.
const TOKEN_SECONDS: i64 = 3_607;

pub(crate) async fn mutate(c: &Cluster, a: &Attributes<'_>, pod: &mut Value) -> Result<(), ApiError> {
    if pod.annotation("kubernetes.io/config.mirror").is_some() {
        if pod.str_at(&["spec", "serviceAccountName"]).is_some_and(|n| !n.is_empty() && n != "default") {
            return Err(a.forbidden("a mirror pod may not reference service accounts"));
        }
        if references_secrets(pod) {
            return Err(a.forbidden("a mirror pod may not reference secrets"));
        }
        let projects_token = projections(pod).any(|s| s.get("serviceAccountToken").is_some_and(|t| !t.is_null()));
        if projects_token {
            return Err(a.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
        }
        return Ok(());
    }
    let mut name = pod.str_at(&["spec", "serviceAccountName"]).unwrap_or_default().to_owned();
    if name.is_empty() {
        name = pod.str_at(&["spec", "serviceAccount"]).filter(|n| !n.is_empty()).unwrap_or("default").to_owned();
    }
    *pod.slot(&["spec", "serviceAccountName"]) = name.as_str().into();
    *pod.slot(&["spec", "serviceAccount"]) = name.as_str().into();
    let account = account(c, a, &name).await?;
    let automount = |o: &Value, path: &[&str]| o.at(path).and_then(Value::as_bool);
    let wanted = automount(pod, &["spec", "automountServiceAccountToken"])
        .or_else(|| automount(&account, &["automountServiceAccountToken"]))
        .unwrap_or(true);
    if wanted {
        mount(pod);
    }
    if pod.items_at(&["spec", "imagePullSecrets"]).is_empty() {
        let secrets = account.items_at(&["imagePullSecrets"]);
        if !secrets.is_empty() {
            *pod.slot(&["spec", "imagePullSecrets"]) = Value::Array(secrets.to_vec());
        }
    }
    Ok(())
}

fn projections(pod: &Value) -> impl Iterator<Item = &Value> {
    pod.items_at(&["spec", "volumes"]).iter().flat_map(|v| v.items_at(&["projected", "sources"]))
}

/// Whether volumes, environments or pull secrets name a Secret.
fn references_secrets(pod: &Value) -> bool {
    let set = |v: &Value, path: &[&str]| v.at(path).is_some_and(|s| !s.is_null());
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    !pod.items_at(&["spec", "imagePullSecrets"]).is_empty()
        || pod.items_at(&["spec", "volumes"]).iter().any(|v| set(v, &["secret"]))
        || projections(pod).any(|s| set(s, &["secret"]))
        || lists.iter().flat_map(|l| pod.items_at(&["spec", l])).any(|c| {
            c.items_at(&["env"]).iter().any(|e| set(e, &["valueFrom", "secretKeyRef"]))
                || c.items_at(&["envFrom"]).iter().any(|e| set(e, &["secretRef"]))
        })
}

/// The account; a fresh namespace's default one is waited for.
async fn account(c: &Cluster, a: &Attributes<'_>, name: &str) -> Result<Arc<Value>, ApiError> {
    if let Some(found) = c.get("", "serviceaccounts", a.namespace, name) {
        return Ok(found);
    }
    let missing = || {
        a.forbidden(&format!(
            "error looking up service account {}/{name}: serviceaccount \"{name}\" not found",
            a.namespace
        ))
    };
    let Some(registry) = c.registry.as_ref().filter(|_| name == "default") else { return Err(missing()) };
    let row = registry.row("", "v1", "serviceaccounts").ok_or_else(missing)?;
    let fields = FieldSelector::parse("metadata.name=default").map_err(ApiError::from)?;
    let selection = Selection::new(a.namespace, LabelSelector::default(), &fields, &[])?;
    let mut watcher = registry.watch(&row, selection, WatchStart::State, 0).await?;
    let wait = Duration::from_millis(ACCOUNT_WAIT_MS);
    let mut events = Vec::new();
    match tokio::time::timeout(wait, watcher.next(&mut events)).await {
        Ok(Ok(())) => c.get("", "serviceaccounts", a.namespace, name).ok_or_else(missing),
        _ => Err(missing()),
    }
}

fn mount(pod: &mut Value) {
    let volume = format!("kube-api-access-{}", name_suffix());
    let mut used = false;
    for list in ["initContainers", "containers"] {
        let Some(containers) = pod.get_mut("spec").and_then(|s| s.get_mut(list)).and_then(Value::as_array_mut) else {
            continue;
        };
        for container in containers {
            let mounts = container.items_at(&["volumeMounts"]);
            if mounts.iter().any(|m| m.str_at(&["mountPath"]) == Some(MOUNT_PATH)) {
                continue;
            }
            push(
                container.slot(&["volumeMounts"]),
                object!({ "name": (volume.as_str()), "readOnly": true, "mountPath": MOUNT_PATH }),
            );
            used = true;
        }
    }
    if !used {
        return;
    }
    push(
        pod.slot(&["spec", "volumes"]),
        object!({
            "name": (volume.as_str()),
            "projected": {
                "defaultMode": 420i64,
                "sources": [
                    { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
                    { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                    { "downwardAPI": { "items": [
                        { "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } }
                    ] } }
                ],
            },
        }),
    );
}

/// Appends to a list, which is made where there is none.
pub(crate) fn push(list: &mut Value, item: Value) {
    if !matches!(list, Value::Array(_)) {
        *list = Value::Array(Vec::new());
    }
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}
