//! Secret: types and their keys; `stringData` is for writing only.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironkeel_object::{ObjectMeta, Value};

use crate::core::config_map::{DATA_MAX_BYTES, immutable};
use crate::error::Errors;
use crate::structural::Depth;
use crate::{Path, TableContext, names, print, rules};

pub(crate) struct Rules;

fn merge_string_data(o: &mut Value) {
    let Some(map) = o.as_object_mut() else { return };
    let Some(Value::Object(plain)) = map.remove("stringData") else { return };
    if plain.is_empty() {
        return;
    }
    let data = map.object("data");
    for (k, v) in plain {
        data.insert(k, STANDARD.encode(v.as_str().unwrap_or_default()));
    }
}

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        merge_string_data(o);
        if o.str_at(&["type"]).unwrap_or_default().is_empty() {
            *o.slot(&["type"]) = "Opaque".into();
        }
    }
    fn prepare_update(&self, o: &mut Value, old: &Value, _subresource: Option<&str>) {
        // An update without a type keeps the one it has.
        let kind = old.str_at(&["type"]).unwrap_or_default();
        if o.str_at(&["type"]).unwrap_or_default().is_empty() && !kind.is_empty() {
            *o.slot(&["type"]) = kind.into();
        }
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("data");
        let mut size = 0;
        for (k, v) in o.get("data").and_then(Value::as_object).into_iter().flat_map(|m| m.iter()) {
            e.invalid_each(&at.key(k), k, names::config_key(k));
            size += v.as_str().map_or(0, |s| s.len() / 4 * 3);
        }
        if size > DATA_MAX_BYTES {
            e.too_long(&at, DATA_MAX_BYTES);
        }
        let has = |k: &str| o.at(&["data", k]).is_some();
        let value = |k: &str| o.str_at(&["data", k]).unwrap_or_default();
        match o.str_at(&["type"]).unwrap_or_default() {
            "kubernetes.io/service-account-token" => {
                let key = "kubernetes.io/service-account.name";
                if o.annotation(key).unwrap_or_default().is_empty() {
                    e.required(&Path::new("metadata").child("annotations").key(key), "");
                }
            }
            "kubernetes.io/dockercfg" => docker(value(".dockercfg"), has(".dockercfg"), &at.key(".dockercfg"), e),
            "kubernetes.io/dockerconfigjson" => {
                let k = ".dockerconfigjson";
                docker(value(k), has(k), &at.key(k), e);
            }
            "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
                for k in ["username", "password"] {
                    e.required(&at.key(k), "");
                }
            }
            "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_empty() => {
                e.required(&at.key("ssh-privatekey"), "");
            }
            "kubernetes.io/tls" => {
                for k in ["tls.crt", "tls.key"] {
                    if !has(k) {
                        e.required(&at.key(k), "");
                    }
                }
            }
            _ => {}
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        e.immutable(&Path::new("type"), o.get("type"), old.get("type"));
        immutable(o, old, &["data"], e);
    }
    fn tells_changes_first(&self) -> bool {
        true
    }
    fn depth(&self) -> Depth {
        Depth::Enums
    }
    fn columns(&self) -> &'static str {
        "secret"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let count = o.get("data").and_then(Value::as_object).map_or(0, |m| m.len());
        vec![print::text(o, &["type"], ""), (count as i64).into(), print::age(o, c)]
    }
    fn field(&self, o: &Value, path: &str) -> Option<String> {
        (path == "type").then(|| o.str_at(&["type"]).unwrap_or_default().to_owned())
    }
}

/// Looks like a JSON object; the value itself is never shown.
fn docker(encoded: &str, there: bool, at: &Path, e: &mut Errors) {
    if !there {
        e.required(at, "");
        return;
    }
    let text = STANDARD.decode(encoded).ok().and_then(|b| String::from_utf8(b).ok()).unwrap_or_default();
    let text = text.trim();
    if text.is_empty() {
        e.invalid(at, "<secret contents redacted>", "unexpected end of JSON input");
        return;
    }
    if !(text.starts_with('{') && text.ends_with('}')) {
        e.invalid(at, "<secret contents redacted>", "invalid character looking for beginning of value");
    }
}
