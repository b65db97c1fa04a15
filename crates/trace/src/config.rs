//! Where spans go, and how many requests have them: upstream's TracingConfiguration.

use std::path::PathBuf;

/// Where a collector listens when nobody says.
const DEFAULT_ENDPOINT: &str = "localhost:4317";
/// All of them.
const MILLION: u32 = 1_000_000;

/// Why a configuration cannot be used; upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Another scheme than grpc's plain ones.
    #[error(
        "endpoint: Invalid value: {endpoint:?}: unsupported scheme: {scheme}.  Options are none, dns, unix, or \
         unix-abstract.  See https://github.com/grpc/grpc/blob/master/doc/naming.md"
    )]
    Scheme {
        /// What was given.
        endpoint: String,
        /// Its scheme.
        scheme: String,
    },
    /// Not an address.
    #[error("endpoint: Invalid value: {0:?}: must be host:port")]
    Endpoint(String),
    /// Less than nothing.
    #[error("samplingRatePerMillion: Invalid value: {0}: sampling rate must be positive")]
    Negative(i64),
    /// More than all.
    #[error(
        "samplingRatePerMillion: Invalid value: {0}: sampling rate per million must be less than or equal to one million"
    )]
    TooMany(i64),
}

/// A collector's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `host:port`.
    Host(String),
    /// A Unix socket.
    Unix(PathBuf),
    /// A Unix socket without a file.
    Abstract(String),
}

/// How requests are traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where spans go; plain gRPC, as upstream.
    pub target: Target,
    /// How many of a million requests are traced that come without a trace; others' traces go on as they began.
    pub rate_per_million: u32,
    /// Names this process among its replicas.
    pub instance: String,
}

impl Config {
    /// Checks what a configuration says.
    ///
    /// # Errors
    /// As upstream's validation.
    pub fn new(endpoint: Option<&str>, rate_per_million: Option<i64>, instance: &str) -> Result<Self, ConfigError> {
        let rate_per_million = match rate_per_million.unwrap_or(0) {
            negative @ ..0 => return Err(ConfigError::Negative(negative)),
            rate => u32::try_from(rate).ok().filter(|r| *r <= MILLION).ok_or(ConfigError::TooMany(rate))?,
        };
        let target = target(endpoint.filter(|e| !e.is_empty()).unwrap_or(DEFAULT_ENDPOINT))?;
        Ok(Config { target, rate_per_million, instance: instance.to_owned() })
    }
}

fn target(endpoint: &str) -> Result<Target, ConfigError> {
    if let Some(path) = endpoint.strip_prefix("unix:") {
        return Ok(Target::Unix(path.trim_start_matches("//").into()));
    }
    if let Some(name) = endpoint.strip_prefix("unix-abstract:") {
        return Ok(Target::Abstract(name.trim_start_matches("//").to_owned()));
    }
    let host = match endpoint.split_once("://") {
        Some(("dns", host)) => host.trim_start_matches('/'),
        Some((scheme, _)) => {
            return Err(ConfigError::Scheme { endpoint: endpoint.to_owned(), scheme: scheme.to_owned() });
        }
        None => endpoint.strip_prefix("dns:").unwrap_or(endpoint),
    };
    let wrong = || ConfigError::Endpoint(endpoint.to_owned());
    let authority: http::uri::Authority = host.parse().map_err(|_| wrong())?;
    authority.port_u16().map(|_| Target::Host(host.to_owned())).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn endpoints_are_grpcs_names() {
        let check =
            |given: &str, wanted: Target| assert_eq!(Config::new(Some(given), None, "a").unwrap().target, wanted);
        check("collector:4317", Target::Host("collector:4317".into()));
        check("dns:///collector:4317", Target::Host("collector:4317".into()));
        check("unix:///run/otel.sock", Target::Unix("/run/otel.sock".into()));
        check("unix-abstract:otel", Target::Abstract("otel".into()));
        assert_eq!(Config::new(None, None, "a").unwrap().target, Target::Host("localhost:4317".into()));
        let refused = |endpoint, rate| Config::new(endpoint, rate, "a").unwrap_err().to_string();
        assert!(refused(Some("https://x:1"), None).contains("unsupported scheme: https"));
        assert!(refused(Some("nowhere"), None).contains("must be host:port"));
        assert!(refused(None, Some(-1)).ends_with("sampling rate must be positive"));
        assert!(refused(None, Some(1_000_001)).contains("less than or equal to one million"));
    }
}
