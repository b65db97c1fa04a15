//! Configurations of authentication and authorization that are read again while the server runs: how
//! often, when last, and which one is in use, by hash.

use ironkeel_metrics::Stability::{Alpha, Beta};
use ironkeel_metrics::{Counter, Family, Gauge, Text};
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};

/// Which configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configuration {
    /// AuthenticationConfiguration.
    Authentication,
    /// AuthorizationConfiguration.
    Authorization,
}

const BY_STATUS: &[&str] = &["status", "apiserver_id_hash"];
const BY_HASH: &[&str] = &["apiserver_id_hash", "hash"];
const AUTHENTICATION: [Family; 3] = [
    Family::counter(
        "apiserver_authentication_config_controller_automatic_reloads_total",
        Beta,
        "How often a changed authentication configuration was read, by outcome.",
    )
    .by(BY_STATUS),
    Family::gauge(
        "apiserver_authentication_config_controller_automatic_reload_last_timestamp_seconds",
        Beta,
        "When a changed authentication configuration was read last, by outcome.",
    )
    .by(BY_STATUS),
    Family::gauge(
        "apiserver_authentication_config_controller_last_config_info",
        Alpha,
        "The authentication configuration in use, by hash; always 1.",
    )
    .by(BY_HASH),
];
const AUTHORIZATION: [Family; 3] = [
    Family::counter(
        "apiserver_authorization_config_controller_automatic_reloads_total",
        Beta,
        "How often a changed authorization configuration was read, by outcome.",
    )
    .by(BY_STATUS),
    Family::gauge(
        "apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds",
        Beta,
        "When a changed authorization configuration was read last, by outcome.",
    )
    .by(BY_STATUS),
    Family::gauge(
        "apiserver_authorization_config_controller_last_config_info",
        Alpha,
        "The authorization configuration in use, by hash; always 1.",
    )
    .by(BY_HASH),
];

/// See [`super::families`].
pub(crate) const FAMILIES: &[Family] =
    &[AUTHENTICATION[0], AUTHENTICATION[1], AUTHENTICATION[2], AUTHORIZATION[0], AUTHORIZATION[1], AUTHORIZATION[2]];

#[derive(Debug, Default)]
struct Outcome {
    count: Counter,
    last: Gauge,
}

#[derive(Debug, Default)]
struct Reloads {
    success: Outcome,
    failure: Outcome,
    /// Of the text in use.
    hash: Mutex<String>,
}

/// Of both configurations.
#[derive(Debug, Default)]
pub(crate) struct ReloadMetrics {
    authentication: Reloads,
    authorization: Reloads,
}

fn hash(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let hex: String = digest(&SHA256, text.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

impl ReloadMetrics {
    fn of(&self, which: Configuration) -> &Reloads {
        match which {
            Configuration::Authentication => &self.authentication,
            Configuration::Authorization => &self.authorization,
        }
    }

    /// `text` is in use from here on.
    pub(crate) fn in_use(&self, which: Configuration, text: &str) {
        *self.of(which).hash.lock() = hash(text);
    }

    /// A changed file was read at `now` (Unix seconds).
    pub(crate) fn read(&self, which: Configuration, good: bool, now: i64) {
        let reloads = self.of(which);
        let outcome = if good { &reloads.success } else { &reloads.failure };
        outcome.count.inc();
        outcome.last.set(now);
    }

    /// `identity` names this server among others; it is shown hashed.
    pub(crate) fn render(&self, identity: &str, text: &mut Text) {
        let id = hash(identity);
        for (families, of) in [(&AUTHENTICATION, &self.authentication), (&AUTHORIZATION, &self.authorization)] {
            let seen =
                || [("success", &of.success), ("failure", &of.failure)].into_iter().filter(|(_, o)| o.count.get() > 0);
            text.samples(&families[0], seen().map(|(s, o)| (vec![s, id.as_str()], o.count.get() as f64)));
            text.samples(&families[1], seen().map(|(s, o)| (vec![s, id.as_str()], o.last.get() as f64)));
            let hash = of.hash.lock().clone();
            let shown = (!hash.is_empty()).then(|| (vec![id.as_str(), hash.as_str()], 1.0));
            text.samples(&families[2], shown);
        }
    }
}
