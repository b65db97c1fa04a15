//! DefaultStorageClass, StorageObjectInUseProtection and PersistentVolumeClaimResize.

use ironkeel_object::{ObjectMeta, Quantity, Value};
use ironkeel_registry::{ApiError, Attributes, Operation};

use crate::Cluster;

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const BETA_DEFAULT_CLASS: &str = "storageclass.beta.kubernetes.io/is-default-class";

/// StorageObjectInUseProtection: what is in use waits for its deletion.
pub(crate) fn protect(a: &Attributes<'_>, object: &mut Value) {
    if a.operation != Operation::Create {
        return;
    }
    let finalizer = if a.is("", "persistentvolumeclaims") {
        "kubernetes.io/pvc-protection"
    } else if a.is("", "persistentvolumes") {
        "kubernetes.io/pv-protection"
    } else if a.is("storage.k8s.io", "volumeattributesclasses") {
        "kubernetes.io/vac-protection"
    } else {
        return;
    };
    let mut finalizers: Vec<String> = object.finalizers().into_iter().map(str::to_owned).collect();
    if !finalizers.iter().any(|f| f == finalizer) {
        finalizers.push(finalizer.to_owned());
        object.meta_mut().insert("finalizers", finalizers);
    }
}

/// DefaultStorageClass: a claim without a class gets the default one, the youngest of several.
pub(crate) fn default_class(c: &Cluster, a: &Attributes<'_>, object: &mut Value) {
    if a.operation != Operation::Create || !a.is("", "persistentvolumeclaims") {
        return;
    }
    let classless = object.at(&["spec", "storageClassName"]).is_none_or(Value::is_null)
        && object.annotation("volume.beta.kubernetes.io/storage-class").is_none();
    if !classless {
        return;
    }
    let classes = c.list("storage.k8s.io", "storageclasses", "");
    let default = classes
        .iter()
        .filter(|s| is_default(s))
        .max_by(|x, y| (x.meta_str("creationTimestamp"), y.name()).cmp(&(y.meta_str("creationTimestamp"), x.name())));
    if let Some(class) = default {
        *object.slot(&["spec", "storageClassName"]) = class.name().into();
    }
}

fn is_default(class: &Value) -> bool {
    [DEFAULT_CLASS, BETA_DEFAULT_CLASS].iter().any(|key| class.annotation(key) == Some("true"))
}

/// PersistentVolumeClaimResize: a claim grows only where its class allows that.
pub(crate) fn resize(c: &Cluster, a: &Attributes<'_>, claim: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let Some(old) = old.filter(|_| a.operation == Operation::Update && a.is("", "persistentvolumeclaims")) else {
        return Ok(());
    };
    let size =
        |o: &Value| o.str_at(&["spec", "resources", "requests", "storage"]).and_then(|q| Quantity::parse(q).ok());
    let (Some(before), Some(after)) = (size(old), size(claim)) else { return Ok(()) };
    if after <= before {
        return Ok(());
    }
    let class = claim.str_at(&["spec", "storageClassName"]).unwrap_or_default();
    let class = c.get("storage.k8s.io", "storageclasses", "", class);
    let expands = class.is_some_and(|s| s.get("allowVolumeExpansion").and_then(Value::as_bool) == Some(true));
    if expands {
        return Ok(());
    }
    Err(a.forbidden(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    ))
}
