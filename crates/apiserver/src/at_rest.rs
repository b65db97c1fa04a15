//! Which keys of the store a resource's objects stand under; for encryption at rest.

/// The prefixes of `secrets`, `deployments.apps`, `*.apps`, `*.` (the core group) or `*.*`; custom
/// resources by `<plural>.<group>`.
pub fn store_prefixes(resource: &str) -> Vec<Vec<u8>> {
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    if (plural, group) == ("*", "*") {
        return vec![b"/registry/".to_vec()];
    }
    if plural != "*" {
        return vec![ironkeel_registry::prefix_of(group, plural).into_bytes()];
    }
    let mut all: Vec<Vec<u8>> = ironkeel_kinds::kinds()
        .iter()
        .filter(|k| k.resource.group == group)
        .map(|k| ironkeel_registry::prefix_of(k.resource.group, k.resource.plural).into_bytes())
        .collect();
    if all.is_empty() {
        // Custom resources of the group.
        all.push(format!("/registry/{group}/").into_bytes());
    }
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::store_prefixes;

    #[test]
    fn prefixes_are_upstreams() {
        assert_eq!(store_prefixes("secrets"), [b"/registry/secrets/".to_vec()]);
        assert_eq!(store_prefixes("services"), [b"/registry/services/specs/".to_vec()]);
        assert_eq!(store_prefixes("*.*"), [b"/registry/".to_vec()]);
        assert!(store_prefixes("*.").contains(&b"/registry/configmaps/".to_vec()));
        assert!(!store_prefixes("*.").contains(&b"/registry/deployments/".to_vec()));
        assert!(store_prefixes("*.apps").contains(&b"/registry/deployments/".to_vec()));
    }
}
