//! What upstream's documents say of single types and fields, and no other row of the tables tells.

use serde_json::{Value, json};

/// Types of which at most one member is set: definition, discriminator, members and their names.
type Union = (&'static str, Option<&'static str>, &'static [(&'static str, &'static str)]);

const UNIONS: &[Union] = &[
    ("core/v1.AppArmorProfile", Some("type"), &[("localhostProfile", "LocalhostProfile")]),
    ("core/v1.PodSchedulingGroup", None, &[("podGroupName", "PodGroupName")]),
    ("core/v1.SeccompProfile", Some("type"), &[("localhostProfile", "LocalhostProfile")]),
    ("flowcontrol/v1.LimitResponse", Some("type"), &[("queuing", "Queuing")]),
    ("flowcontrol/v1.PriorityLevelConfigurationSpec", Some("type"), &[("exempt", "Exempt"), ("limited", "Limited")]),
    (
        "flowcontrol/v1.Subject",
        Some("kind"),
        &[("group", "Group"), ("serviceAccount", "ServiceAccount"), ("user", "User")],
    ),
    ("scheduling/v1alpha2.PodGroupSchedulingPolicy", None, &[("basic", "Basic"), ("gang", "Gang")]),
    ("scheduling/v1alpha2.PodGroupTemplateReference", None, &[("workload", "Workload")]),
];

/// `x-kubernetes-unions` of a type.
pub(crate) fn unions(type_name: &str) -> Option<Value> {
    let (_, discriminator, members) = UNIONS.iter().find(|u| u.0 == type_name)?;
    let fields: serde_json::Map<_, _> = members.iter().map(|(f, n)| ((*f).to_owned(), Value::from(*n))).collect();
    let mut union = json!({ "fields-to-discriminateBy": fields });
    if let Some(discriminator) = discriminator {
        union["discriminator"] = (*discriminator).into();
    }
    Some(json!([union]))
}

/// The values of a field that the documents close, while objects may have others (of later versions, or until a
/// gate is on).
pub(crate) fn values(type_name: &str, field: &str) -> Option<&'static [&'static str]> {
    match (type_name, field) {
        ("discovery/v1.EndpointSlice", "addressType") => Some(&["FQDN", "IPv4", "IPv6"]),
        ("networking/v1.HTTPIngressPath", "pathType") => Some(&["Exact", "ImplementationSpecific", "Prefix"]),
        (
            "resource/v1.DeviceSubRequest"
            | "resource/v1.ExactDeviceRequest"
            | "resource/v1beta1.DeviceRequest"
            | "resource/v1beta1.DeviceSubRequest"
            | "resource/v1beta2.DeviceSubRequest"
            | "resource/v1beta2.ExactDeviceRequest",
            "allocationMode",
        ) => Some(&["All", "ExactCount"]),
        _ => None,
    }
}

/// The default that a declaration names instead of telling it.
pub(crate) fn named_default(declared: &str) -> Option<&'static str> {
    match declared {
        "ref(AzureDataDiskCachingReadWrite)" => Some("ReadWrite"),
        "ref(AzureSharedBlobDisk)" => Some("Shared"),
        _ => None,
    }
}

/// A keyword of one field.
pub(crate) fn keyword(type_name: &str, field: &str) -> Option<(&'static str, &'static str)> {
    match (type_name, field) {
        ("core/v1.PersistentVolumeClaimStatus", "allocatedResourceStatuses")
        | ("core/v1.PersistentVolumeSpec", "claimRef") => Some(("x-kubernetes-map-type", "granular")),
        ("policy/v1.PodDisruptionBudgetSpec", "selector") => Some(("x-kubernetes-patch-strategy", "replace")),
        _ => None,
    }
}
