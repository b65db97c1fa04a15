//! ControllerRevision: a snapshot that never changes.

use ironkeel_object::{ObjectMeta, Value};

use crate::error::Errors;
use crate::{Path, TableContext, print, rules};

pub(crate) struct Rules;

impl rules::Rules for Rules {
    fn validate(&self, o: &Value, e: &mut Errors) {
        e.non_negative(&Path::new("revision"), o.i64_at(&["revision"]));
        if o.get("data").is_none_or(Value::is_null) {
            e.required(&Path::new("data"), "data is mandatory");
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        e.immutable(&Path::new("data"), o.get("data"), old.get("data"));
    }
    fn columns(&self) -> &'static str {
        "controllerRevision"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let controller = o.owner_references().into_iter().find(|r| r.controller);
        let owner = controller.map_or_else(
            || "<none>".to_owned(),
            |r| {
                let group = r.api_version.split_once('/').map_or(String::new(), |(g, _)| format!(".{g}"));
                format!("{}{group}/{}", r.kind.to_lowercase(), r.name)
            },
        );
        vec![owner.into(), print::number(o, &["revision"]).to_string().into(), print::age(o, c)]
    }
}
