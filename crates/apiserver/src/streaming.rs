//! Logs, exec, attach, port-forward and proxies: requests that go on to a kubelet, a Pod or a
//! Service. An upgrade is tunnelled byte for byte once the other side has agreed to it, so every
//! protocol (WebSocket, SPDY) passes.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use http::header::{CONNECTION, HOST, HeaderValue, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Operation, Reason, Row};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::body::Body;
use crate::context::Context;
use crate::request_info::percent_decode;

/// How long connecting to the other side may take, in seconds.
const CONNECT_SECONDS: u64 = 10;
/// Where kubelets listen unless their Node says otherwise.
const KUBELET_PORT: u16 = 10250;
/// Headers that are about one connection alone.
const HOP_HEADERS: &[&str] = &["keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"];

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Where a request goes on to.
struct Target {
    address: IpAddr,
    port: u16,
    tls: bool,
    path: String,
    /// Whether the caller's credentials and such stay behind.
    kubelet: bool,
}

/// hyper's body as ours.
pub(crate) fn body_of(body: Incoming) -> Body {
    Body::stream(body.into_data_stream().map_err(io::Error::other))
}

/// Answers a streaming subresource.
pub(crate) async fn respond(c: Context, row: &Arc<Row>) -> Result<Response<Body>, ApiError> {
    let target = match (row.plural(), c.info.subresource.as_str()) {
        ("pods", "proxy") => pod_proxy(&c)?,
        ("pods", _) => pod_stream(&c)?,
        ("nodes", "proxy") => node_proxy(&c)?,
        ("services", "proxy") => service_proxy(&c)?,
        _ => return Err(ApiError::no_such_resource()),
    };
    let request = c.write_request(row)?;
    if c.info.subresource != "log" {
        let attributes = request.attributes(Operation::Connect, &c.info.name);
        request.admission.validate(&attributes, None, None).await?;
    }
    forward(c, target).await
}

fn tree(c: &Context, group: &str, plural: &str, namespace: &str, name: &str) -> Result<Arc<Value>, ApiError> {
    let registry = &c.server.registry;
    let row = registry.row(group, "v1", plural).ok_or_else(ApiError::no_such_resource)?;
    registry.get(row, namespace, name)?.tree()
}

fn kubelet_of(c: &Context, node: &str) -> Result<(IpAddr, u16), ApiError> {
    let node = tree(c, "", "nodes", "", node)?;
    let addresses = node.items_at(&["status", "addresses"]);
    let of = |kind: &str| {
        addresses
            .iter()
            .filter(|a| a.str_at(&["type"]) == Some(kind))
            .find_map(|a| a.str_at(&["address"])?.parse::<IpAddr>().ok())
    };
    let address = of("InternalIP")
        .or_else(|| of("ExternalIP"))
        .or_else(|| of("Hostname"))
        .ok_or_else(|| ApiError::internal(format!("no preferred addresses found for node {:?}", node.name())))?;
    let port = node.i64_at(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]);
    Ok((address, port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0).unwrap_or(KUBELET_PORT)))
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

fn pod_stream(c: &Context) -> Result<Target, ApiError> {
    let pod = tree(c, "", "pods", &c.info.namespace, &c.info.name)?;
    let sub = c.info.subresource.as_str();
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
            for key in
                ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"]
            {
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
        return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", pod.name())));
    };
    let (address, port) = kubelet_of(c, node)?;
    Ok(Target { address, port, tls: true, path: path + &query, kubelet: true })
}

/// `name`, `name:port` or `scheme:name:port`.
fn split_name(name: &str) -> (&str, &str, &str) {
    let parts: Vec<&str> = name.split(':').collect();
    match parts.as_slice() {
        [scheme, name, port] => (scheme, name, port),
        [name, port] => ("", name, port),
        _ => ("", name, ""),
    }
}

fn rest_of(c: &Context) -> String {
    let rest = if c.info.rest.is_empty() { "/" } else { c.info.rest.as_str() };
    match c.query.as_str() {
        "" => rest.to_owned(),
        query => format!("{rest}?{query}"),
    }
}

fn node_proxy(c: &Context) -> Result<Target, ApiError> {
    let (scheme, name, port) = split_name(&c.info.name);
    let (address, kubelet_port) = kubelet_of(c, name)?;
    let asked: u16 = if port.is_empty() { kubelet_port } else { port.parse().map_err(|_| bad_port(port))? };
    Ok(Target {
        address,
        port: asked,
        tls: asked == kubelet_port || scheme == "https",
        path: rest_of(c),
        kubelet: asked == kubelet_port,
    })
}

fn bad_port(port: &str) -> ApiError {
    ApiError::bad_request(format!("invalid port {port:?}"))
}

fn pod_proxy(c: &Context) -> Result<Target, ApiError> {
    let (scheme, name, port) = split_name(&c.info.name);
    let pod = tree(c, "", "pods", &c.info.namespace, name)?;
    let port = if port.is_empty() {
        let ports = pod.items_at(&["spec", "containers"]).iter().flat_map(|x| x.items_at(&["ports"]));
        ports.filter_map(|p| p.i64_at(&["containerPort"])).find_map(|p| u16::try_from(p).ok()).unwrap_or(80)
    } else {
        port.parse().map_err(|_| bad_port(port))?
    };
    let address = pod.str_at(&["status", "podIP"]).and_then(|ip| ip.parse::<IpAddr>().ok()).ok_or_else(|| {
        ApiError::new(Reason::ServiceUnavailable, format!("address not allowed: pod {name} has no address"))
    })?;
    dialable(address)?;
    Ok(Target { address, port, tls: scheme == "https", path: rest_of(c), kubelet: false })
}

/// A user may not reach this host's own services through the server.
fn dialable(address: IpAddr) -> Result<(), ApiError> {
    let local = match address {
        IpAddr::V4(a) => a.is_loopback() || a.is_link_local() || a.is_unspecified(),
        IpAddr::V6(a) => a.is_loopback() || a.is_unspecified() || (a.segments()[0] & 0xffc0) == 0xfe80,
    };
    if local { Err(ApiError::bad_request("address not allowed")) } else { Ok(()) }
}

fn service_proxy(c: &Context) -> Result<Target, ApiError> {
    let (scheme, name, port) = split_name(&c.info.name);
    let service = tree(c, "", "services", &c.info.namespace, name)?;
    let wanted = service.items_at(&["spec", "ports"]).iter().find(|p| {
        port.is_empty()
            || p.str_at(&["name"]) == Some(port)
            || p.i64_at(&["port"]).is_some_and(|n| n.to_string() == port)
    });
    let unavailable =
        || ApiError::new(Reason::ServiceUnavailable, format!("no endpoints available for service {:?}", c.info.name));
    let Some(wanted) = wanted else { return Err(unavailable()) };
    let wanted = wanted.str_at(&["name"]).unwrap_or_default();
    let slices = c.server.registry.row("discovery.k8s.io", "v1", "endpointslices").ok_or_else(unavailable)?;
    let home = slices.home()?;
    let mut found = Vec::new();
    for entry in
        home.cache.snapshot(&c.info.namespace, "", |e| e.label("kubernetes.io/service-name") == Some(name)).entries
    {
        let slice = entry.tree()?;
        let port = slice.items_at(&["ports"]).iter().find(|p| p.str_at(&["name"]).unwrap_or_default() == wanted);
        let Some(port) = port.and_then(|p| p.i64_at(&["port"])).and_then(|p| u16::try_from(p).ok()) else { continue };
        for endpoint in slice.items_at(&["endpoints"]) {
            if endpoint.at(&["conditions", "ready"]).and_then(Value::as_bool) == Some(false) {
                continue;
            }
            let addresses = endpoint.items_at(&["addresses"]).iter().filter_map(Value::as_str);
            found.extend(addresses.filter_map(|a| a.parse::<IpAddr>().ok()).map(|a| (a, port)));
        }
    }
    if found.is_empty() {
        return Err(unavailable());
    }
    let (address, port) = found[rand::random_range(0..found.len())];
    dialable(address)?;
    Ok(Target { address, port, tls: scheme == "https", path: rest_of(c), kubelet: false })
}

async fn connect(c: &Context, target: &Target) -> Result<Box<dyn Duplex>, ApiError> {
    let unreachable = |e: String| {
        ApiError::new(
            Reason::ServiceUnavailable,
            format!("error trying to reach service: dial tcp {}:{}: {e}", target.address, target.port),
        )
    };
    let dial = TcpStream::connect((target.address, target.port));
    let socket = match tokio::time::timeout(Duration::from_secs(CONNECT_SECONDS), dial).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(e)) => return Err(unreachable(e.to_string())),
        Err(_) => return Err(unreachable("i/o timeout".to_owned())),
    };
    let _ = socket.set_nodelay(true);
    if !target.tls {
        return Ok(Box::new(socket));
    }
    let config = c.server.kubelet_tls.clone().ok_or_else(|| {
        ApiError::new(Reason::ServiceUnavailable, "this API server has no client certificate for kubelets")
    })?;
    let mut config = (*config).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::IpAddress(target.address.into());
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await;
    Ok(Box::new(stream.map_err(|e| unreachable(e.to_string()))?))
}

fn forwarded_headers(headers: &HeaderMap, target: &Target, upgrade: bool) -> HeaderMap {
    let mut out = HeaderMap::new();
    for (name, value) in headers {
        let credentials = matches!(name.as_str(), "authorization") || name.as_str().starts_with("impersonate-");
        let hop = HOP_HEADERS.contains(&name.as_str())
            || name == CONNECTION
            || name == UPGRADE
            || name == HOST
            || name.as_str() == "content-length";
        if !hop && !credentials {
            out.append(name.clone(), value.clone());
        }
    }
    if upgrade {
        for name in [CONNECTION, UPGRADE] {
            if let Some(v) = headers.get(&name) {
                out.insert(name, v.clone());
            }
        }
    }
    let host = match target.address {
        IpAddr::V4(a) => format!("{a}:{}", target.port),
        IpAddr::V6(a) => format!("[{a}]:{}", target.port),
    };
    if let Ok(v) = HeaderValue::from_str(&host) {
        out.insert(HOST, v);
    }
    out
}

async fn forward(c: Context, target: Target) -> Result<Response<Body>, ApiError> {
    let io = connect(&c, &target).await?;
    let gateway =
        |e: hyper::Error| ApiError::new(Reason::ServiceUnavailable, format!("error trying to reach service: {e}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(io)).await.map_err(gateway)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection ended early");
        }
    });
    let upgrade = c.parts.headers.contains_key(UPGRADE);
    let uri: Uri = target.path.parse().map_err(|_| {
        ApiError::bad_request(format!("the path {:?} cannot be forwarded", percent_decode(&target.path, false)))
    })?;
    let mut request = Request::new(Full::new(c.body.clone()));
    *request.method_mut() = c.parts.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = forwarded_headers(&c.parts.headers, &target, upgrade);
    let mut response = sender.send_request(request).await.map_err(gateway)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut parts, body) = response.into_parts();
        for name in HOP_HEADERS {
            parts.headers.remove(*name);
        }
        parts.headers.remove(CONNECTION);
        parts.version = c.parts.version;
        if target.kubelet && parts.status.is_client_error() && parts.status != StatusCode::NOT_FOUND {
            tracing::debug!(status = %parts.status, path = target.path, "a kubelet refused a request");
        }
        return Ok(Response::from_parts(parts, body_of(body)));
    }
    let mut inbound = Request::from_parts(c.parts, ());
    let (client, other) = (hyper::upgrade::on(&mut inbound), hyper::upgrade::on(&mut response));
    tokio::spawn(async move {
        // The upgrades complete once the 101 has been written.
        match tokio::try_join!(client, other) {
            Ok((client, other)) => {
                let (mut client, mut other) = (TokioIo::new(client), TokioIo::new(other));
                if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut other).await {
                    tracing::debug!(%error, "a tunnel ended early");
                }
            }
            Err(error) => tracing::debug!(%error, "an upgrade was not completed"),
        }
    });
    let (parts, _) = response.into_parts();
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = parts.headers;
    Ok(answer)
}
