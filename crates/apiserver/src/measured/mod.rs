//! What parts of the server other than the request path count, each under upstream's names: admission, the
//! watch caches and the store, the features that are on, configurations that are
//! read again. [`families`] lists every family of the server.

pub(crate) mod admission;
pub(crate) mod caches;
pub(crate) mod features;
pub(crate) mod reloads;

use ironkeel_metrics::Family;

/// Every family that `/metrics` and `/metrics/slis` may show, whether or not it has a series yet.
pub fn families() -> impl Iterator<Item = &'static Family> {
    let own = crate::metric_names::FAMILIES.iter().chain(admission::FAMILIES).chain(caches::FAMILIES);
    let shared = ironkeel_fairness::METRIC_FAMILIES.iter().chain(ironkeel_audit::METRIC_FAMILIES);
    own.chain(features::FAMILIES).chain(reloads::FAMILIES).chain(crate::process::FAMILIES).chain(shared)
}
