//! `--egress-selector-config-file`: by which way connections leave. There is one, the direct one; a file that
//! asks for a proxy is refused by name, one that asks for nothing else is taken.

use serde::Deserialize;

use crate::flags::{FlagError, Given, invalid};

const FLAG: &str = "egress-selector-config-file";
const VERSIONS: &[&str] = &["apiserver.k8s.io/v1beta1", "apiserver.k8s.io/v1alpha1"];
const NAMES: &[&str] = &["cluster", "controlplane", "etcd"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    egress_selections: Vec<Selection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selection {
    #[serde(default)]
    name: String,
    connection: Connection,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Connection {
    #[serde(default)]
    proxy_protocol: String,
    transport: Option<serde_yaml_ng::Value>,
}

fn check(text: &str) -> Result<(), String> {
    let file: File = serde_yaml_ng::from_str(text).map_err(|e| format!("strict decoding error: {e}"))?;
    if file.kind != "EgressSelectorConfiguration" || !VERSIONS.contains(&file.api_version.as_str()) {
        return Err(format!("no kind {:?} is registered for version {:?}", file.kind, file.api_version));
    }
    let mut seen: Vec<String> = Vec::new();
    for (i, selection) in file.egress_selections.iter().enumerate() {
        match selection.connection.proxy_protocol.as_str() {
            "Direct" if selection.connection.transport.is_some() => {
                let why = "config must be absent for direct connect";
                return Err(format!("service.connection.transport: Invalid value: \"direct\": {why}"));
            }
            "Direct" => {}
            proxy @ ("HTTPConnect" | "GRPC") => {
                return Err(format!(
                    "egressSelections[{i}].connection.proxyProtocol: {proxy} is not supported here: connections go out directly"
                ));
            }
            other => {
                let known = r#"supported values: "Direct", "GRPC", "HTTPConnect""#;
                return Err(format!("service.connection.protocol: Unsupported value: {other:?}: {known}"));
            }
        }
        let name = selection.name.to_lowercase();
        if seen.contains(&name) {
            return Err(format!("service.connection[{i}]: Duplicate value: {name:?}"));
        }
        if !NAMES.contains(&name.as_str()) {
            let known = r#"supported values: "cluster", "controlplane", "etcd""#;
            return Err(format!("service.connection: Unsupported value: {name:?}: {known}"));
        }
        seen.push(name);
    }
    Ok(())
}

/// Reads the file, where there is one.
pub(super) fn selections(given: &Given) -> Result<(), FlagError> {
    let Some(path) = given.text(FLAG) else { return Ok(()) };
    let read = std::fs::read_to_string(path);
    let text = read.map_err(|e| {
        invalid(FLAG, path, format!("unable to read egress selector configuration from {path:?} [{e}]"))
    })?;
    check(&text).map_err(|why| invalid(FLAG, path, format!("failed to validate egress selector configuration: {why}")))
}

#[cfg(test)]
mod tests {
    use super::check;

    fn file(selections: &str) -> String {
        format!(
            "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:{selections}\n"
        )
    }

    #[test]
    fn the_direct_way_is_taken_and_others_are_refused_by_name() {
        let direct = |name: &str| format!("\n- {{name: {name}, connection: {{proxyProtocol: Direct}}}}");
        let of = |names: &[&str]| file(&names.iter().map(|n| direct(n)).collect::<String>());
        assert_eq!(check(&of(&["cluster", "controlplane", "Etcd"])), Ok(()));
        assert_eq!(check(&file(" []")), Ok(()));
        let says = |text: &str, why: &str| {
            let error = check(text).expect_err(why);
            assert!(error.contains(why), "{error}");
        };
        says(&of(&["cluster", "cluster"]), "service.connection[1]: Duplicate value: \"cluster\"");
        says(&of(&["moon"]), "Unsupported value: \"moon\"");
        let proxied = "\n- {name: cluster, connection: {proxyProtocol: HTTPConnect, transport: {uds: {udsName: /x}}}}";
        says(&file(proxied), "egressSelections[0].connection.proxyProtocol: HTTPConnect is not supported here");
        says(&file("\n- {name: cluster, connection: {proxyProtocol: Direct, transport: {}}}"), "must be absent");
        says(&file("\n- {name: cluster, connection: {proxyProtocol: Pigeon}}"), "Unsupported value: \"Pigeon\"");
        says(&file(" []").replace("v1beta1", "v9"), "no kind \"EgressSelectorConfiguration\" is registered");
    }
}
