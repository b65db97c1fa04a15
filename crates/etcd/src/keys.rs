//! Where the registry's keys stand in etcd: `--etcd-prefix` in place of `/registry`.
//!
//! Upstream appends to the prefix; the registry's keys carry upstream's default. Keys that do not begin
//! with it go as they are.

use bytes::Bytes;

use crate::{EtcdError, PREFIX};

/// See the module.
#[derive(Debug)]
pub(crate) struct Keys {
    /// `None` while it is the default.
    prefix: Option<Vec<u8>>,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Result<Keys, EtcdError> {
        let trimmed = prefix.trim_end_matches('/');
        if trimmed.is_empty() || !trimmed.starts_with('/') {
            return Err(EtcdError::Prefix(prefix.to_owned()));
        }
        Ok(Keys { prefix: (trimmed != PREFIX).then(|| trimmed.as_bytes().to_vec()) })
    }

    /// The key in etcd; of a range's end too.
    pub(crate) fn outer(&self, key: Bytes) -> Bytes {
        match (&self.prefix, key.strip_prefix(PREFIX.as_bytes())) {
            (Some(prefix), Some(rest)) => [prefix, rest].concat().into(),
            _ => key,
        }
    }

    /// The registry's key.
    pub(crate) fn inner(&self, key: Bytes) -> Bytes {
        match &self.prefix {
            Some(prefix) => match key.strip_prefix(prefix.as_slice()) {
                Some(rest) => [PREFIX.as_bytes(), rest].concat().into(),
                None => key,
            },
            None => key,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn another_prefix_stands_for_the_default_one() {
        let keys = Keys::new("/a/b/").unwrap();
        for (inner, outer) in [("/registry/pods/x", "/a/b/pods/x"), ("/registry0", "/a/b0"), ("other", "other")] {
            assert_eq!(keys.outer(inner.into()), outer);
            assert_eq!(keys.inner(outer.into()), inner);
        }
        assert_eq!(Keys::new("/registry").unwrap().outer("/registry/x".into()), "/registry/x");
        for bad in ["", "/", "registry"] {
            assert!(Keys::new(bad).is_err(), "{bad}");
        }
    }
}
