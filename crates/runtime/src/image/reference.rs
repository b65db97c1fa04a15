//! Image names, normalized as upstream's runtimes do (`busybox` is
//! `docker.io/library/busybox:latest`).

use std::fmt;

use crate::error::Error;

/// A normalized name: registry, repository, and a tag, a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName {
    /// Registry host, with a port where it has one.
    pub registry: String,
    /// Repository path.
    pub repository: String,
    /// Tag, when the name has one.
    pub tag: Option<String>,
    /// `sha256:…`, when the name has one.
    pub digest: Option<String>,
}

impl ImageName {
    /// Parses and normalizes a name.
    pub fn parse(text: &str) -> Result<ImageName, Error> {
        let invalid = |why: &str| Error::Invalid(format!("invalid image name \"{text}\": {why}"));
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (text, None),
        };
        if digest.as_ref().is_some_and(|d| !is_digest(d)) {
            return Err(invalid("the digest is not sha256:<64 hexadecimal digits>"));
        }
        let (path, tag) = match rest.rfind(':').filter(|i| !rest[*i..].contains('/')) {
            Some(i) => (&rest[..i], Some(rest[i + 1..].to_owned())),
            None => (rest, None),
        };
        let (registry, repository) = match path.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest.to_owned()),
            _ => ("docker.io", path.to_owned()),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let repository = if registry == "docker.io" && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository
        };
        let word = |w: &str| {
            !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        };
        if !repository.split('/').all(word) || path.is_empty() {
            return Err(invalid("the repository must be lower-case words separated by /"));
        }
        let tag_is_fine = |t: &String| {
            (1..=128).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        if tag.as_ref().is_some_and(|t| !tag_is_fine(t)) {
            return Err(invalid("the tag must be up to 128 letters, digits, '.', '_' or '-'"));
        }
        let tag = if tag.is_none() && digest.is_none() { Some("latest".into()) } else { tag };
        Ok(ImageName { registry: registry.into(), repository, tag, digest })
    }

    /// `registry/repository`.
    pub fn repository_name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// `registry/repository:tag`, when there is a tag and no digest.
    pub fn tagged(&self) -> Option<String> {
        let tag = self.tag.as_ref().filter(|_| self.digest.is_none())?;
        Some(format!("{}:{tag}", self.repository_name()))
    }

    /// `registry/repository@digest`, when there is a digest.
    pub fn digested(&self) -> Option<String> {
        self.digest.as_ref().map(|d| format!("{}@{d}", self.repository_name()))
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository_name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_normalized_as_upstream() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (given, wanted) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("foo/bar", "docker.io/foo/bar:latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
            (&format!("quay.io/a/b@{digest}"), &format!("quay.io/a/b@{digest}")),
            (&format!("quay.io/a/b:t@{digest}"), &format!("quay.io/a/b:t@{digest}")),
        ] {
            assert_eq!(ImageName::parse(given).unwrap().to_string(), wanted);
        }
        for bad in ["", "UPPER", "a b", "a@sha256:1", "a:b:c:", "quay.io/"] {
            assert!(ImageName::parse(bad).is_err(), "{bad}");
        }
    }
}
