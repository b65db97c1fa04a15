//! Webhooks that are asked what a caller may do (SubjectAccessReviews), and the chain of authorizers in
//! which they stand (AuthorizationConfiguration).

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use ironkeel_auth::{
    Attributes, AuthorizationMode, Authorizer, AuthorizerEntry, AuthorizerKind, Decision, UserInfo, WebhookRules,
    selectors_of,
};
use ironkeel_object::Value as Tree;
use serde_json::{Map, Value, json};

use crate::delegates::{Webhook, WebhookConfig};

/// One authorizer of the chain.
enum Link {
    Local(AuthorizationMode),
    Webhook(Box<(Webhook, WebhookRules)>),
}

/// Authorizers in their order; empty where the server has no such chain.
#[derive(Default)]
pub(crate) struct Chain(ArcSwapOption<Vec<Link>>);

fn webhook(rules: &WebhookRules) -> Result<Webhook, String> {
    let mut config = WebhookConfig::from_kubeconfig(&rules.kubeconfig)?;
    config.version.clone_from(&rules.version);
    config.yes_ttl = rules.authorized_ttl;
    config.no_ttl = rules.unauthorized_ttl;
    Webhook::within(config, rules.timeout)
}

fn links(chain: &[AuthorizerEntry]) -> Result<Vec<Link>, String> {
    let link = |entry: &AuthorizerEntry| match &entry.kind {
        AuthorizerKind::Local(mode) => Ok(Link::Local(*mode)),
        AuthorizerKind::Webhook(rules) => {
            let webhook = webhook(rules).map_err(|e| format!("authorizer {}: {e}", entry.name))?;
            Ok(Link::Webhook(Box::new((webhook, (**rules).clone()))))
        }
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

    /// What the chain says, where there is one: the first that has an opinion decides.
    pub(crate) async fn decide(&self, authorizer: &Authorizer, a: &Attributes<'_>) -> Option<Decision> {
        let chain = self.0.load_full()?;
        if a.user.in_group(UserInfo::MASTERS) {
            return Some(Decision::Allow("".into()));
        }
        let mut reasons: Vec<Arc<str>> = Vec::new();
        for link in chain.iter() {
            let decision = match link {
                Link::Local(mode) => authorizer.authorize_by(*mode, a),
                Link::Webhook(both) => ask_where_wanted(&both.0, &both.1, a).await,
            };
            match decision {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return Some(decided),
            }
        }
        Some(Decision::NoOpinion(reasons.join("\n").into()))
    }
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
