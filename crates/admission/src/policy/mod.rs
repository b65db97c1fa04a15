//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy.
//!
//! Policies and their bindings are read from the watch cache and kept compiled; a write of one is
//! seen by the next request. [`compiled`] is a policy with its programs, [`params`] the objects that
//! bindings name, [`evaluate`] one run, [`validating`] and [`mutating`] what becomes of it.

mod compiled;
mod evaluate;
mod mutating;
mod params;
mod type_check;
mod validating;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Attributes};
use parking_lot::Mutex;

use crate::Cluster;
use crate::matching::{View, exempt};
use crate::observer::{AdmissionObserver, PolicyCall};

use compiled::{Binding, Policy, Sort};
pub use type_check::{ExpressionWarning, type_warnings};

type Versions = (u64, u64);

/// Policies of one sort, compiled, and the versions of the caches that they were made of.
#[derive(Default)]
struct Compiled(Mutex<Option<(Versions, Arc<Vec<Policy>>)>>);

/// All policies.
#[derive(Default)]
pub(crate) struct Policies {
    validating: Compiled,
    mutating: Compiled,
    params: params::Decoded,
    observer: Option<Arc<dyn AdmissionObserver>>,
}

impl Policies {
    pub(crate) fn new(observer: Option<Arc<dyn AdmissionObserver>>) -> Self {
        Policies { observer, ..Policies::default() }
    }

    /// Tells of a run; `took` is the share of one expression.
    fn observe(&self, run: &Run<'_>, mutating: bool, error: &'static str, action: &'static str, took: Duration) {
        if let Some(observer) = &self.observer {
            let (policy, binding) = (run.policy.name.as_str(), run.binding.name.as_str());
            observer.policy(&PolicyCall { mutating, policy, binding, error, action, took });
        }
    }
}

const GROUP: &str = "admissionregistration.k8s.io";

impl Compiled {
    /// The policies with their bindings, in order of names. A policy that nothing binds is left out.
    fn get(&self, c: &Cluster, sort: Sort, observer: Option<&dyn AdmissionObserver>) -> Arc<Vec<Policy>> {
        let (policies, bindings) = sort.plurals();
        let resource = |plural: &str| ironkeel_schema::resource(GROUP, "v1", plural);
        let (Some(policies), Some(bindings)) = (resource(policies), resource(bindings)) else {
            return Arc::default();
        };
        let versions = (c.source.version(policies), c.source.version(bindings));
        let mut kept = self.0.lock();
        if let Some((seen, compiled)) = &*kept
            && *seen == versions
        {
            return compiled.clone();
        }
        let mut bound: Vec<Binding> = c.source.list(bindings, "").iter().map(|b| Binding::parse(b)).collect();
        bound.sort_by(|a, b| a.name.cmp(&b.name));
        let mut all = c.source.list(policies, "");
        all.sort_by(|a, b| a.name().cmp(b.name()));
        let compiled: Vec<Policy> = all
            .iter()
            .filter_map(|p| {
                let own: Vec<Binding> = bound.iter().filter(|b| b.policy == p.name()).cloned().collect();
                let started = Instant::now();
                let made = (!own.is_empty()).then(|| Policy::compile(p, own, sort))?;
                if let Some(observer) = observer {
                    observer.compiled(started.elapsed());
                }
                Some(made)
            })
            .collect();
        let compiled = Arc::new(compiled);
        *kept = Some((versions, compiled.clone()));
        compiled
    }
}

/// One policy through one binding with one parameter object.
struct Run<'p> {
    policy: &'p Policy,
    binding: &'p Binding,
    view: View,
    param: Option<Arc<Value>>,
}

/// A policy or binding that cannot be used for this request.
struct Misfit<'p> {
    policy: &'p Policy,
    binding: Option<&'p Binding>,
    why: String,
}

/// What of the policies is to be run, and what is misconfigured.
async fn runs<'p>(
    c: &Cluster,
    a: &Attributes<'_>,
    policies: &'p [Policy],
    decoded: &params::Decoded,
    object: Option<&Value>,
    old: Option<&Value>,
) -> (Vec<Run<'p>>, Vec<Misfit<'p>>) {
    let (mut runs, mut misfits) = (Vec::new(), Vec::new());
    if exempt(a) {
        return (runs, misfits);
    }
    for policy in policies {
        let view = match policy.matcher.matches(c, a, object, old) {
            Ok(Some(view)) => view,
            Ok(None) => continue,
            Err(e) => {
                misfits.push(Misfit { policy, binding: None, why: e.message });
                continue;
            }
        };
        let kind = match params::kind(c, policy) {
            Ok(kind) => kind,
            Err(why) => {
                misfits.push(Misfit { policy, binding: None, why });
                continue;
            }
        };
        for binding in &policy.bindings {
            let mut misfit = |why| misfits.push(Misfit { policy, binding: Some(binding), why });
            match binding.matcher.as_ref().map_or(Ok(true), |m| m.matches(c, a, object, old).map(|v| v.is_some())) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(e) => {
                    misfit(e.message);
                    continue;
                }
            }
            match params::collect(c, a, kind.as_ref(), binding, decoded).await {
                Ok(found) => {
                    runs.extend(found.into_iter().map(|param| Run { policy, binding, view: view.clone(), param }))
                }
                Err(why) => misfit(why),
            }
        }
    }
    (runs, misfits)
}

/// The Namespace that `namespaceObject` shows; none for what is in none.
fn namespace_object(c: &Cluster, a: &Attributes<'_>) -> Result<Option<Arc<Value>>, ApiError> {
    if !a.row.namespaced() || a.namespace.is_empty() {
        return Ok(None);
    }
    let found = c.get("", "namespaces", "", a.namespace);
    found.map(Some).ok_or_else(|| ApiError::not_found("", "namespaces", a.namespace))
}
