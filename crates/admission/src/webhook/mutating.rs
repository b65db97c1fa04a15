//! MutatingAdmissionWebhook: one after the other, in order of names; a second round for those who
//! ask for it when the object changed behind their back.

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Attributes};

use super::hook::Hook;
use super::review::Answer;
use super::{Failure, Seen, Webhooks, applies};
use crate::Cluster;
use crate::matching::{settle, taken_back};
use crate::reinvocation::Rounds;

const PLURAL: &str = "mutatingwebhookconfigurations";

impl Webhooks {
    /// Lets webhooks change the object. For a delete there is none, and a patch is an error.
    pub(crate) async fn mutate(
        &self,
        c: &Cluster,
        a: &Attributes<'_>,
        mut object: Option<&mut Value>,
        old: Option<&Value>,
        rounds: &mut Rounds,
    ) -> Result<(), ApiError> {
        let hooks = Self::hooks(c, &self.mutating, PLURAL);
        if hooks.is_empty() || !applies(a) {
            return Ok(());
        }
        rounds.webhooks.begin(rounds.second, object.as_deref());
        let round = u8::from(rounds.second);
        for (index, hook) in hooks.iter().enumerate() {
            if rounds.second && !rounds.webhooks.is_outdated(&hook.uid) {
                continue;
            }
            let Some(seen) = self.wanted(c, a, hook, object.as_deref(), old).await? else { continue };
            let place = format!("round_{round}_index_{index}");
            let asked = match self.ask(a, hook, &seen, true).await {
                Ok(answer) => patched(c, a, hook, seen, answer, object.as_deref_mut(), &place).await,
                Err(failure) => Err(failure),
            };
            let mutated = matches!(asked, Ok(true));
            let note = format!(
                "{{\"configuration\":{:?},\"webhook\":{:?},\"mutated\":{mutated}}}",
                hook.configuration, hook.name
            );
            a.annotate(&format!("mutation.webhook.admission.k8s.io/{place}"), &note);
            if mutated {
                rounds.webhooks.changed();
                rounds.again = true;
            }
            if hook.again {
                rounds.webhooks.called(hook.uid.clone());
            }
            match asked {
                Ok(_) => {}
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Calling(why)) if hook.ignores => {
                    tracing::warn!(webhook = hook.name, why, "failed calling webhook, failing open");
                    a.annotate(&format!("failed-open.mutation.webhook.admission.k8s.io/{place}"), &hook.name);
                }
                Err(Failure::Calling(why)) => return Err(ApiError::internal(why)),
            }
        }
        rounds.webhooks.end(object.as_deref());
        Ok(())
    }
}

/// Applies an answer's patch; whether that changed anything.
async fn patched(
    c: &Cluster,
    a: &Attributes<'_>,
    hook: &Hook,
    seen: Seen,
    answer: Answer,
    object: Option<&mut Value>,
    place: &str,
) -> Result<bool, Failure> {
    let patch = match answer.patch {
        None => return Ok(false),
        Some(Err(why)) => return Err(super::calling(hook, why)),
        Some(Ok(patch)) if patch.is_empty() => return Ok(false),
        Some(Ok(patch)) => patch,
    };
    let (Some(object), Some(before)) = (object, seen.object) else {
        return Err(Failure::Refused(ApiError::internal(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        ))));
    };
    if answer.patch_type != "JSONPatch" {
        return Err(super::calling(hook, format_args!("unsupported patch type {:?}", answer.patch_type)));
    }
    let internal = |e: &dyn std::fmt::Display| Failure::Refused(ApiError::internal(e));
    let mut after = before.clone();
    ironkeel_patch::json_patch(&mut after, &patch).map_err(|e| internal(&e))?;
    if after.gvk() != before.gvk() {
        let (kind, version) = (after.gvk().kind, after.gvk().api_version());
        let why =
            format!("admission webhook {:?} attempted to make the object a {kind} in version {version:?}", hook.name);
        return Err(Failure::Refused(ApiError::internal(why)));
    }
    settle(seen.view.row(a), &mut after).map_err(Failure::Refused)?;
    let changed = after != before;
    if changed {
        let mut note = ironkeel_object::Map::new();
        note.insert("configuration", hook.configuration.as_str());
        note.insert("webhook", hook.name.as_str());
        note.insert("patch", patch);
        note.insert("patchType", "JSONPatch");
        let mut text = Vec::new();
        ironkeel_codec::encode_json(&Value::Object(note), &mut text);
        a.annotate(&format!("patch.webhook.admission.k8s.io/{place}"), &String::from_utf8_lossy(&text));
        taken_back(c, a, &seen.view, after, object).await.map_err(Failure::Refused)?;
    }
    Ok(changed)
}
