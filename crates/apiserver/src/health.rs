//! `/healthz`, `/livez` and `/readyz`, each with its checks one by one.

use std::sync::Arc;

use futures::future::BoxFuture;
use http::header::HeaderName;
use http::{HeaderValue, Response};
use ironkeel_registry::ApiError;

use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::hooks::Hook;
use crate::server::Server;

/// Something of the caller's that must be well, with its name among the checks.
#[derive(Clone)]
pub struct HealthCheck {
    /// As in `/healthz/<name>`.
    pub name: &'static str,
    /// Looks, and tells what is wrong.
    pub check: Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

impl std::fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HealthCheck").field(&self.name).finish()
    }
}

/// One thing that must be well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// The server answers.
    Ping,
    /// Logging works; it cannot fail without the process.
    Log,
    /// The store answers.
    Store,
    /// The store answers, and has caught up.
    StoreReadiness,
    /// One of the configuration's, by name.
    Given(&'static str),
    /// The watch cache follows the store.
    Informers,
    /// Work that is done once, behind the start.
    Started(Hook, bool),
    /// The server is not on its way down.
    Shutdown,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::Ping => "ping",
            Check::Log => "log",
            Check::Store => "etcd",
            Check::StoreReadiness => "etcd-readiness",
            Check::Informers => "informer-sync",
            Check::Started(hook, _) => hook.name(),
            Check::Given(name) => name,
            Check::Shutdown => "shutdown",
        }
    }
}

fn checks(family: &str, server: &Server) -> Vec<Check> {
    let mut all = vec![Check::Ping, Check::Log, Check::Store];
    all.extend(server.health_checks.iter().map(|g| Check::Given(g.name)));
    if family == "readyz" {
        all.extend([Check::StoreReadiness, Check::Informers]);
    }
    all.extend(server.hooks.all().map(|(hook, done)| Check::Started(hook, done)));
    if family == "readyz" {
        all.push(Check::Shutdown);
    }
    all
}

fn text(code: u16, text: String) -> Response<Body> {
    let mut response = answer::with_type(code, "text/plain; charset=utf-8", text);
    let sniff = HeaderName::from_static("x-content-type-options");
    response.headers_mut().insert(sniff, HeaderValue::from_static("nosniff"));
    response
}

/// What the checks need to know, asked once a request.
struct Seen {
    store: Result<(), String>,
    given: Vec<(&'static str, Result<(), String>)>,
    caught_up: bool,
    draining: bool,
}

impl Seen {
    async fn look(server: &Server) -> Self {
        let revision = server.registry.store().current_revision().await;
        // The watch cache may lag behind by what is in flight, not by more.
        let caught_up = match &revision {
            Ok(revision) => server.registry.wait_for_revision(*revision).await.is_ok(),
            Err(_) => false,
        };
        let mut given = Vec::new();
        for one in &server.health_checks {
            given.push((one.name, (one.check)().await));
        }
        Seen {
            given,
            store: revision.map(drop).map_err(|e| e.to_string()),
            caught_up,
            draining: server.stopping.is_cancelled() || server.draining.is_cancelled(),
        }
    }

    fn judge(&self, check: Check) -> Result<(), String> {
        match check {
            Check::Ping | Check::Log | Check::Started(_, true) => Ok(()),
            Check::Started(_, false) => Err("not finished".to_owned()),
            Check::Store | Check::StoreReadiness => self.store.clone(),
            Check::Given(name) => self.given.iter().find(|(n, _)| *n == name).map_or(Ok(()), |(_, r)| r.clone()),
            Check::Informers if self.caught_up => Ok(()),
            Check::Informers => Err("the watch cache has not caught up".to_owned()),
            Check::Shutdown if self.draining => Err("process is shutting down".to_owned()),
            Check::Shutdown => Ok(()),
        }
    }
}

/// Answers `/healthz`, `/livez`, `/readyz`, and what stands below them.
pub(crate) async fn respond(c: &Context, parts: &[&str]) -> Result<Response<Body>, ApiError> {
    let Some((family, rest)) = parts.split_first() else { return Err(ApiError::no_such_resource()) };
    let all = checks(family, &c.server);
    let seen = Seen::look(&c.server).await;
    let note = |check: Check, result: &Result<(), String>| {
        c.server.metrics.health_check(check.name(), family, result.is_ok());
    };
    let wanted = rest.join("/");
    if !wanted.is_empty() {
        let Some(check) = all.into_iter().find(|check| check.name() == wanted) else {
            return Ok(crate::routes::page_not_found());
        };
        let result = seen.judge(check);
        note(check, &result);
        return Ok(match result {
            Ok(()) => text(200, "ok".to_owned()),
            Err(why) => text(500, format!("internal server error: {why}\n")),
        });
    }
    let mut excluded = c.query.all("exclude");
    let (mut lines, mut failed) = (String::new(), Vec::new());
    for check in all {
        let name = check.name();
        if let Some(at) = excluded.iter().position(|e| e == name) {
            excluded.swap_remove(at);
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        let result = seen.judge(check);
        note(check, &result);
        match result {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
                failed.push(format!("{name}: {why}"));
            }
        }
    }
    excluded.retain(|e| !e.is_empty());
    if !excluded.is_empty() {
        excluded.sort();
        let names: Vec<String> = excluded.iter().map(|e| format!("{e:?}")).collect();
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {}\n", names.join(",")));
    }
    if !failed.is_empty() {
        tracing::warn!(family, failed = failed.join(", "), "health check failed");
        return Ok(text(500, format!("{lines}{family} check failed\n")));
    }
    if c.query.get("verbose").is_none() {
        return Ok(text(200, "ok".to_owned()));
    }
    Ok(text(200, format!("{lines}{family} check passed\n")))
}
