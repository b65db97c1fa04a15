//! `--authentication-config`: an AuthenticationConfiguration file, as far as claims are named
//! plainly; expressions are refused by name.

use ironkeel_apiserver::Config;
use ironkeel_auth::OidcConfig;
use serde::Deserialize;

use crate::flags::{FlagError, invalid};

const FLAG: &str = "authentication-config";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<Jwt>,
    anonymous: Option<Anonymous>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Anonymous {
    enabled: bool,
    #[serde(default)]
    conditions: Vec<PathCondition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PathCondition {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Jwt {
    issuer: Issuer,
    #[serde(default)]
    claim_validation_rules: Vec<ClaimRule>,
    claim_mappings: Mappings,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Issuer {
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: Option<String>,
    certificate_authority: Option<String>,
    audiences: Vec<String>,
    #[allow(dead_code)]
    audience_match_policy: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClaimRule {
    claim: Option<String>,
    required_value: Option<String>,
    expression: Option<String>,
    #[allow(dead_code)]
    message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mappings {
    username: Mapping,
    groups: Option<Mapping>,
    uid: Option<Mapping>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mapping {
    claim: Option<String>,
    prefix: Option<String>,
    expression: Option<String>,
}

fn claim(mapping: &Mapping, at: &str, path: &str) -> Result<(String, String), FlagError> {
    if mapping.expression.is_some() {
        return Err(invalid(FLAG, path, format!("{at}.expression is not supported; name a claim")));
    }
    let claim = mapping.claim.clone().filter(|c| !c.is_empty());
    let claim = claim.ok_or_else(|| invalid(FLAG, path, format!("{at}.claim: Required value")))?;
    Ok((claim, mapping.prefix.clone().unwrap_or_default()))
}

/// The issuers of a file; what it says about anonymous callers goes into `config`.
pub(super) fn read(path: &str, config: &mut Config) -> Result<Vec<OidcConfig>, FlagError> {
    let text = std::fs::read_to_string(path).map_err(|e| invalid(FLAG, path, e.to_string()))?;
    let file: File = serde_yaml_ng::from_str(&text).map_err(|e| invalid(FLAG, path, e.to_string()))?;
    let versions = ["v1", "v1beta1", "v1alpha1"].map(|v| format!("apiserver.config.k8s.io/{v}"));
    if file.kind != "AuthenticationConfiguration" || !versions.contains(&file.api_version) {
        return Err(invalid(FLAG, path, format!("is a {} of {}", file.kind, file.api_version)));
    }
    if let Some(anonymous) = file.anonymous {
        config.authenticator.anonymous = anonymous.enabled;
        config.anonymous_paths = anonymous.conditions.into_iter().map(|c| c.path).collect();
    }
    let mut issuers = Vec::new();
    for (i, jwt) in file.jwt.into_iter().enumerate() {
        let at = format!("jwt[{i}]");
        if !jwt.issuer.url.starts_with("https://") {
            return Err(invalid(FLAG, path, format!("{at}.issuer.url: URL scheme must be https")));
        }
        let mut oidc = OidcConfig::new(jwt.issuer.url, "");
        oidc.audiences = jwt.issuer.audiences;
        oidc.discovery_url = jwt.issuer.discovery_url;
        oidc.ca_pem = jwt.issuer.certificate_authority.unwrap_or_default();
        oidc.algorithms =
            ["RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "PS384", "PS512"].map(str::to_owned).into();
        let maps = &jwt.claim_mappings;
        (oidc.username_claim, oidc.username_prefix) =
            claim(&maps.username, &format!("{at}.claimMappings.username"), path)?;
        if let Some(groups) = &maps.groups {
            (oidc.groups_claim, oidc.groups_prefix) = claim(groups, &format!("{at}.claimMappings.groups"), path)?;
        }
        if let Some(uid) = &maps.uid {
            oidc.uid_claim = claim(uid, &format!("{at}.claimMappings.uid"), path)?.0;
        }
        for rule in jwt.claim_validation_rules {
            match (rule.claim, rule.expression) {
                (Some(claim), None) => {
                    oidc.required_claims.push((claim, rule.required_value.unwrap_or_default()));
                }
                _ => {
                    let why = format!("{at}.claimValidationRules: expressions are not supported; name a claim");
                    return Err(invalid(FLAG, path, why));
                }
            }
        }
        issuers.push(oidc);
    }
    Ok(issuers)
}
