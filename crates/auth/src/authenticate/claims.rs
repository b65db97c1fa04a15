//! Claims and users as expressions see them (`claims`, `user`), and what expressions answer.

use std::sync::LazyLock;

use ironkeel_expr::{Activation, Budget, Environment, ObjectType, Program, REQUEST_BUDGET, Type};
use ironkeel_object::{Map, Value};

use crate::UserInfo;

/// Where expressions over `claims` are compiled: any JSON.
pub(super) static CLAIMS: LazyLock<Environment> =
    LazyLock::new(|| Environment::kubernetes().variable("claims", Type::map(Type::String, Type::Dyn)));

/// Where expressions over `user` are compiled.
pub(super) static USER: LazyLock<Environment> = LazyLock::new(|| {
    let texts = || Type::list(Type::String);
    let user = ObjectType::new("kubernetes.UserInfo")
        .field("username", Type::String)
        .field("uid", Type::String)
        .field("groups", texts())
        .field("extra", Type::map(Type::String, texts()));
    Environment::kubernetes().variable("user", Type::object(user))
});

/// JSON as the object tree has it.
pub(super) fn tree(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => (*b).into(),
        serde_json::Value::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => i.into(),
            (None, Some(f)) => f.into(),
            (None, None) => Value::Null,
        },
        serde_json::Value::String(s) => s.as_str().into(),
        serde_json::Value::Array(all) => Value::Array(all.iter().map(tree).collect()),
        serde_json::Value::Object(all) => Value::Object(all.iter().map(|(k, v)| (k.clone(), tree(v))).collect::<Map>()),
    }
}

/// A user as `user` shows it.
pub(super) fn user_tree(user: &UserInfo) -> Value {
    let mut out = Map::new();
    out.insert("username", user.name.as_str());
    out.insert("uid", user.uid.as_str());
    out.insert("groups", user.groups.clone());
    let extra: Map = user.extra.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect();
    out.insert("extra", extra);
    Value::Object(out)
}

/// What an expression says about `claims` or `user`.
pub(super) fn evaluate(program: &Program, variable: &'static str, data: &Value) -> Result<Value, String> {
    let mut activation = Activation::new();
    activation.bind(variable, data);
    let mut budget = Budget::new(REQUEST_BUDGET);
    let value = program.eval(&activation, &mut budget).and_then(|v| v.to_value());
    value.map_err(|e| format!("expression '{}' resulted in error: {e}", program.source()))
}

/// A text, a list of texts, or null for none; empty texts do not count.
pub(super) fn texts(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) if text.is_empty() => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(all) => {
            let mut out = Vec::new();
            for each in all {
                match each {
                    Value::String(text) if text.is_empty() => {}
                    Value::String(text) => out.push(text.clone()),
                    _ => return Err("expression must return a string or a list of strings".to_owned()),
                }
            }
            Ok(out)
        }
        _ => Err("expression must return a string or a list of strings".to_owned()),
    }
}
