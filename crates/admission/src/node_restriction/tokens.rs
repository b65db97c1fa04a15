//! Tokens that a kubelet asks for: of the Pods on its node, for audiences that those Pods name.

use ironkeel_auth::Attributes as Ask;
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Attributes};

use crate::Cluster;
use crate::attributes::caller;

/// What asks, in a node's name, for tokens of an audience that no Pod names.
const AUDIENCE_VERB: &str = "request-serviceaccounts-token-audience";

/// Volumes of the time before CSI, and the drivers that stand in for them.
const MIGRATED: &[(&str, &str)] = &[
    ("awsElasticBlockStore", "ebs.csi.aws.com"),
    ("azureDisk", "disk.csi.azure.com"),
    ("azureFile", "file.csi.azure.com"),
    ("cinder", "cinder.csi.openstack.org"),
    ("gcePersistentDisk", "pd.csi.storage.gke.io"),
    ("portworxVolume", "pxd.portworx.com"),
    ("vsphereVolume", "csi.vsphere.vmware.com"),
];

pub(super) fn admit(c: &Cluster, a: &Attributes<'_>, node: &str, object: Option<&Value>) -> Result<(), ApiError> {
    let Some(object) = object else { return Ok(()) };
    let reference = |key: &str| object.str_at(&["spec", "boundObjectRef", key]).unwrap_or_default();
    if (reference("apiVersion"), reference("kind")) != ("v1", "Pod") || reference("name").is_empty() {
        return Err(a.forbidden("node requested token not bound to a pod"));
    }
    let uid = reference("uid");
    if uid.is_empty() {
        return Err(a.forbidden("node requested token with a pod binding without a uid"));
    }
    let name = reference("name");
    let pod = c.get("", "pods", a.namespace, name).ok_or_else(|| ApiError::not_found("", "pods", name))?;
    if pod.uid() != uid {
        return Err(a.forbidden(&format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        )));
    }
    if !super::is_on(&pod, node) {
        return Err(a.forbidden("node requested token bound to a pod scheduled on a different node"));
    }
    audience(c, a, object, &pod).map_err(|why| a.forbidden(&why))
}

fn audience(c: &Cluster, a: &Attributes<'_>, request: &Value, pod: &Value) -> Result<(), String> {
    let wanted = match request.items_at(&["spec", "audiences"]) {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return Err("node may only request 0 or 1 audiences".to_owned()),
    };
    if named(c, pod, wanted).map_err(|why| format!("error validating audience {wanted:?}: {why}"))? {
        return Ok(());
    }
    let user = caller(a);
    let ask = Ask::for_resource(&user, AUDIENCE_VERB, "", "v1", wanted);
    let ask = Ask { namespace: a.namespace, name: a.name, ..ask };
    if c.authorizer.as_ref().is_some_and(|authorizer| authorizer.authorize(&ask).is_allowed()) {
        return Ok(());
    }
    Err(format!(
        "audience {wanted:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
        user.name
    ))
}

/// Whether a volume of the Pod wants tokens of the audience: one that projects them, or one whose
/// CSI driver asks for them. What could not be looked up is an error only where nothing was found.
fn named(c: &Cluster, pod: &Value, audience: &str) -> Result<bool, String> {
    let mut errors = Vec::new();
    for volume in pod.items_at(&["spec", "volumes"]) {
        let projected = volume.items_at(&["projected", "sources"]).iter();
        let mut tokens = projected.filter_map(|s| s.get("serviceAccountToken").filter(|t| !t.is_null()));
        if tokens.any(|t| t.str_at(&["audience"]).unwrap_or_default() == audience) {
            return Ok(true);
        }
        match asks(c, pod, volume, audience) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(why) => errors.push(why),
        }
    }
    match errors.len() {
        0 => Ok(false),
        1 => Err(errors.remove(0)),
        _ => Err(format!("[{}]", errors.join(", "))),
    }
}

/// Whether the CSI driver of a volume asks for tokens of the audience.
fn asks(c: &Cluster, pod: &Value, volume: &Value, audience: &str) -> Result<bool, String> {
    let Some(driver) = driver(c, pod, volume)? else { return Ok(false) };
    let found = c.get("storage.k8s.io", "csidrivers", "", &driver);
    let found = found.ok_or_else(|| format!("csidriver.storage.k8s.io {driver:?} not found"))?;
    let mut requests = found.items_at(&["spec", "tokenRequests"]).iter();
    Ok(requests.any(|r| r.str_at(&["audience"]).unwrap_or_default() == audience))
}

fn driver(c: &Cluster, pod: &Value, volume: &Value) -> Result<Option<String>, String> {
    let set = |key: &str| volume.get(key).is_some_and(|v| !v.is_null());
    let name = volume.str_at(&["name"]).unwrap_or_default();
    if volume.at(&["ephemeral", "volumeClaimTemplate"]).is_some_and(|t| !t.is_null()) {
        return of_claim(c, pod, &format!("{}-{name}", pod.name()));
    }
    if set("persistentVolumeClaim") {
        return of_claim(c, pod, volume.str_at(&["persistentVolumeClaim", "claimName"]).unwrap_or_default());
    }
    if set("csi") {
        return Ok(volume.str_at(&["csi", "driver"]).map(str::to_owned));
    }
    Ok(MIGRATED.iter().find(|(key, _)| set(key)).map(|(_, driver)| (*driver).to_owned()))
}

fn of_claim(c: &Cluster, pod: &Value, claim: &str) -> Result<Option<String>, String> {
    let found = c.get("", "persistentvolumeclaims", pod.namespace(), claim);
    let found = found.ok_or_else(|| format!("persistentvolumeclaim {claim:?} not found"))?;
    let volume = found.str_at(&["spec", "volumeName"]).unwrap_or_default();
    let found = c.get("", "persistentvolumes", "", volume);
    let found = found.ok_or_else(|| format!("persistentvolume {volume:?} not found"))?;
    if let Some(driver) = found.str_at(&["spec", "csi", "driver"]) {
        return Ok(Some(driver.to_owned()));
    }
    let set = |key: &str| found.at(&["spec", key]).is_some_and(|v| !v.is_null());
    Ok(MIGRATED.iter().find(|(key, _)| set(key)).map(|(_, driver)| (*driver).to_owned()))
}
