//! AuthenticationConfiguration (`--authentication-config`): issuers of ID tokens and what anonymous
//! callers may ask for, read strictly; field paths, rules and words are upstream's.

use ironkeel_expr::{Environment, Program, Type};
use serde::Deserialize;

use super::claims::{CLAIMS, USER};
use super::oidc::{ALGORITHMS, ClaimMapping, OidcConfig, ValidationRule};
use crate::ConfigurationError;
use crate::configuration::{self, Fields};

const VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha1"];
/// Most issuers.
const ISSUERS: usize = 64;

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
#[serde(deny_unknown_fields)]
struct Anonymous {
    #[serde(default)]
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
    #[serde(default)]
    issuer: Issuer,
    #[serde(default)]
    claim_validation_rules: Vec<ClaimRule>,
    #[serde(default)]
    claim_mappings: Mappings,
    #[serde(default)]
    user_validation_rules: Vec<UserRule>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Issuer {
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: Option<String>,
    certificate_authority: String,
    audiences: Vec<String>,
    audience_match_policy: String,
    egress_selector_type: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ClaimRule {
    claim: String,
    required_value: String,
    expression: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UserRule {
    expression: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Mappings {
    username: Mapping,
    groups: Mapping,
    uid: Mapping,
    extra: Vec<Extra>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Mapping {
    claim: String,
    prefix: Option<String>,
    expression: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Extra {
    key: String,
    value_expression: String,
}

/// What anonymous callers may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnonymousRule {
    /// Whether they are let in.
    pub enabled: bool,
    /// The paths that they may ask for; empty for all.
    pub paths: Vec<String>,
}

/// A whole file.
#[derive(Clone, Debug)]
pub struct AuthenticationConfiguration {
    /// The issuers.
    pub issuers: Vec<OidcConfig>,
    /// What is said about anonymous callers, where anything is.
    pub anonymous: Option<AnonymousRule>,
}

/// Reads a file's text; `disallowed` are issuers of this server's own (of ServiceAccount tokens).
///
/// # Errors
/// All that is wrong.
pub fn read_authentication(
    text: &str,
    disallowed: &[String],
) -> Result<AuthenticationConfiguration, ConfigurationError> {
    let file: File = configuration::parse(text)?;
    configuration::check_version("AuthenticationConfiguration", VERSIONS, &file.kind, &file.api_version)?;
    let mut f = Fields::default();
    if file.jwt.len() > ISSUERS {
        f.too_many("jwt", file.jwt.len(), ISSUERS);
        return f.done(AuthenticationConfiguration { issuers: Vec::new(), anonymous: None });
    }
    let mut issuers: Vec<OidcConfig> = Vec::new();
    for (i, jwt) in file.jwt.into_iter().enumerate() {
        let at = format!("jwt[{i}]");
        let oidc = jwt.check(&at, disallowed, &mut f);
        if issuers.iter().any(|o| o.issuer == oidc.issuer) {
            f.duplicate(&format!("{at}.issuer.url"), &oidc.issuer);
        }
        if let Some(url) = &oidc.discovery_url
            && issuers.iter().any(|o| o.discovery_url.as_ref() == Some(url))
        {
            f.duplicate(&format!("{at}.issuer.discoveryURL"), url);
        }
        issuers.push(oidc);
    }
    let anonymous = file
        .anonymous
        .map(|a| AnonymousRule { enabled: a.enabled, paths: a.conditions.into_iter().map(|c| c.path).collect() });
    if let Some(rule) = anonymous.as_ref().filter(|r| !r.enabled && !r.paths.is_empty()) {
        let why = "enabled should be set to true when conditions are defined";
        f.invalid("anonymous.conditions", &configuration::shown(&rule.paths), why);
    }
    f.done(AuthenticationConfiguration { issuers, anonymous })
}

fn check_url(path: &str, url: &str, f: &mut Fields) {
    let (before, fragment) = url.split_once('#').map_or((url, ""), |(b, f)| (b, f));
    let (before, query) = before.split_once('?').map_or((before, ""), |(b, q)| (b, q));
    let Some((scheme, rest)) = before.split_once("://") else {
        f.invalid(path, url, "URL scheme must be https");
        return;
    };
    if scheme != "https" {
        f.invalid(path, url, "URL scheme must be https");
    }
    if rest.split('/').next().is_some_and(|authority| authority.contains('@')) {
        f.invalid(path, url, "URL must not contain a username or password");
    }
    if !query.is_empty() {
        f.invalid(path, url, "URL must not contain a query");
    }
    if !fragment.is_empty() {
        f.invalid(path, url, "URL must not contain a fragment");
    }
}

impl Issuer {
    fn check(&self, at: &str, disallowed: &[String], f: &mut Fields) {
        let path = format!("{at}.url");
        if self.url.is_empty() {
            f.required(&path, "");
        } else {
            if disallowed.contains(&self.url) {
                let why = format!("URL must not overlap with disallowed issuers: {}", configuration::shown(disallowed));
                f.invalid(&path, &self.url, &why);
            }
            check_url(&path, &self.url, f);
        }
        if let Some(url) = self.discovery_url.as_deref().filter(|u| !u.is_empty()) {
            let path = format!("{at}.discoveryURL");
            if url.trim_end_matches('/') == self.url.trim_end_matches('/') {
                f.invalid(&path, url, "discoveryURL must be different from URL");
            }
            check_url(&path, url, f);
        }
        let path = format!("{at}.audiences");
        if self.audiences.is_empty() {
            f.required(&path, &format!("at least one {path} is required"));
        }
        for (i, audience) in self.audiences.iter().enumerate() {
            if audience.is_empty() {
                f.required(&format!("{path}[{i}]"), "");
            } else if self.audiences[..i].contains(audience) {
                f.duplicate(&format!("{path}[{i}]"), audience);
            }
        }
        let (path, policy) = (format!("{at}.audienceMatchPolicy"), self.audience_match_policy.as_str());
        if self.audiences.len() > 1 && policy != "MatchAny" {
            f.invalid(&path, policy, "audienceMatchPolicy must be MatchAny for multiple audiences");
        } else if !matches!(policy, "" | "MatchAny") {
            f.invalid(&path, policy, "audienceMatchPolicy must be empty or MatchAny for single audience");
        }
        if !self.certificate_authority.is_empty() && !self.certificate_authority.contains("-----BEGIN CERTIFICATE-----")
        {
            let why = "data does not contain any valid RSA or ECDSA certificates";
            f.invalid(&format!("{at}.certificateAuthority"), "<omitted>", why);
        }
        if !self.egress_selector_type.is_empty() {
            let why = "egress selectors are not supported here: connections go out directly";
            f.invalid(&format!("{at}.egressSelectorType"), &self.egress_selector_type, why);
        }
    }
}

impl Jwt {
    fn check(self, at: &str, disallowed: &[String], f: &mut Fields) -> OidcConfig {
        self.issuer.check(&format!("{at}.issuer"), disallowed, f);
        let mut oidc = OidcConfig::new(self.issuer.url.clone(), "");
        oidc.audiences = self.issuer.audiences;
        oidc.discovery_url = self.issuer.discovery_url.filter(|u| !u.is_empty());
        oidc.ca_pem = self.issuer.certificate_authority;
        oidc.algorithms = ALGORITHMS.iter().map(|a| (*a).to_owned()).collect();
        let path = format!("{at}.claimValidationRules");
        for (i, rule) in self.claim_validation_rules.iter().enumerate() {
            claim_rule(rule, &self.claim_validation_rules[..i], &format!("{path}[{i}]"), &mut oidc, f);
        }
        mappings(&self.claim_mappings, &format!("{at}.claimMappings"), &mut oidc, f);
        let path = format!("{at}.userValidationRules");
        for (i, rule) in self.user_validation_rules.iter().enumerate() {
            let path = format!("{path}[{i}].expression");
            if rule.expression.is_empty() {
                f.required(&path, "");
            } else if self.user_validation_rules[..i].iter().any(|r| r.expression == rule.expression) {
                f.duplicate(&path, &rule.expression);
            } else if let Some(program) = compile(&USER, &rule.expression, &[Type::Bool], &path, f) {
                oidc.user_rules.push(ValidationRule { program, message: rule.message.clone() });
            }
        }
        oidc
    }
}

fn compile(env: &Environment, source: &str, expected: &[Type], path: &str, f: &mut Fields) -> Option<Program> {
    match env.compile(source, expected) {
        Ok(program) => Some(program),
        Err(e) => {
            f.compile(path, source, &e);
            None
        }
    }
}

fn claim_rule(rule: &ClaimRule, before: &[ClaimRule], at: &str, oidc: &mut OidcConfig, f: &mut Fields) {
    match (rule.claim.as_str(), rule.expression.as_str()) {
        ("", "") => f.required(at, "claim or expression is required"),
        (claim, "") => {
            if !rule.message.is_empty() {
                f.invalid(&format!("{at}.message"), &rule.message, "may not be specified when claim is set");
            }
            if before.iter().any(|r| r.claim == claim) {
                f.duplicate(&format!("{at}.claim"), claim);
            }
            oidc.required_claims.push((claim.to_owned(), rule.required_value.clone()));
        }
        ("", expression) => {
            if !rule.required_value.is_empty() {
                let path = format!("{at}.requiredValue");
                f.invalid(&path, &rule.required_value, "may not be specified when expression is set");
            }
            let path = format!("{at}.expression");
            if before.iter().any(|r| r.expression == expression) {
                f.duplicate(&path, expression);
            } else if let Some(program) = compile(&CLAIMS, expression, &[Type::Bool], &path, f) {
                oidc.claim_rules.push(ValidationRule { program, message: rule.message.clone() });
            }
        }
        (claim, _) => f.invalid(at, claim, "claim and expression can't both be set"),
    }
}

/// Username and groups.
fn prefixed(m: &Mapping, required: bool, at: &str, f: &mut Fields) -> ClaimMapping {
    match (m.claim.as_str(), m.expression.as_str()) {
        ("", "") => {
            if required {
                f.required(at, "claim or expression is required");
            }
            ClaimMapping::None
        }
        (claim, "") => {
            if m.prefix.is_none() {
                let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                f.required(&format!("{at}.prefix"), why);
            }
            ClaimMapping::Claim { name: claim.to_owned(), prefix: m.prefix.clone().unwrap_or_default() }
        }
        ("", expression) => {
            if let Some(prefix) = &m.prefix {
                f.invalid(&format!("{at}.prefix"), prefix, "may not be specified when expression is set");
            }
            let program = compile(&CLAIMS, expression, &[], &format!("{at}.expression"), f);
            program.map_or(ClaimMapping::None, ClaimMapping::Expression)
        }
        _ => {
            f.invalid(at, "", "claim and expression can't both be set");
            ClaimMapping::None
        }
    }
}

fn reads(program: &Program, claim: &str) -> bool {
    let path = format!("claims.{claim}");
    let beneath = format!("{path}.");
    let plain = program.field_paths().iter().any(|p| *p == path || p.starts_with(&beneath));
    plain || program.source().replace(' ', "").contains(&format!("claims.?{claim}"))
}

fn mappings(m: &Mappings, at: &str, oidc: &mut OidcConfig, f: &mut Fields) {
    oidc.username = prefixed(&m.username, true, &format!("{at}.username"), f);
    oidc.groups = prefixed(&m.groups, false, &format!("{at}.groups"), f);
    let uid = format!("{at}.uid");
    oidc.uid = match (m.uid.claim.as_str(), m.uid.expression.as_str()) {
        ("", "") => ClaimMapping::None,
        (claim, "") => ClaimMapping::Claim { name: claim.to_owned(), prefix: String::new() },
        ("", expression) => compile(&CLAIMS, expression, &[], &format!("{uid}.expression"), f)
            .map_or(ClaimMapping::None, ClaimMapping::Expression),
        _ => {
            f.invalid(&uid, "", "claim and expression can't both be set");
            ClaimMapping::None
        }
    };
    if m.uid.prefix.is_some() {
        f.invalid(&format!("{uid}.prefix"), m.uid.prefix.as_deref().unwrap_or_default(), "there is no such field");
    }
    for (i, extra) in m.extra.iter().enumerate() {
        let at = format!("{at}.extra[{i}]");
        let path = format!("{at}.key");
        extra_key(&extra.key, &path, f);
        if m.extra[..i].iter().any(|e| e.key == extra.key) {
            f.duplicate(&path, &extra.key);
        } else if extra.value_expression.is_empty() {
            f.required(&format!("{at}.valueExpression"), "");
        } else if let Some(program) =
            compile(&CLAIMS, &extra.value_expression, &[], &format!("{at}.valueExpression"), f)
        {
            oidc.extra.push((extra.key.clone(), program));
        }
    }
    // Whoever takes the address for the name must look whether it is verified.
    let ClaimMapping::Expression(username) = &oidc.username else { return };
    let mut others = oidc.extra.iter().map(|(_, p)| p).chain(oidc.claim_rules.iter().map(|r| &r.program));
    let looked = reads(username, "email_verified") || others.any(|p| reads(p, "email_verified"));
    if reads(username, "email") && !looked {
        let why = "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression";
        f.invalid(&format!("{at}.username.expression"), username.source(), why);
    }
}

fn extra_key(key: &str, path: &str, f: &mut Fields) {
    if key.is_empty() {
        f.required(path, "");
        return;
    }
    match key.split_once('/') {
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            if !configuration::is_subdomain(&domain.to_lowercase()) {
                f.invalid(path, domain, configuration::NOT_A_SUBDOMAIN);
            }
            if ["kubernetes.io", "k8s.io"].iter().any(|d| domain == *d || domain.ends_with(&format!(".{d}"))) {
                f.invalid(path, key, "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use");
            }
        }
        _ => f.invalid(path, key, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
    if key.to_lowercase() != key {
        f.invalid(path, key, "must be lowercase");
    }
}
