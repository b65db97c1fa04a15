//! Image names as users write them: which registry they mean, whether they are well-formed, and what pull policy
//! follows when none is given.

/// The registry that unqualified names mean.
const DEFAULT_REGISTRY: &str = "docker.io";

/// The parts of an image reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) registry: String,
    pub(crate) repository: String,
    pub(crate) tag: Option<String>,
    pub(crate) digest: Option<String>,
}

/// Parses a reference as Docker does; the error is upstream's text.
pub(crate) fn parse(image: &str) -> Result<Reference, &'static str> {
    const INVALID: &str = "invalid reference format";
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    if let Some(digest) = digest {
        let hex = digest.split_once(':').map(|(_, hex)| hex).ok_or(INVALID)?;
        if hex.len() < 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(INVALID);
        }
    }
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if let Some(tag) = tag {
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if tag.is_empty() || tag.len() > 128 || !tag.bytes().all(fine) || tag.starts_with(['.', '-']) {
            return Err(INVALID);
        }
    }
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
        Some(_) => (DEFAULT_REGISTRY, name.to_owned()),
        None => (DEFAULT_REGISTRY, format!("library/{name}")),
    };
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("repository name must be lowercase");
    }
    let fine = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-'))
            && part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    if name.is_empty() || !repository.split('/').all(fine) {
        return Err(INVALID);
    }
    Ok(Reference {
        registry: registry.to_owned(),
        repository,
        tag: tag.map(str::to_owned),
        digest: digest.map(str::to_owned),
    })
}

/// The name that the runtime is asked for: `latest` when neither tag nor digest is given.
pub(crate) fn with_default_tag(image: &str) -> Result<String, &'static str> {
    let reference = parse(image)?;
    Ok(if reference.tag.is_none() && reference.digest.is_none() { format!("{image}:latest") } else { image.to_owned() })
}

/// The pull policy: as given, or by the tag.
pub(crate) fn pull_policy<'a>(given: Option<&'a str>, image: &str) -> &'a str {
    match given {
        Some(policy) if !policy.is_empty() => policy,
        _ => match parse(image) {
            Ok(Reference { digest: None, tag, .. }) if tag.as_deref().unwrap_or("latest") == "latest" => "Always",
            _ => "IfNotPresent",
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn references_are_parsed_as_docker_does() {
        let check = |image: &str, registry: &str, repository: &str, tag: Option<&str>| {
            let parsed = parse(image).unwrap();
            let found = (parsed.registry.as_str(), parsed.repository.as_str(), parsed.tag.as_deref());
            assert_eq!(found, (registry, repository, tag), "{image}");
        };
        check("busybox", "docker.io", "library/busybox", None);
        check("a/b:1", "docker.io", "a/b", Some("1"));
        check("localhost:5000/a:v1", "localhost:5000", "a", Some("v1"));
        check("registry.k8s.io/e2e/agnhost:2.40", "registry.k8s.io", "e2e/agnhost", Some("2.40"));
        for bad in ["", "FOO", "a b", "a:", "a//b", "a@sha256:xyz", "http://a/b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_tag_decides_the_policy() {
        for (image, policy) in [("a", "Always"), ("a:latest", "Always"), ("a:1", "IfNotPresent")] {
            assert_eq!(pull_policy(None, image), policy);
        }
        assert_eq!(pull_policy(Some("Never"), "a"), "Never");
    }
}
