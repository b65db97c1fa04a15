//! ValidatingAdmissionWebhook: all at once; the first refusal in order of names is the answer.

use ironkeel_object::Value;
use ironkeel_registry::{ApiError, Attributes};

use super::{Failure, Webhooks, applies};
use crate::Cluster;

const PLURAL: &str = "validatingwebhookconfigurations";

impl Webhooks {
    /// Asks every webhook that wants to know.
    pub(crate) async fn validate(
        &self,
        c: &Cluster,
        a: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let hooks = Self::hooks(c, &self.validating, PLURAL);
        if hooks.is_empty() || !applies(a) {
            return Ok(());
        }
        let mut calls = Vec::new();
        for hook in hooks.iter() {
            if let Some(seen) = self.wanted(c, a, hook, object, old).await? {
                calls.push((hook, seen));
            }
        }
        let asked = calls.iter().enumerate().map(|(index, (hook, seen))| async move {
            match self.ask(a, hook, seen, false).await {
                Ok(_) => Ok(()),
                Err(Failure::Refused(error)) => Err(error),
                Err(Failure::Calling(why)) if hook.ignores => {
                    tracing::warn!(webhook = hook.name, why, "failed calling webhook, failing open");
                    let key = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
                    a.annotate(&key, &hook.name);
                    Ok(())
                }
                Err(Failure::Calling(why)) => Err(ApiError::internal(why)),
            }
        });
        futures::future::join_all(asked).await.into_iter().collect()
    }
}
