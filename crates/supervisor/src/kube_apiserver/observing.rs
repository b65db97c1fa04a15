//! What operators see of the server: the audit log's flags, `--tracing-config-file`, the gates, and the command line as
//! `/flagz` shows it.

use std::path::PathBuf;
use std::time::Duration;

use ironkeel_apiserver::{Feature, TracingConfig};
use ironkeel_audit::{BatchConfig, LogConfig, Mode, Throttle, Truncate, WebhookConfig};
use serde::Deserialize;

use super::gates::GATES;
use crate::flags::{Flag, FlagError, Given, Takes, invalid};

/// Upstream's defaults of `--audit-log-max*`: days, files, mebibytes.
const LOG_AGE_DAYS: u64 = 366;
const LOG_BACKUPS: usize = 100;
const LOG_SIZE_MIB: u64 = 100;

/// The names of the flags that both backends have.
struct Names {
    mode: &'static str,
    buffer: &'static str,
    size: &'static str,
    wait: &'static str,
    throttle: &'static str,
    qps: &'static str,
    burst: &'static str,
    truncate: &'static str,
    event: &'static str,
    batch: &'static str,
}

const LOG: Names = Names {
    mode: "audit-log-mode",
    buffer: "audit-log-batch-buffer-size",
    size: "audit-log-batch-max-size",
    wait: "audit-log-batch-max-wait",
    throttle: "audit-log-batch-throttle-enable",
    qps: "audit-log-batch-throttle-qps",
    burst: "audit-log-batch-throttle-burst",
    truncate: "audit-log-truncate-enabled",
    event: "audit-log-truncate-max-event-size",
    batch: "audit-log-truncate-max-batch-size",
};

const WEBHOOK: Names = Names {
    mode: "audit-webhook-mode",
    buffer: "audit-webhook-batch-buffer-size",
    size: "audit-webhook-batch-max-size",
    wait: "audit-webhook-batch-max-wait",
    throttle: "audit-webhook-batch-throttle-enable",
    qps: "audit-webhook-batch-throttle-qps",
    burst: "audit-webhook-batch-throttle-burst",
    truncate: "audit-webhook-truncate-enabled",
    event: "audit-webhook-truncate-max-event-size",
    batch: "audit-webhook-truncate-max-batch-size",
};

impl Names {
    fn mode(&self, given: &Given, default: Mode) -> Result<Mode, FlagError> {
        given.text(self.mode).map_or(Ok(default), |m| Mode::parse(m).map_err(|e| invalid(self.mode, m, e.to_string())))
    }

    fn positive(&self, given: &Given, flag: &'static str, default: usize) -> Result<usize, FlagError> {
        match given.parsed(flag, default)? {
            0 => Err(invalid(flag, "0", "must be a positive number")),
            n => Ok(n),
        }
    }

    fn batch(&self, given: &Given, default: BatchConfig) -> Result<BatchConfig, FlagError> {
        let wait = given.duration(self.wait, Duration::from_millis(default.max_wait_ms))?;
        let throttle = given.switch(self.throttle, default.throttle.is_some()).then(|| {
            let usual = default.throttle.unwrap_or_default();
            let per_second = given.parsed(self.qps, usual.per_second)?;
            if per_second.is_nan() || per_second <= 0.0 {
                return Err(invalid(self.qps, given.text(self.qps).unwrap_or_default(), "must be a positive number"));
            }
            let burst = self.positive(given, self.burst, usual.burst as usize)?;
            Ok(Throttle { per_second, burst: u32::try_from(burst).unwrap_or(u32::MAX) })
        });
        Ok(BatchConfig {
            buffer_events: self.positive(given, self.buffer, default.buffer_events)?,
            batch_events: self.positive(given, self.size, default.batch_events)?,
            max_wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            throttle: throttle.transpose()?,
            ..default
        })
    }

    fn truncate(&self, given: &Given) -> Result<Option<Truncate>, FlagError> {
        if !given.switch(self.truncate, false) {
            return Ok(None);
        }
        let usual = Truncate::default();
        let truncate = Truncate {
            event_bytes: self.positive(given, self.event, usual.event_bytes)?,
            batch_bytes: self.positive(given, self.batch, usual.batch_bytes)?,
        };
        if truncate.batch_bytes < truncate.event_bytes {
            let value = truncate.batch_bytes.to_string();
            return Err(invalid(self.batch, &value, format!("must not be less than --{}", self.event)));
        }
        Ok(Some(truncate))
    }
}

/// `--audit-*`.
pub(super) fn audit(given: &Given) -> Result<ironkeel_audit::Config, FlagError> {
    let log = match given.text("audit-log-path") {
        Some(path) => {
            let mut log = LogConfig::new(path);
            log.max_size_mib = given.parsed("audit-log-maxsize", LOG_SIZE_MIB)?;
            log.max_age_days = given.parsed("audit-log-maxage", LOG_AGE_DAYS)?;
            log.max_backups = given.parsed("audit-log-maxbackup", LOG_BACKUPS)?;
            log.mode = LOG.mode(given, log.mode)?;
            log.batch = LOG.batch(given, log.batch)?;
            log.truncate = LOG.truncate(given)?;
            Some(log)
        }
        None => None,
    };
    let webhook = match given.text("audit-webhook-config-file") {
        Some(path) => {
            let mut webhook = WebhookConfig::new(path);
            webhook.mode = WEBHOOK.mode(given, webhook.mode)?;
            webhook.batch = WEBHOOK.batch(given, webhook.batch)?;
            webhook.truncate = WEBHOOK.truncate(given)?;
            webhook.initial_backoff = given.duration("audit-webhook-initial-backoff", webhook.initial_backoff)?;
            Some(webhook)
        }
        None => None,
    };
    Ok(ironkeel_audit::Config { policy_file: given.text("audit-policy-file").map(PathBuf::from), log, webhook })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TracingFile {
    api_version: String,
    kind: String,
    endpoint: Option<String>,
    sampling_rate_per_million: Option<i64>,
}

/// `--tracing-config-file`.
pub(super) fn tracing(given: &Given, instance: &str) -> Result<Option<TracingConfig>, FlagError> {
    const FLAG: &str = "tracing-config-file";
    let Some(path) = given.text(FLAG) else { return Ok(None) };
    let wrong = |why: String| invalid(FLAG, path, why);
    let text =
        std::fs::read_to_string(path).map_err(|e| wrong(format!("unable to read tracing configuration: {e}")))?;
    let file: TracingFile = serde_yaml_ng::from_str(&text)
        .map_err(|e| wrong(format!("unable to decode tracing configuration data: {e}")))?;
    let versions = ["v1", "v1beta1", "v1alpha1"].map(|v| format!("apiserver.config.k8s.io/{v}"));
    if file.kind != "TracingConfiguration" || !versions.contains(&file.api_version) {
        return Err(wrong(format!("no kind {:?} is registered for version {:?}", file.kind, file.api_version)));
    }
    let config = TracingConfig::new(file.endpoint.as_deref(), file.sampling_rate_per_million, instance);
    config.map(Some).map_err(|e| wrong(format!("failed to validate tracing configuration: {e}")))
}

/// The gates: whatever the command line says of those that may be set, what is here is what the defaults say.
pub(crate) fn features() -> Vec<Feature> {
    GATES.iter().map(|&(name, enabled, _, stage)| Feature { name, stage, enabled }).collect()
}

/// The command line as `/flagz` shows it: what was given, and what the table says of the rest.
pub(crate) fn shown(given: &Given, table: &[Flag]) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = table
        .iter()
        .map(|flag| {
            let value = match (given.all(flag.name), flag.takes) {
                ([], Takes::List | Takes::Commas) => format!("[{}]", flag.usual()),
                ([], _) => flag.usual().to_owned(),
                (values, Takes::List | Takes::Commas) => format!("[{}]", values.join(",")),
                (values, _) => values.join(","),
            };
            (flag.name.to_owned(), value)
        })
        .collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::table::TABLE;
    use super::*;
    use crate::flags::parse;

    fn given(line: &str) -> Given {
        parse(TABLE, line.split_whitespace().map(str::to_owned)).unwrap()
    }

    #[test]
    fn the_audit_flags_have_upstreams_defaults_and_limits() {
        let plain = audit(&given("--audit-log-path=/l --audit-webhook-config-file=/w")).unwrap();
        let (log, webhook) = (plain.log.unwrap(), plain.webhook.unwrap());
        assert_eq!((log.max_size_mib, log.max_age_days, log.max_backups, log.mode), (100, 366, 100, Mode::Blocking));
        assert_eq!((webhook.mode, webhook.batch.batch_events, webhook.batch.max_wait_ms), (Mode::Batch, 400, 30_000));
        assert_eq!(webhook.batch.throttle, Some(Throttle { per_second: 10.0, burst: 15 }));
        assert_eq!(webhook.initial_backoff, Duration::from_secs(10));
        let line = "--audit-webhook-config-file=/w --audit-webhook-mode=blocking-strict --audit-webhook-batch-max-size=7 \
                    --audit-webhook-batch-max-wait=250ms --audit-webhook-batch-throttle-enable=false \
                    --audit-webhook-truncate-enabled --audit-webhook-truncate-max-event-size=2000 \
                    --audit-webhook-initial-backoff=1s";
        let webhook = audit(&given(line)).unwrap().webhook.unwrap();
        assert_eq!(
            (webhook.mode, webhook.batch.batch_events, webhook.batch.max_wait_ms),
            (Mode::BlockingStrict, 7, 250)
        );
        assert_eq!((webhook.batch.throttle, webhook.initial_backoff), (None, Duration::from_secs(1)));
        assert_eq!(webhook.truncate.unwrap().event_bytes, 2000);
        let refused = |line: &str| audit(&given(line)).unwrap_err().to_string();
        assert!(refused("--audit-log-path=/l --audit-log-mode=x").contains("\"--audit-log-mode\""));
        assert!(
            refused("--audit-webhook-config-file=/w --audit-webhook-batch-buffer-size=0").ends_with("positive number")
        );
    }

    #[test]
    fn tracing_files_are_upstreams() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tracing.yaml");
        let line = format!("--tracing-config-file={}", path.display());
        let check = |text: &str| {
            std::fs::write(&path, text).unwrap();
            tracing(&given(&line), "a").map_err(|e| e.to_string())
        };
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\n";
        let config = check(&format!("{head}endpoint: otel:4317\nsamplingRatePerMillion: 100\n")).unwrap().unwrap();
        assert_eq!(config, TracingConfig::new(Some("otel:4317"), Some(100), "a").unwrap());
        assert!(check(&format!("{head}samplingRatePerMillion: 1000001\n")).unwrap_err().contains("one million"));
        assert!(check(&format!("{head}nothing: 1\n")).unwrap_err().contains("unknown field"));
        assert!(check("apiVersion: v1\nkind: Pod\n").unwrap_err().contains("no kind"));
        assert_eq!(tracing(&given(""), "a").unwrap(), None);
    }

    #[test]
    fn flags_are_shown_with_what_they_are() {
        let all = shown(&given("--secure-port=1 --authorization-mode=Node,RBAC"), TABLE);
        let value = |name: &str| all.iter().find(|(n, _)| n == name).unwrap().1.clone();
        assert_eq!((value("secure-port"), value("authorization-mode")), ("1".to_owned(), "[Node,RBAC]".to_owned()));
        assert_eq!((value("bind-address"), value("goaway-chance")), ("0.0.0.0".to_owned(), "0".to_owned()));
        assert!(all.is_sorted());
    }
}
