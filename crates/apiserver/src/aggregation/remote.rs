//! One remote APIService: its Service, how to trust it, and where its endpoints are.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use ironkeel_auth::UserInfo;
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::Registry;
use rustls::ClientConfig;

use crate::outbound::{self, Backend, ClientIdentity, Host, Trust};
use crate::targets;

/// Port of the Service unless the APIService says otherwise.
const DEFAULT_PORT: i64 = 443;

/// See the module.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) port: i64,
    pub(crate) available: bool,
    trust: (bool, String),
    tls: Result<Arc<ClientConfig>, String>,
}

impl Remote {
    /// Of a stored APIService; `None` where it is local. `known` finds the one of before, whose TLS
    /// is kept where nothing about it has changed.
    pub(super) fn of(
        object: &Value,
        identity: Option<&ClientIdentity>,
        known: impl Fn(&str) -> Option<Arc<Remote>>,
    ) -> Option<Arc<Remote>> {
        let service = object.at(&["spec", "service"]).filter(|s| !s.is_null())?;
        let text = |key: &str| object.str_at(&["spec", key]).unwrap_or_default().to_owned();
        let insecure = object.at(&["spec", "insecureSkipTLSVerify"]).and_then(Value::as_bool).unwrap_or(false);
        let trust = (insecure, text("caBundle"));
        let tls = match known(object.name()) {
            Some(known) if known.trust == trust => known.tls.clone(),
            _ => tls_of(&trust, identity),
        };
        let available = object
            .items_at(&["status", "conditions"])
            .iter()
            .any(|c| c.str_at(&["type"]) == Some("Available") && c.str_at(&["status"]) == Some("True"));
        Some(Arc::new(Remote {
            name: object.name().to_owned(),
            group: text("group"),
            version: text("version"),
            namespace: service.str_at(&["namespace"]).unwrap_or_default().to_owned(),
            service: service.str_at(&["name"]).unwrap_or_default().to_owned(),
            port: service.i64_at(&["port"]).unwrap_or(DEFAULT_PORT),
            available,
            trust,
            tls,
        }))
    }

    /// Changes when the APIService is to be looked at anew.
    pub(super) fn fingerprint(&self) -> String {
        let (insecure, bundle) = &self.trust;
        format!("{} {}/{}:{} {insecure} {bundle}", self.name, self.namespace, self.service, self.port)
    }

    /// `/apis/<group>/<version>` over there.
    pub(super) fn path(&self) -> String {
        if self.group.is_empty() {
            return format!("/api/{}", self.version);
        }
        format!("/apis/{}/{}", self.group, self.version)
    }

    /// Where to connect; the error is for the condition's message.
    pub(super) fn backend(&self, registry: &Registry) -> Result<Backend, String> {
        let tls = self.tls.clone()?;
        let server_name = format!("{}.{}.svc", self.service, self.namespace);
        let service =
            targets::tree(registry, "", "services", &self.namespace, &self.service).map_err(|e| e.message.clone())?;
        let kind = service.str_at(&["spec", "type"]).unwrap_or("ClusterIP");
        if kind == "ExternalName" {
            let name = service.str_at(&["spec", "externalName"]).unwrap_or_default().to_owned();
            let port = u16::try_from(self.port).map_err(|e| e.to_string())?;
            return Ok(Backend { host: Host::Name(name, port), tls: Some((tls, Some(server_name))) });
        }
        let port = service
            .items_at(&["spec", "ports"])
            .iter()
            .find(|p| p.i64_at(&["port"]) == Some(self.port))
            .ok_or_else(|| format!("no service port {} found for service {:?}", self.port, self.service))?;
        let port_name = port.str_at(&["name"]).unwrap_or_default();
        let mut addresses = targets::endpoints_of(registry, &self.namespace, &self.service, port_name)
            .map_err(|e| e.message.clone())?;
        if addresses.is_empty() {
            // A Service whose endpoints nobody publishes may still be routed.
            let ip = service.str_at(&["spec", "clusterIP"]).and_then(|ip| ip.parse::<IpAddr>().ok());
            let port = u16::try_from(self.port).map_err(|e| e.to_string())?;
            addresses.extend(ip.map(|ip| SocketAddr::new(ip, port)));
        }
        if addresses.is_empty() {
            return Err(format!("no endpoints available for service {:?}", self.service));
        }
        Ok(Backend { host: Host::Addresses(addresses), tls: Some((tls, Some(server_name))) })
    }
}

fn tls_of((insecure, bundle): &(bool, String), identity: Option<&ClientIdentity>) -> Result<Arc<ClientConfig>, String> {
    if *insecure {
        return outbound::client_tls(Trust::Anyone, identity);
    }
    if bundle.is_empty() {
        return outbound::client_tls(Trust::System, identity);
    }
    let pem = STANDARD.decode(bundle).map_err(|e| format!("caBundle: {e}"))?;
    outbound::client_tls(Trust::Bundle(&pem), identity)
}

/// The headers that tell an extension API server who asks.
pub(super) fn front_proxy_headers(user: &UserInfo) -> HeaderMap {
    let mut out = HeaderMap::new();
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()))
        {
            out.append(name, value);
        }
    };
    add("x-remote-user", &user.name);
    if !user.uid.is_empty() {
        add("x-remote-uid", &user.uid);
    }
    for group in &user.groups {
        add("x-remote-group", group);
    }
    for (key, values) in &user.extra {
        for value in values {
            add(&format!("x-remote-extra-{}", escape(key)), value);
        }
    }
    out
}

/// Header names cannot hold every character, `%` least of all: extras' keys go percent-encoded.
fn escape(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for b in key.bytes() {
        if b.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&b) {
            out.push(b as char);
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}
