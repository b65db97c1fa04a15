//! Issuers of ID tokens: by `--oidc-*`, or by an AuthenticationConfiguration file.

use std::path::Path;

use ironkeel_apiserver::Config;
use ironkeel_auth::{AuthenticationConfiguration, ClaimMapping, OidcConfig, read_authentication};

use super::options::optional;
use super::reload::text;
use crate::flags::{FlagError, Given, invalid};

const FILE: &str = "authentication-config";
const URL: &str = "oidc-issuer-url";

/// Reads a file; `own` are the issuers of this server's own tokens.
pub(super) fn file(path: &Path, own: &[String]) -> Result<AuthenticationConfiguration, String> {
    parse(path, &text(path)?, own)
}

/// Reads the text of the file at `path`.
pub(super) fn parse(path: &Path, text: &str, own: &[String]) -> Result<AuthenticationConfiguration, String> {
    read_authentication(text, own).map_err(|e| format!("{}: {e}", path.display()))
}

/// The issuers; what a file says about anonymous callers goes into `config`.
pub(super) fn issuers(given: &Given, config: &mut Config) -> Result<Vec<OidcConfig>, FlagError> {
    let Some(path) = given.text(FILE) else { return by_flags(given) };
    if given.text(URL).is_some() {
        let why = "authentication-config file and oidc-* flags are mutually exclusive";
        return Err(invalid(FILE, path, why));
    }
    let read = file(Path::new(path), given.all("service-account-issuer")).map_err(|e| invalid(FILE, path, e))?;
    if let Some(rule) = read.anonymous {
        if given.text("anonymous-auth").is_some() {
            let why = "--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file";
            return Err(invalid(FILE, path, why));
        }
        config.authenticator.anonymous = rule.enabled;
        config.anonymous_paths = rule.paths;
    }
    Ok(read.issuers)
}

fn by_flags(given: &Given) -> Result<Vec<OidcConfig>, FlagError> {
    let Some(issuer) = given.text(URL) else {
        return match given.text("oidc-client-id") {
            Some(_) => Err(FlagError::Required(URL)),
            None => Ok(Vec::new()),
        };
    };
    if !issuer.starts_with("https://") {
        return Err(invalid(URL, issuer, "URL scheme must be https"));
    }
    let client = given.text("oidc-client-id").ok_or(FlagError::Required("oidc-client-id"))?;
    let mut oidc = OidcConfig::new(issuer, client);
    let claim = given.text("oidc-username-claim").unwrap_or("sub");
    let prefix = match given.text("oidc-username-prefix") {
        Some("-") => String::new(),
        Some(prefix) => prefix.to_owned(),
        // An address is one's own already.
        None if claim == "email" => String::new(),
        None => format!("{issuer}#"),
    };
    oidc.username = ClaimMapping::Claim { name: claim.to_owned(), prefix };
    if let Some(claim) = given.text("oidc-groups-claim") {
        let prefix = given.text("oidc-groups-prefix").unwrap_or_default().to_owned();
        oidc.groups = ClaimMapping::Claim { name: claim.to_owned(), prefix };
    }
    for pair in given.all("oidc-required-claim") {
        let (claim, value) =
            pair.split_once('=').ok_or_else(|| invalid("oidc-required-claim", pair, "must be key=value"))?;
        oidc.required_claims.push((claim.to_owned(), value.to_owned()));
    }
    let algorithms = given.all("oidc-signing-algs");
    if let Some(unknown) = algorithms.iter().find(|a| !OidcConfig::knows_algorithm(a)) {
        let why = if unknown == "ES512" { " (P-521 is not spoken here)" } else { "" };
        return Err(invalid("oidc-signing-algs", unknown, format!("unsupported signing alg: {unknown:?}{why}")));
    }
    if !algorithms.is_empty() {
        oidc.algorithms = algorithms.to_vec();
    }
    oidc.ca_pem = optional(given, "oidc-ca-file")?.unwrap_or_default();
    Ok(vec![oidc])
}
