//! Which of the built-in groups, versions and resources are served (`--runtime-config`). Stored objects of
//! versions that are not served are still read.

use ironkeel_schema::Resource;

/// How far a version has come.
fn stage(version: &str) -> &'static str {
    if version.contains("alpha") {
        "api/alpha"
    } else if version.contains("beta") {
        "api/beta"
    } else {
        "api/ga"
    }
}

/// A choice of `--runtime-config` that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pair}: {reason}")]
pub struct RuntimeConfigError {
    /// As it was given.
    pub pair: String,
    /// Why not.
    pub reason: &'static str,
}

/// What is served; everything unless told otherwise.
#[derive(Clone, Debug, Default)]
pub struct ServedVersions {
    /// Only stable versions, unless a choice says otherwise.
    stable_only: bool,
    choices: Vec<(String, bool)>,
}

impl ServedVersions {
    /// What upstream serves without flags: no beta, no alpha.
    pub fn stable() -> Self {
        ServedVersions { stable_only: true, choices: Vec::new() }
    }

    /// Stable versions, and the choices of `--runtime-config`: `NAME`, `NAME=true` or `NAME=false`, with the names of
    /// [`choose`](Self::choose).
    ///
    /// # Errors
    /// Something else than true or false; nothing here has the name.
    pub fn chosen<'a>(pairs: impl IntoIterator<Item = &'a str>) -> Result<Self, RuntimeConfigError> {
        let mut versions = ServedVersions::stable();
        for pair in pairs {
            let wrong = |reason| RuntimeConfigError { pair: pair.to_owned(), reason };
            let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
            let on = match value {
                "true" | "" => true,
                "false" => false,
                _ => return Err(wrong("must be true or false")),
            };
            if !versions.choose(name, on) {
                return Err(wrong("unknown api groups or versions"));
            }
        }
        Ok(versions)
    }

    /// Serves `api/all`, `api/ga`, `api/beta`, `api/alpha`, a group version (`apps/v1`, `v1`, `api/v1`) or a
    /// resource in one (`apps/v1/deployments`), or does not. False where there is no such thing.
    pub fn choose(&mut self, name: &str, served: bool) -> bool {
        let name = if name == "api/v1" { "v1" } else { name };
        let all = ["api/all", "api/ga", "api/beta", "api/alpha"];
        let known = all.contains(&name)
            || ironkeel_kinds::kinds().iter().any(|k| {
                let version = k.resource.api_version();
                version == name || format!("{version}/{}", k.resource.plural) == name
            });
        if known || !served {
            self.choices.push((name.to_owned(), served));
        }
        known || !served
    }

    /// Whether there is such a resource and it is served.
    pub fn is_served(&self, group: &str, version: &str, plural: &str) -> bool {
        ironkeel_schema::resource(group, version, plural).is_some_and(|resource| self.serves(resource))
    }

    /// Whether a resource is served: what is said of itself counts before what is said of its version, that
    /// before its stage, that before everything.
    pub(crate) fn serves(&self, resource: &Resource) -> bool {
        let version = resource.api_version();
        let itself = format!("{version}/{}", resource.plural);
        let of = |name: &str| self.choices.iter().rev().find(|(n, _)| n == name).map(|(_, served)| *served);
        of(&itself)
            .or_else(|| of(&version))
            .or_else(|| of(stage(resource.version)))
            .or_else(|| of("api/all"))
            .unwrap_or(!self.stable_only || stage(resource.version) == "api/ga")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(versions: &ServedVersions, group: &str, version: &str, plural: &str) -> bool {
        versions.serves(ironkeel_schema::resource(group, version, plural).expect("a resource"))
    }

    #[test]
    fn the_narrower_choice_counts() {
        let mut versions = ServedVersions::stable();
        assert!(served(&versions, "", "v1", "pods"));
        assert!(!served(&versions, "networking.k8s.io", "v1beta1", "ipaddresses"));
        assert!(!served(&versions, "coordination.k8s.io", "v1alpha2", "leasecandidates"));
        assert!(versions.choose("api/beta", true) && versions.choose("resource.k8s.io/v1beta1", false));
        assert!(served(&versions, "networking.k8s.io", "v1beta1", "ipaddresses"));
        assert!(!served(&versions, "resource.k8s.io", "v1beta1", "resourceclaims"));
        assert!(versions.choose("resource.k8s.io/v1beta1/resourceclaims", true));
        assert!(served(&versions, "resource.k8s.io", "v1beta1", "resourceclaims"));
        assert!(!served(&versions, "resource.k8s.io", "v1beta1", "deviceclasses"));
        assert!(versions.choose("api/all", false) && versions.choose("api/v1", true));
        assert!(served(&versions, "", "v1", "pods") && !served(&versions, "apps", "v1", "deployments"));
        assert!(!versions.choose("nobody.example.com/v1", true) && versions.choose("nobody.example.com/v1", false));
    }
}
