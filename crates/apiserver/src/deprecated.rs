//! Versions of resources that upstream has deprecated as of 1.36, and the release that serves them no longer.

/// Group, version, resource, release.
const DEPRECATED: &[(&str, &str, &str, &str)] = &[
    ("", "v1", "componentstatuses", ""),
    ("", "v1", "endpoints", ""),
    ("admissionregistration.k8s.io", "v1alpha1", "mutatingadmissionpolicies", "1.38"),
    ("admissionregistration.k8s.io", "v1alpha1", "mutatingadmissionpolicybindings", "1.38"),
    ("certificates.k8s.io", "v1alpha1", "clustertrustbundles", "1.37"),
    ("coordination.k8s.io", "v1alpha2", "leasecandidates", "1.38"),
    ("coordination.k8s.io", "v1beta1", "leasecandidates", "1.39"),
    ("networking.k8s.io", "v1beta1", "ipaddresses", "1.37"),
    ("networking.k8s.io", "v1beta1", "servicecidrs", "1.37"),
    ("resource.k8s.io", "v1alpha3", "devicetaintrules", "1.39"),
    ("resource.k8s.io", "v1beta1", "deviceclasses", "1.38"),
    ("resource.k8s.io", "v1beta1", "resourceclaims", "1.38"),
    ("resource.k8s.io", "v1beta1", "resourceclaimtemplates", "1.38"),
    ("resource.k8s.io", "v1beta1", "resourceslices", "1.38"),
    ("resource.k8s.io", "v1beta2", "deviceclasses", "1.39"),
    ("resource.k8s.io", "v1beta2", "resourceclaims", "1.39"),
    ("resource.k8s.io", "v1beta2", "resourceclaimtemplates", "1.39"),
    ("resource.k8s.io", "v1beta2", "resourceslices", "1.39"),
    ("storage.k8s.io", "v1beta1", "volumeattributesclasses", "1.37"),
];

/// The release that removes a deprecated version (empty where none is named); `None` for what is not deprecated.
pub(crate) fn removed_release(group: &str, version: &str, resource: &str) -> Option<&'static str> {
    // Most requests are for resources that are not in the table: their names differ in length already.
    DEPRECATED.iter().find(|d| d.2 == resource && d.1 == version && d.0 == group).map(|d| d.3)
}
