//! ServiceAccount, PodTemplate, ComponentStatus: kinds with little to say.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{Path, TableContext, pod_template, print, rules, selector};

/// ServiceAccount.
pub(crate) struct Account;
impl rules::Rules for Account {
    fn prepare_create(&self, o: &mut Value) {
        names_alone(o);
    }
    fn prepare_update(&self, o: &mut Value, _old: &Value, _subresource: Option<&str>) {
        names_alone(o);
    }
    fn columns(&self) -> &'static str {
        "serviceAccount"
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        vec![print::age(o, c)]
    }
}

/// Of the Secrets' references, only the names count.
fn names_alone(o: &mut Value) {
    for s in o.get_mut("secrets").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
        s.retain(|k, _| k == "name");
    }
}

/// PodTemplate.
pub(crate) struct Template;
impl rules::Rules for Template {
    fn default(&self, o: &mut Value) {
        if let Some(m) = o.as_object_mut() {
            pod_template::default_template(m);
        }
    }
    fn generation(&self) -> Generation {
        Generation::Of(&["template"])
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        pod_template::validate_template(o.get("template"), &Path::new("template"), e);
    }
    fn depth(&self) -> Depth {
        Depth::Enums
    }
    fn columns(&self) -> &'static str {
        "podTemplate"
    }
    fn cells(&self, o: &Value, _c: &TableContext) -> Vec<Value> {
        let (containers, images) = print::containers_and_images(o.at(&["template", "spec"]));
        let labels = selector::map_text(o.at(&["template", "metadata", "labels"]));
        vec![containers, images, print::non_empty(labels, "<none>")]
    }
}

/// ComponentStatus.
pub(crate) struct Component;
impl rules::Rules for Component {
    fn columns(&self) -> &'static str {
        "componentStatus"
    }
    fn cells(&self, o: &Value, _c: &TableContext) -> Vec<Value> {
        let healthy = o.items_at(&["conditions"]).iter().find(|c| c.str_at(&["type"]) == Some("Healthy"));
        let text = |f: &str| healthy.and_then(|c| c.str_at(&[f])).unwrap_or_default();
        let status = match text("status") {
            "True" => "Healthy",
            "False" => "Unhealthy",
            _ => "Unknown",
        };
        vec![status.into(), text("message").into(), text("error").into()]
    }
}
