//! A container's environment: services of its namespace, envFrom, env with references and `$(VAR)` expansion; also
//! the values that the downward API offers to environment and volumes alike.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, ResourceFieldSelector, Service};

use crate::{Error, names, objects::Objects, resources, runtime::PodView};

use super::spec;

/// What a container's environment is made from.
pub(crate) struct EnvContext<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) pod_ips: &'a [String],
    pub(crate) host_ips: &'a [String],
    pub(crate) services: Vec<Arc<Service>>,
    pub(crate) objects: &'a Objects,
    pub(crate) allocatable: &'a resources::ResourceList,
}

/// Replaces `$(NAME)` by its value; unknown names stay, `$$` is `$`.
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// The variables of the container, in order of definition; later ones replace earlier ones.
pub(crate) async fn environment(
    context: &EnvContext<'_>,
    container: &Container,
) -> Result<Vec<(String, String)>, Error> {
    let namespace = names::namespace(context.pod);
    let mut result: Vec<(String, String)> = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let links = context.pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let services = service_variables(&context.services, namespace, links);
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(source) = &from.config_map_ref {
            let Some(map) = context.objects.config_map(namespace, &source.name).await? else {
                if source.optional == Some(true) {
                    continue;
                }
                return Err(Error::ContainerConfig(format!("configmap \"{}\" not found", source.name)));
            };
            for (key, value) in map.data.iter().flatten() {
                set(&mut result, &mut values, format!("{prefix}{key}"), value.clone());
            }
        }
        if let Some(source) = &from.secret_ref {
            let Some(secret) = context.objects.secret(namespace, &source.name).await? else {
                if source.optional == Some(true) {
                    continue;
                }
                return Err(Error::ContainerConfig(format!("secret \"{}\" not found", source.name)));
            };
            for (key, value) in secret.data.iter().flatten() {
                let value = String::from_utf8_lossy(&value.0).into_owned();
                set(&mut result, &mut values, format!("{prefix}{key}"), value);
            }
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(context, container, variable, &values, &services).await? {
            set(&mut result, &mut values, variable.name.clone(), value);
        }
    }
    let missing: Vec<_> = services.into_iter().filter(|(name, _)| !values.contains_key(name)).collect();
    Ok(missing.into_iter().chain(result).collect())
}

fn set(result: &mut Vec<(String, String)>, values: &mut BTreeMap<String, String>, name: String, value: String) {
    if values.insert(name.clone(), value.clone()).is_some() {
        result.retain(|(existing, _)| *existing != name);
    }
    result.push((name, value));
}

async fn value_of(
    context: &EnvContext<'_>,
    container: &Container,
    variable: &EnvVar,
    values: &BTreeMap<String, String>,
    services: &BTreeMap<String, String>,
) -> Result<Option<String>, Error> {
    let namespace = names::namespace(context.pod);
    let Some(from) = &variable.value_from else {
        let text = variable.value.as_deref().unwrap_or_default();
        return Ok(Some(expand(text, |name| values.get(name).or_else(|| services.get(name)).cloned())));
    };
    if let Some(field) = &from.field_ref {
        let value = field_value(context.pod, &field.field_path, context.pod_ips, context.host_ips);
        let path = &field.field_path;
        return value.map(Some).ok_or_else(|| Error::ContainerConfig(format!("unsupported fieldPath: {path}")));
    }
    if let Some(field) = &from.resource_field_ref {
        return resource_value(context.pod, field, Some(container), context.allocatable).map(Some);
    }
    if let Some(key) = &from.config_map_key_ref {
        let optional = key.optional == Some(true);
        let Some(map) = context.objects.config_map(namespace, &key.name).await? else {
            let error = Error::ContainerConfig(format!("configmap \"{}\" not found", key.name));
            return if optional { Ok(None) } else { Err(error) };
        };
        return match map.data.as_ref().and_then(|data| data.get(&key.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => {
                let place = format!("{namespace}/{}", key.name);
                Err(Error::ContainerConfig(format!("couldn't find key {} in ConfigMap {place}", key.key)))
            }
        };
    }
    if let Some(key) = &from.secret_key_ref {
        let optional = key.optional == Some(true);
        let Some(secret) = context.objects.secret(namespace, &key.name).await? else {
            let error = Error::ContainerConfig(format!("secret \"{}\" not found", key.name));
            return if optional { Ok(None) } else { Err(error) };
        };
        return match secret.data.as_ref().and_then(|data| data.get(&key.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if optional => Ok(None),
            None => {
                let place = format!("{namespace}/{}", key.name);
                Err(Error::ContainerConfig(format!("couldn't find key {} in Secret {place}", key.key)))
            }
        };
    }
    Err(Error::ContainerConfig(format!("environment variable {}: this source is not supported", variable.name)))
}

/// A field of the pod, as `fieldRef` names it.
pub(crate) fn field_value(pod: &Pod, path: &str, pod_ips: &[String], host_ips: &[String]) -> Option<String> {
    let keyed = |map: Option<&BTreeMap<String, String>>, key: &str| {
        Some(map.and_then(|map| map.get(key)).cloned().unwrap_or_default())
    };
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        return match map {
            "metadata.labels" => keyed(pod.metadata.labels.as_ref(), key),
            "metadata.annotations" => keyed(pod.metadata.annotations.as_ref(), key),
            _ => None,
        };
    }
    let lines = |map: Option<&BTreeMap<String, String>>| {
        let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
        lines.join("\n")
    };
    let spec = pod.spec.as_ref()?;
    Some(match path {
        "metadata.name" => names::name(pod).to_owned(),
        "metadata.namespace" => names::namespace(pod).to_owned(),
        "metadata.uid" => names::uid(pod).to_owned(),
        "metadata.labels" => lines(pod.metadata.labels.as_ref()),
        "metadata.annotations" => lines(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => host_ips.join(","),
        "status.podIP" => pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => pod_ips.join(","),
        _ => return None,
    })
}

/// A container's resource, as `resourceFieldRef` names it; an absent limit is what the node has to give.
pub(crate) fn resource_value(
    pod: &Pod,
    field: &ResourceFieldSelector,
    own: Option<&Container>,
    allocatable: &resources::ResourceList,
) -> Result<String, Error> {
    let named = field.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match (named, own) {
        (Some(name), _) => spec::find(pod, name).map(|(_, container)| container),
        (None, own) => own.cloned(),
    };
    let container = container
        .ok_or_else(|| Error::ContainerConfig(format!("container {} not found", named.unwrap_or_default())))?;
    let unknown = || Error::ContainerConfig(format!("unsupported container resource: {}", field.resource));
    let (kind, resource) = field.resource.split_once('.').ok_or_else(unknown)?;
    let node = || allocatable.get(resource).map(resources::milli).unwrap_or_default();
    let milli = match kind {
        "limits" => resources::limit_milli(&container, resource).unwrap_or_else(node),
        "requests" => resources::request_milli(&container, resource),
        _ => return Err(unknown()),
    };
    let divisor = field.divisor.as_ref().map(resources::milli).filter(|divisor| *divisor > 0).unwrap_or(1000);
    Ok((milli / divisor + i128::from(milli % divisor > 0)).to_string())
}

/// `NAME_SERVICE_HOST` and its companions, for the namespace's services (when linked) and the API server's.
pub(crate) fn service_variables(services: &[Arc<Service>], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let of = service.metadata.namespace.as_deref().unwrap_or_default();
        let master = of == "default" && name == "kubernetes";
        let Some(spec) = &service.spec else { continue };
        let ip = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None");
        let (Some(ip), true) = (ip, master || (links && of == namespace)) else { continue };
        if master && of != namespace && services.iter().any(|other| shadows(other, namespace, links)) {
            continue;
        }
        let prefix = variable_name(name);
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        variables.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            if index == 0 {
                variables.insert(format!("{prefix}_SERVICE_PORT"), port.port.to_string());
            }
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                variables.insert(format!("{prefix}_SERVICE_PORT_{}", variable_name(name)), port.port.to_string());
            }
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
            if index == 0 {
                variables.insert(format!("{prefix}_PORT"), url.clone());
            }
            let port_prefix = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
            variables.insert(port_prefix.clone(), url);
            variables.insert(format!("{port_prefix}_PROTO"), protocol.to_lowercase());
            variables.insert(format!("{port_prefix}_PORT"), port.port.to_string());
            variables.insert(format!("{port_prefix}_ADDR"), ip.to_owned());
        }
    }
    variables
}

/// Whether a service of the pod's own namespace takes the name of the API server's.
fn shadows(service: &Service, namespace: &str, links: bool) -> bool {
    links
        && service.metadata.namespace.as_deref() == Some(namespace)
        && service.metadata.name.as_deref() == Some("kubernetes")
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

/// The addresses that a pod has, from the runtime's view or the node.
pub(crate) fn pod_ips(pod: &Pod, view: &PodView, host_ips: &[String]) -> Vec<String> {
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    match view.sandboxes.first() {
        _ if host_network => host_ips.to_vec(),
        Some(sandbox) => sandbox.ips.clone(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn expansion_follows_upstreams_rules() {
        let lookup = |name: &str| (name == "A").then(|| "x".to_owned());
        for (text, expected) in [
            ("$(A)-$(B)", "x-$(B)"),
            ("$$(A)", "$(A)"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("100%$", "100%$"),
            ("$$$(A)", "$x"),
        ] {
            assert_eq!(expand(text, lookup), expected, "{text}");
        }
    }

    #[test]
    fn services_become_variables() {
        let service: Service = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "my-db", "namespace": "a"},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]}}))
        .unwrap();
        let services = [Arc::new(service)];
        let variables = service_variables(&services, "a", true);
        assert_eq!(variables["MY_DB_SERVICE_HOST"], "10.0.0.1");
        assert_eq!(variables["MY_DB_SERVICE_PORT_SQL"], "5432");
        assert_eq!(variables["MY_DB_PORT_5432_TCP"], "tcp://10.0.0.1:5432");
        assert!(service_variables(&services, "b", true).is_empty());
        assert!(service_variables(&services, "a", false).is_empty());
    }

    #[test]
    fn the_downward_api_quotes_maps_and_picks_keys() {
        let pod: Pod = serde_yaml_ng::from_str(
            "{metadata: {name: p, labels: {b: '2', a: 'x\"y'}}, spec: {nodeName: n, containers: []}}",
        )
        .unwrap();
        let field = |path| field_value(&pod, path, &[], &["1.2.3.4".into()]);
        assert_eq!(field("metadata.labels").unwrap(), "a=\"x\\\"y\"\nb=\"2\"");
        assert_eq!(field("metadata.labels['b']").unwrap(), "2");
        assert_eq!(field("status.hostIP").unwrap(), "1.2.3.4");
        assert_eq!(field("status.phase"), None);
    }
}
