//! Webhooks that are asked what a caller may do (SubjectAccessReviews), and the chain of authorizers in
//! which they stand (AuthorizationConfiguration).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use ironkeel_auth::{
    Attributes, AuthorizationMode, Authorizer, AuthorizerEntry, AuthorizerKind, Decision, Resolved, UserInfo,
    WebhookRules, selectors_of,
};
use ironkeel_object::Value as Tree;
use serde_json::{Map, Value, json};

use crate::delegates::{Webhook, WebhookConfig};
use crate::metrics::Metrics;

/// Where a pod finds the token of its ServiceAccount and the cluster's authority.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// One authorizer of the chain, with its name.
struct Link {
    name: String,
    kind: LinkKind,
}

enum LinkKind {
    Local(AuthorizationMode),
    Webhook(Box<(Webhook, WebhookRules)>),
}

/// Authorizers in their order; empty where the server has no such chain.
#[derive(Default)]
pub(crate) struct Chain(ArcSwapOption<Vec<Link>>);

fn webhook(rules: &WebhookRules) -> Result<Webhook, String> {
    let mut config = match &rules.kubeconfig {
        Some(file) => WebhookConfig::from_kubeconfig(file)?,
        None => WebhookConfig::in_cluster(&|name| std::env::var(name).ok(), Path::new(SERVICE_ACCOUNT))?,
    };
    config.version.clone_from(&rules.version);
    config.yes_ttl = rules.authorized_ttl;
    config.no_ttl = rules.unauthorized_ttl;
    Webhook::within(config, rules.timeout)
}

fn links(chain: &[AuthorizerEntry]) -> Result<Vec<Link>, String> {
    let link = |entry: &AuthorizerEntry| {
        let kind = match &entry.kind {
            AuthorizerKind::Local(mode) => LinkKind::Local(*mode),
            AuthorizerKind::Webhook(rules) => {
                let webhook = webhook(rules).map_err(|e| format!("authorizer {}: {e}", entry.name))?;
                LinkKind::Webhook(Box::new((webhook, (**rules).clone())))
            }
        };
        Ok(Link { name: entry.name.clone(), kind })
    };
    chain.iter().map(link).collect()
}

impl Chain {
    pub(crate) fn new(chain: Option<&[AuthorizerEntry]>) -> Result<Self, String> {
        Ok(Chain(ArcSwapOption::new(chain.map(links).transpose()?.map(Arc::new))))
    }

    /// Asks these from now on.
    pub(crate) fn replace(&self, chain: &[AuthorizerEntry]) -> Result<(), String> {
        self.0.store(Some(Arc::new(links(chain)?)));
        Ok(())
    }

    /// What the chain knows of all that `user` may, where there is one.
    pub(crate) fn rules_for(&self, authorizer: &Authorizer, user: &UserInfo, namespace: &str) -> Option<Vec<Resolved>> {
        let chain = self.0.load_full()?;
        let known = chain.iter().map(|link| match &link.kind {
            LinkKind::Local(mode) => authorizer.rules_by(*mode, user, namespace),
            LinkKind::Webhook(_) => unresolved(),
        });
        Some(known.collect())
    }

    /// What the chain says, where there is one: the first that has an opinion decides.
    pub(crate) async fn decide(
        &self,
        authorizer: &Authorizer,
        metrics: &Metrics,
        a: &Attributes<'_>,
    ) -> Option<Decision> {
        let chain = self.0.load_full()?;
        let mut said = Said::default();
        for link in chain.iter() {
            let (kind, decision) = match &link.kind {
                LinkKind::Local(mode) => (mode.name(), authorizer.authorize_by(*mode, a)),
                LinkKind::Webhook(both) => ("Webhook", ask_where_wanted(&both.0, &both.1, a).await),
            };
            if let Some(decided) = said.note(metrics, kind, &link.name, decision) {
                return Some(decided);
            }
        }
        Some(said.nothing())
    }
}

/// The reasons of authorizers that had no opinion.
#[derive(Default)]
pub(crate) struct Said(Vec<Arc<str>>);

impl Said {
    /// The decision, where it is one.
    pub(crate) fn note(&mut self, metrics: &Metrics, kind: &str, name: &str, decision: Decision) -> Option<Decision> {
        match decision {
            Decision::NoOpinion(reason) => {
                if !reason.is_empty() {
                    self.0.push(reason);
                }
                None
            }
            decided => {
                metrics.decided(kind, name, decided.is_allowed());
                Some(decided)
            }
        }
    }

    /// Nobody had an opinion.
    pub(crate) fn nothing(mut self) -> Decision {
        match self.0.len() {
            0 => Decision::NoOpinion("".into()),
            1 => Decision::NoOpinion(self.0.remove(0)),
            _ => Decision::NoOpinion(self.0.join("\n").into()),
        }
    }
}

/// A webhook is asked about one request at a time.
pub(crate) fn unresolved() -> Resolved {
    Resolved::unresolved("webhook authorizer does not support user rule resolution")
}

/// What a webhook says, where its conditions hold.
async fn ask_where_wanted(webhook: &Webhook, rules: &WebhookRules, a: &Attributes<'_>) -> Decision {
    let failed = || {
        if rules.deny_on_failure { Decision::Deny("".into()) } else { Decision::NoOpinion("".into()) }
    };
    match rules.conditions.match_request(a) {
        Ok(true) => ask(webhook, a).await.unwrap_or_else(|error| {
            tracing::warn!(error, "the webhook for authorization failed");
            failed()
        }),
        Ok(false) => Decision::NoOpinion("".into()),
        Err(error) => {
            tracing::warn!(error, "a match condition of a webhook for authorization failed");
            failed()
        }
    }
}

fn json_of(tree: &Tree) -> Value {
    let mut bytes = Vec::new();
    ironkeel_codec::encode_json(tree, &mut bytes);
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// The request as a review of this version asks about it; what is empty is left out.
fn review(a: &Attributes<'_>, version: &str) -> Value {
    let mut spec = json!({ "user": a.user.name });
    let mut put = |key: &str, value: Value| {
        spec[key] = value;
    };
    if !a.user.groups.is_empty() {
        // The older version has another name for it.
        put(if version == "v1beta1" { "group" } else { "groups" }, json!(a.user.groups));
    }
    if !a.user.uid.is_empty() {
        put("uid", json!(a.user.uid));
    }
    if !a.user.extra.is_empty() {
        put("extra", json!(a.user.extra));
    }
    if a.resource_request {
        let all = [
            ("namespace", a.namespace),
            ("verb", a.verb),
            ("group", a.group),
            ("version", a.version),
            ("resource", a.resource),
            ("subresource", a.subresource),
            ("name", a.name),
        ];
        let texts = all.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| ((*k).to_owned(), json!(v)));
        let selectors = selectors_of(a).into_iter().filter_map(|(k, v)| Some((k.to_owned(), json_of(&v?))));
        put("resourceAttributes", Value::Object(texts.chain(selectors).collect::<Map<_, _>>()));
    } else {
        put("nonResourceAttributes", json!({ "path": a.path, "verb": a.verb }));
    }
    json!({
        "apiVersion": format!("authorization.k8s.io/{version}"), "kind": "SubjectAccessReview",
        "metadata": { "creationTimestamp": null }, "spec": spec,
    })
}

/// What a webhook says about a request.
pub(crate) async fn ask(webhook: &Webhook, a: &Attributes<'_>) -> Result<Decision, String> {
    let status = webhook.ask(&review(a, webhook.version()), |s| s["allowed"] == true).await?;
    let reason: Arc<str> = status["reason"].as_str().unwrap_or_default().into();
    Ok(match (status["allowed"] == true, status["denied"] == true) {
        (true, false) => Decision::Allow(reason),
        (_, true) => Decision::Deny(reason),
        (false, false) => Decision::NoOpinion(reason),
    })
}

/// How long a webhook may take that no configuration gives a time.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
