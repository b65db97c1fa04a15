//! Tokens in Secrets: when each was used last, by a label on its Secret, and since when that is
//! written, in a ConfigMap. kube-controller-manager's cleaner of unused ones goes by both.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ironkeel_auth::TokenUse;
use ironkeel_object::{ObjectMeta, Value, object};
use ironkeel_registry::{ApiError, Change, Registry};
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use parking_lot::Mutex;

use crate::bootstrap;
use crate::tasks::Tasks;

const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
/// Time between two looks at the ConfigMap, in seconds (upstream's limit of creations).
const LOOK_SECONDS: u64 = 30 * 60;

/// As the label and the ConfigMap say it: a day, UTC.
fn day(now: Timestamp) -> String {
    now.to_zoned(TimeZone::UTC).date().to_string()
}

/// Says in the ConfigMap that uses are tracked from now on, unless it says so already.
pub(crate) async fn track(registry: &Arc<Registry>) -> Result<(), ApiError> {
    let tracking = object!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": TRACKING, "namespace": "kube-system" },
        "data": { "since": (day(registry.clock().now())) },
    });
    bootstrap::ensure(registry, vec![tracking], |existing, wanted| {
        if existing.str_at(&["data", "since"]).is_some_and(|since| since.parse::<jiff::civil::Date>().is_ok()) {
            return None;
        }
        let mut out = existing.clone();
        *out.slot(&["data", "since"]) = wanted["data"]["since"].clone();
        Some(out)
    })
    .await
}

/// Keeps the ConfigMap.
pub(crate) async fn run(registry: Arc<Registry>) {
    let every = Duration::from_secs(LOOK_SECONDS);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    loop {
        ticks.tick().await;
        if let Err(error) = track(&registry).await {
            tracing::warn!(%error, "the ConfigMap of legacy tokens was not written");
        }
    }
}

/// Sets the label of the Secret that was read, if it is still there.
struct Used {
    uid: String,
    day: String,
}

impl Change for Used {
    fn apply(&self, current: &Value) -> Result<Value, ApiError> {
        let mut out = current.clone();
        if current.uid() == self.uid {
            *out.slot(&["metadata", "labels", LAST_USED]) = self.day.as_str().into();
        }
        Ok(out)
    }
}

/// Labels Secrets as their tokens are used, once a day each.
pub(crate) fn last_used(registry: &Arc<Registry>, tasks: &Tasks) -> TokenUse {
    let (registry, tasks) = (Arc::downgrade(registry), tasks.clone());
    let writing: Arc<Mutex<HashSet<String>>> = Arc::default();
    Arc::new(move |secret: &Value| {
        let Some(registry) = registry.upgrade() else { return };
        let now = registry.clock().now();
        let today = day(now);
        // A replica whose clock is ahead may have written tomorrow's.
        let tomorrow = now.checked_add(24.hours()).map(day);
        let last = secret.label(LAST_USED);
        if last == Some(&today) || tomorrow.is_ok_and(|t| last == Some(&t)) {
            return;
        }
        let uid = secret.uid().to_owned();
        if !writing.lock().insert(uid.clone()) {
            return;
        }
        let written = bootstrap::row_of(&registry, secret).map(|row| bootstrap::request(&row, secret));
        let writing = writing.clone();
        tasks.spawn(async move {
            let done = match written {
                Ok(request) => registry.update(&request, &Used { uid: uid.clone(), day: today }).await.map(drop),
                Err(error) => Err(error),
            };
            writing.lock().remove(&uid);
            if let Err(error) = done {
                tracing::warn!(%error, "a token's last use was not written to its Secret");
            }
        });
    })
}
