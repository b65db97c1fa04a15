//! Acting as another (`Impersonate-*`): the plans of [`ironkeel_auth::impersonate`] are asked one after
//! the other, the one first that served the caller last time. Answers are not kept, so that what is taken
//! away ends at once (upstream keeps them for ten seconds).

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use ironkeel_auth::impersonate::{self, Check, Mode, Plan, Step};
use ironkeel_auth::{Attributes, UserInfo};
use ironkeel_registry::ApiError;
use parking_lot::Mutex;

use crate::layers::{self, Asked};
use crate::server::Server;

/// Callers whose last mode is remembered.
const REMEMBERED: usize = 10_000;

/// Which mode served whom last, by a hash of the name: to be wrong costs an order, nothing else.
#[derive(Debug)]
pub(crate) struct Acting {
    /// The gate `ConstrainedImpersonation`.
    pub(crate) constrained: bool,
    last: Mutex<HashMap<u64, Mode>>,
}

impl Acting {
    pub(crate) fn new(constrained: bool) -> Self {
        Acting { constrained, last: Mutex::default() }
    }
}

/// Who acts from here on, and by which mode, where somebody acts as another.
pub(crate) async fn act_as(
    server: &Server,
    user: &UserInfo,
    parts: &Parts,
    asked: &Asked<'_>,
) -> Result<Option<(Arc<UserInfo>, Mode)>, ApiError> {
    let wanted = impersonate::wanted(&parts.headers).map_err(|e| ApiError::bad_request(e.to_string()))?;
    let Some(wanted) = wanted else { return Ok(None) };
    let started = Instant::now();
    let found = first_allowed(server, user, &wanted, asked).await;
    let mode = found.as_ref().ok().map(|plan| plan.mode);
    server.metrics.impersonated(mode.map_or("", Mode::name), mode.is_some(), started.elapsed());
    let plan = found?;
    Ok(Some((Arc::new(plan.user), plan.mode)))
}

async fn first_allowed(
    server: &Server,
    user: &UserInfo,
    wanted: &UserInfo,
    asked: &Asked<'_>,
) -> Result<Plan, ApiError> {
    let mut plans = impersonate::plans(wanted, user, server.acting.constrained);
    let mut hasher = DefaultHasher::new();
    user.name.hash(&mut hasher);
    let key = hasher.finish();
    let last = server.acting.last.lock().get(&key).copied();
    if let Some(i) = plans.iter().position(|p| Some(p.mode) == last) {
        plans[..=i].rotate_right(1);
    }
    let mut refused = None;
    for plan in plans {
        match allowed(server, user, &plan, asked).await {
            Ok(()) => {
                let mut last = server.acting.last.lock();
                if last.len() >= REMEMBERED {
                    last.clear();
                }
                last.insert(key, plan.mode);
                return Ok(plan);
            }
            Err(why) => refused = refused.or(Some(why)),
        }
    }
    Err(refused.unwrap_or_else(|| ApiError::internal("all impersonation modes failed")))
}

async fn allowed(server: &Server, user: &UserInfo, plan: &Plan, asked: &Asked<'_>) -> Result<(), ApiError> {
    let requestor = plan.mode.requestor(user);
    let ask = async |attributes: Attributes<'_>| -> Result<(), ApiError> {
        let started = Instant::now();
        let decision = layers::decide(server, &attributes).await;
        server.metrics.impersonation_asked(plan.mode.name(), decision.is_allowed(), started.elapsed());
        if decision.is_allowed() { Ok(()) } else { Err(layers::forbidden(&attributes, decision.reason())) }
    };
    for step in &plan.steps {
        match step {
            Step::Request => {
                let verb = plan.mode.verb_on(asked.verb());
                ask(Attributes { verb: &verb, ..asked.by(&requestor) }).await?;
            }
            Step::Check(check) => ask(attributes(check, &requestor)).await?,
            Step::Either(all, each) => {
                if ask(attributes(all, &requestor)).await.is_err() {
                    for check in each {
                        ask(attributes(check, &requestor)).await?;
                    }
                }
            }
            Step::Refuse(check, why) => return Err(layers::forbidden(&attributes(check, &requestor), why)),
        }
    }
    Ok(())
}

fn attributes<'a>(check: &'a Check, user: &'a UserInfo) -> Attributes<'a> {
    Attributes {
        subresource: &check.subresource,
        namespace: &check.namespace,
        name: &check.name,
        ..Attributes::for_resource(user, &check.verb, check.group, check.version, check.resource)
    }
}
