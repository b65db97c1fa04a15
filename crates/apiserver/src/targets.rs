//! Where streaming and proxy subresources lead: the kubelet of a Pod's node, a Pod, an endpoint of a
//! Service, a node.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Reason, Registry};
use rand::seq::SliceRandom;

use crate::context::Context;
use crate::forward::Forward;
use crate::outbound::{self, Backend, BackendTls, Host, Trust};
use crate::rewrite::Rewrite;
use crate::stream_options;

/// Where kubelets listen unless their Node says otherwise.
const KUBELET_PORT: u16 = 10250;

/// A stored object of a core or other group at `v1`.
pub(crate) fn tree(
    registry: &Registry,
    group: &str,
    plural: &str,
    namespace: &str,
    name: &str,
) -> Result<Arc<Value>, ApiError> {
    let row = registry.row(group, "v1", plural).ok_or_else(ApiError::no_such_resource)?;
    registry.get(&row, namespace, name)?.tree()
}

fn kubelet_of(c: &Context, node: &str) -> Result<(String, u16), ApiError> {
    let node = tree(&c.server.registry, "", "nodes", "", node)?;
    let addresses = node.items_at(&["status", "addresses"]);
    let of = |kind: &String| {
        addresses.iter().filter(|a| a.str_at(&["type"]) == Some(kind)).find_map(|a| a.str_at(&["address"]))
    };
    let address = c.server.kubelet_address_types.iter().find_map(of).ok_or_else(|| {
        let known: Vec<String> = addresses
            .iter()
            .map(|a| {
                format!(
                    "{{{} {}}}",
                    a.str_at(&["type"]).unwrap_or_default(),
                    a.str_at(&["address"]).unwrap_or_default()
                )
            })
            .collect();
        ApiError {
            chosen: Some(Box::new((500, String::new()))),
            ..ApiError::new(
                Reason::InternalError,
                format!("no preferred addresses found; known addresses: [{}]", known.join(" ")),
            )
        }
    })?;
    let port = node.i64_at(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]);
    let port = port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0).unwrap_or(KUBELET_PORT);
    Ok((address.to_owned(), port))
}

fn host(address: &str, port: u16) -> Host {
    match address.parse::<IpAddr>() {
        Ok(ip) => Host::at(ip, port),
        Err(_) => Host::Name(address.to_owned(), port),
    }
}

fn kubelet_backend(c: &Context, address: &str, port: u16) -> Result<Backend, ApiError> {
    let config = c.server.kubelet_tls.as_ref().ok_or_else(|| {
        ApiError::new(Reason::ServiceUnavailable, "this API server has no client certificate for kubelets")
    })?;
    let name = address.parse::<IpAddr>().is_err().then(|| address.to_owned());
    Ok(Backend { host: host(address, port), tls: Some((outbound::http1_only(config), name)) })
}

/// TLS of a Pod's, Service's or node's own making: nobody vouches for its certificate.
fn unverified(scheme: &str) -> Result<Option<BackendTls>, ApiError> {
    if scheme != "https" {
        return Ok(None);
    }
    Ok(Some((outbound::client_tls(Trust::Anyone, None).map_err(ApiError::internal)?, None)))
}

fn container_of(c: &Context, pod: &Value) -> Result<String, ApiError> {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    let all =
        |key: &str| -> Vec<&str> { pod.items_at(&["spec", key]).iter().filter_map(|x| x.str_at(&["name"])).collect() };
    if let Some(named) = c.query.get("container").filter(|n| !n.is_empty()) {
        if lists.iter().any(|l| all(l).contains(&named.as_ref())) {
            return Ok(named.into_owned());
        }
        return Err(ApiError::bad_request(format!("container {named} is not valid for pod {}", pod.name())));
    }
    let containers = all("containers");
    if let Some(default) = pod.annotation("kubectl.kubernetes.io/default-container")
        && containers.contains(&default)
    {
        return Ok(default.to_owned());
    }
    match containers.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(ApiError::bad_request(format!("a container name must be specified for pod {}", pod.name()))),
        many => {
            let mut message = format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                pod.name(),
                many.join(" ")
            );
            let init = all("initContainers");
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::bad_request(message))
        }
    }
}

fn encode(text: &str, out: &mut String) {
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~') {
            out.push(b as char);
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
}

/// The kubelet's endpoint for a Pod's log, exec, attach or portforward; none for the log of a Pod that has no node yet.
pub(crate) fn pod_stream(c: &Context) -> Result<Option<Forward>, ApiError> {
    let sub = c.info.subresource.as_str();
    // Whether there is such a Pod is asked afterwards.
    stream_options::check(c)?;
    let pod = tree(&c.server.registry, "", "pods", &c.info.namespace, &c.info.name)?;
    let node = pod.str_at(&["spec", "nodeName"]).filter(|n| !n.is_empty());
    let mut query = String::new();
    let mut add = |key: &str, value: &str| {
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(key);
        query.push('=');
        encode(value, &mut query);
    };
    let place = match sub {
        "portforward" => {
            for ports in c.query.all("ports") {
                for port in ports.split(',') {
                    add("port", port);
                }
            }
            "portForward"
        }
        "log" => {
            for key in ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes"] {
                if let Some(v) = c.query.get(key) {
                    add(key, &v);
                }
            }
            "containerLogs"
        }
        _ => {
            for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
                if c.query.flag(ours) {
                    add(theirs, "1");
                }
            }
            for word in c.query.all("command") {
                add("command", &word);
            }
            if sub == "exec" { "exec" } else { "attach" }
        }
    };
    let mut path = format!("/{place}/{}/{}", pod.namespace(), pod.name());
    if sub != "portforward" {
        path.push('/');
        path.push_str(&container_of(c, &pod)?);
    }
    let Some(node) = node else {
        if sub == "log" {
            return Ok(None);
        }
        return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", pod.name())));
    };
    // The request is about pods: a node that is not there is said to be one of those.
    let (address, port) = kubelet_of(c, node).map_err(|e| match e.reason {
        Reason::NotFound => ApiError::not_found("", "pods", node),
        _ => e,
    })?;
    Ok(Some(Forward {
        backend: kubelet_backend(c, &address, port)?,
        path: path + &query,
        headers: HeaderMap::new(),
        rewrite: None,
        upgrade_required: sub != "log",
    }))
}

/// `name`, `name:port` or `scheme:name:port`.
fn split_name(name: &str) -> Option<(&str, &str, &str)> {
    let parts: Vec<&str> = name.split(':').collect();
    match parts.as_slice() {
        [name] => Some(("", *name, "")),
        [name, port] => Some(("", *name, *port)),
        [scheme @ ("http" | "https" | ""), name, port] => Some((*scheme, *name, *port)),
        _ => None,
    }
    .filter(|(_, name, _)| !name.is_empty())
}

fn split<'a>(c: &'a Context, what: &str) -> Result<(&'a str, &'a str, &'a str), ApiError> {
    split_name(&c.info.name).ok_or_else(|| ApiError::bad_request(format!("invalid {what} request {:?}", c.info.name)))
}

fn proxied(c: &Context, backend: Backend) -> Forward {
    let rest = if c.info.rest.is_empty() { "/" } else { c.info.rest.as_str() };
    let path = match c.query.as_str() {
        "" => rest.to_owned(),
        query => format!("{rest}?{query}"),
    };
    let own = c.parts.uri.path();
    let prefix = own.strip_suffix(c.info.rest.as_str()).unwrap_or(own).to_owned();
    Forward { backend, path, headers: HeaderMap::new(), rewrite: Some(Rewrite { prefix }), upgrade_required: false }
}

fn bad_port(port: &str) -> ApiError {
    ApiError::bad_request(format!("invalid port {port:?}"))
}

/// A user may not reach this host's own services through the server (CVE-2020-8562: the address that
/// is checked is the one that is dialled; names are not resolved in between).
fn dialable(address: IpAddr) -> Result<(), ApiError> {
    let local = match address.to_canonical() {
        IpAddr::V4(a) => a.is_loopback() || a.is_link_local() || a.is_unspecified() || a.is_multicast(),
        IpAddr::V6(a) => {
            a.is_loopback() || a.is_unspecified() || a.is_multicast() || (a.segments()[0] & 0xffc0) == 0xfe80
        }
    };
    if local { Err(ApiError::bad_request("address not allowed")) } else { Ok(()) }
}

/// `nodes/proxy`.
pub(crate) async fn node_proxy(c: &Context) -> Result<Forward, ApiError> {
    let (scheme, name, port) = split(c, "node")?;
    let (address, kubelet_port) = kubelet_of(c, name)?;
    let asked: u16 = if port.is_empty() { kubelet_port } else { port.parse().map_err(|_| bad_port(port))? };
    if asked == kubelet_port {
        return Ok(proxied(c, kubelet_backend(c, &address, asked)?));
    }
    let addresses: Vec<SocketAddr> = match address.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, asked)],
        Err(_) => tokio::net::lookup_host((address.as_str(), asked))
            .await
            .map_err(|_| ApiError::bad_request("address not allowed"))?
            .collect(),
    };
    for address in &addresses {
        dialable(address.ip())?;
    }
    Ok(proxied(c, Backend { host: Host::Addresses(addresses), tls: unverified(scheme)? }))
}

/// `pods/proxy`.
pub(crate) fn pod_proxy(c: &Context) -> Result<Forward, ApiError> {
    let (scheme, name, port) = split(c, "pod")?;
    let pod = tree(&c.server.registry, "", "pods", &c.info.namespace, name)?;
    let containers = || pod.items_at(&["spec", "containers"]).iter().flat_map(|x| x.items_at(&["ports"]));
    let number = |p: &Value| p.i64_at(&["containerPort"]).and_then(|p| u16::try_from(p).ok());
    let port = if port.is_empty() {
        containers().find_map(number).unwrap_or(80)
    } else {
        port.parse().map_err(|_| bad_port(port))?
    };
    let address = pod.str_at(&["status", "podIP"]).and_then(|ip| ip.parse::<IpAddr>().ok());
    let address = address.ok_or_else(|| ApiError::bad_request("address not allowed"))?;
    dialable(address)?;
    Ok(proxied(c, Backend { host: Host::at(address, port), tls: unverified(scheme)? }))
}

/// Ready endpoints of a Service's port, shuffled.
pub(crate) fn endpoints_of(
    registry: &Registry,
    namespace: &str,
    service: &str,
    port_name: &str,
) -> Result<Vec<SocketAddr>, ApiError> {
    let mut found = Vec::new();
    for slice in slices_of(registry, namespace, service)? {
        let port = slice.items_at(&["ports"]).iter().find(|p| p.str_at(&["name"]).unwrap_or_default() == port_name);
        let Some(port) = port.and_then(|p| p.i64_at(&["port"])).and_then(|p| u16::try_from(p).ok()) else { continue };
        for endpoint in slice.items_at(&["endpoints"]) {
            if endpoint.at(&["conditions", "ready"]).and_then(Value::as_bool) == Some(false) {
                continue;
            }
            let address = endpoint.items_at(&["addresses"]).first().and_then(Value::as_str);
            found.extend(address.and_then(|a| a.parse::<IpAddr>().ok()).map(|a| SocketAddr::new(a, port)));
        }
    }
    found.shuffle(&mut rand::rng());
    Ok(found)
}

/// The EndpointSlices of a Service.
pub(crate) fn slices_of(registry: &Registry, namespace: &str, service: &str) -> Result<Vec<Arc<Value>>, ApiError> {
    let slices =
        registry.row("discovery.k8s.io", "v1", "endpointslices").ok_or_else(ApiError::no_such_resource)?.clone();
    let home = slices.home()?;
    let of_service = |e: &ironkeel_registry::Entry| e.label("kubernetes.io/service-name") == Some(service);
    home.cache.snapshot(namespace, "", of_service).entries.iter().map(|e| e.tree()).collect()
}

/// `services/proxy`.
pub(crate) fn service_proxy(c: &Context) -> Result<Forward, ApiError> {
    let (scheme, name, port) = split(c, "service")?;
    let service = tree(&c.server.registry, "", "services", &c.info.namespace, name)?;
    let ports = service.items_at(&["spec", "ports"]);
    let unavailable = |why: &str| ApiError::new(Reason::ServiceUnavailable, format!("{why} {:?}", c.info.name));
    let none = "no endpoints available for service";
    let wanted = if port.is_empty() {
        ports.iter().find(|p| p.str_at(&["name"]).unwrap_or_default().is_empty())
    } else {
        ports
            .iter()
            .find(|p| p.str_at(&["name"]) == Some(port) || p.i64_at(&["port"]).is_some_and(|n| n.to_string() == port))
    };
    let wanted = match wanted {
        Some(wanted) => wanted.str_at(&["name"]).unwrap_or_default(),
        None if !port.is_empty() && !ports.is_empty() && port.parse::<u16>().is_ok() => {
            let why = format!("no service port {port} found for service {name:?}");
            return Err(ApiError::new(Reason::ServiceUnavailable, why));
        }
        None => port,
    };
    let found = endpoints_of(&c.server.registry, &c.info.namespace, name, wanted)?;
    let Some(first) = found.first() else { return Err(unavailable(none)) };
    dialable(first.ip())?;
    let addresses = found.iter().copied().filter(|a| dialable(a.ip()).is_ok()).collect();
    Ok(proxied(c, Backend { host: Host::Addresses(addresses), tls: unverified(scheme)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_scheme_and_port() {
        assert_eq!(split_name("p"), Some(("", "p", "")));
        assert_eq!(split_name("p:80"), Some(("", "p", "80")));
        assert_eq!(split_name("https:p:web"), Some(("https", "p", "web")));
        assert_eq!(split_name("http:p:"), Some(("http", "p", "")));
        for bad in ["", ":80", "ftp:p:80", "https::80", "a:b:c:d"] {
            assert_eq!(split_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_hosts_own_addresses_cannot_be_reached() {
        for (address, allowed) in [
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("169.254.169.254", false),
            ("0.0.0.0", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("fe80::1", false),
            ("10.0.0.1", true),
            ("192.168.1.1", true),
            ("fd00::1", true),
        ] {
            let ip = address.parse().unwrap_or(IpAddr::from([0, 0, 0, 0]));
            assert_eq!(dialable(ip).is_ok(), allowed, "{address}");
        }
    }
}
