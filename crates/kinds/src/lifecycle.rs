//! Versions that are on their way out: what a client is told when it asks for one.

use ironkeel_schema::Resource;

/// Group, version, kind (`*`: every kind), deprecated and gone since which minor release of v1.
const DEPRECATED: &[(&str, &str, &str, u8, u8)] = &[
    ("certificates.k8s.io", "v1alpha1", "ClusterTrustBundle", 34, 37),
    ("networking.k8s.io", "v1beta1", "*", 34, 37),
    ("storage.k8s.io", "v1beta1", "VolumeAttributesClass", 34, 37),
    ("admissionregistration.k8s.io", "v1alpha1", "*", 35, 38),
    ("coordination.k8s.io", "v1beta1", "LeaseCandidate", 36, 39),
    ("coordination.k8s.io", "v1alpha2", "LeaseCandidate", 35, 38),
    ("resource.k8s.io", "v1beta2", "DeviceClass", 36, 39),
    ("resource.k8s.io", "v1beta2", "ResourceClaim", 36, 39),
    ("resource.k8s.io", "v1beta2", "ResourceClaimTemplate", 36, 39),
    ("resource.k8s.io", "v1beta2", "ResourceSlice", 36, 39),
    ("resource.k8s.io", "v1beta1", "*", 35, 38),
    ("resource.k8s.io", "v1alpha3", "DeviceTaintRule", 36, 39),
];

/// The warning about a deprecated version or kind, with which every answer comes; `None` for one that stays.
pub fn deprecation(r: &Resource) -> Option<String> {
    if r.group.is_empty() && r.kind == "Endpoints" {
        return Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned());
    }
    let known = |(group, version, kind, _, _): &&(&str, &str, &str, u8, u8)| {
        *group == r.group && *version == r.version && (*kind == "*" || *kind == r.kind)
    };
    let (group, version, _, since, gone) = DEPRECATED.iter().find(known)?;
    let kind = r.kind;
    let mut text = format!("{group}/{version} {kind} is deprecated in v1.{since}+, unavailable in v1.{gone}+");
    if kind == "VolumeAttributesClass" {
        text.push_str("; use storage.k8s.io/v1 VolumeAttributesClass");
    }
    Some(text)
}
