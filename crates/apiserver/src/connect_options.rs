//! What admission sees of exec, attach, port-forward and proxies: the query as an options object.

use ironkeel_object::{Map, Value};
use ironkeel_registry::Row;

use crate::context::Context;

/// `PodExecOptions` and its like.
pub(crate) fn connect_options(row: &Row, subresource: &str, c: &Context) -> Value {
    let mut out = Map::new();
    out.insert("apiVersion", "v1");
    let kind = match (row.plural(), subresource) {
        ("pods", "exec") => "PodExecOptions",
        ("pods", "attach") => "PodAttachOptions",
        ("pods", "portforward") => "PodPortForwardOptions",
        ("pods", _) => "PodProxyOptions",
        ("nodes", _) => "NodeProxyOptions",
        _ => "ServiceProxyOptions",
    };
    out.insert("kind", kind);
    match subresource {
        "exec" | "attach" => {
            for key in ["stdin", "stdout", "stderr", "tty"] {
                if c.query.flag(key) {
                    out.insert(key, true);
                }
            }
            if let Some(container) = c.query.get("container").filter(|t| !t.is_empty()) {
                out.insert("container", container.into_owned());
            }
            let command: Vec<String> = c.query.all("command").iter().map(ToString::to_string).collect();
            if !command.is_empty() {
                out.insert("command", command);
            }
        }
        "portforward" => {
            let all = c.query.all("ports");
            let ports: Vec<i64> = all.iter().flat_map(|p| p.split(',')).filter_map(|p| p.parse().ok()).collect();
            if !ports.is_empty() {
                out.insert("ports", ports);
            }
        }
        _ if !c.info.rest.is_empty() => _ = out.insert("path", c.info.rest.as_str()),
        _ => {}
    }
    Value::Object(out)
}
