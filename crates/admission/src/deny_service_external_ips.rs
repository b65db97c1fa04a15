//! DenyServiceExternalIPs: nobody takes over traffic of addresses that are not the cluster's
//! (CVE-2020-8554). Upstream leaves this off; here it is on, as `secure by default` asks.

use ironkeel_object::Value;
use ironkeel_registry::{ApiError, Attributes, Operation};

/// Addresses that a Service has already may stay.
pub(crate) fn validate(a: &Attributes<'_>, service: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    if !matches!(a.operation, Operation::Create | Operation::Update) || !a.is("", "services") {
        return Ok(());
    }
    let path = ["spec", "externalIPs"];
    let had = old.map(|o| o.items_at(&path)).unwrap_or_default();
    if service.items_at(&path).iter().all(|ip| had.contains(ip)) {
        return Ok(());
    }
    Err(a.forbidden("Use of external IPs is denied by admission control"))
}
