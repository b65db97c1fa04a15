//! Where Services of the cluster answer, for webhooks that are called by a Service's name.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use ironkeel_object::{ObjectMeta, ObjectSource, Value};
use ironkeel_webhook::{Place, Resolver};

/// Reads Services and EndpointSlices from the watch cache.
pub struct ClusterServices {
    source: Arc<dyn ObjectSource>,
    to_endpoints: bool,
}

impl ClusterServices {
    /// Over a source of objects. Services are reached at their ClusterIP, or else (`to_endpoints`) at an
    /// endpoint, for servers that no proxy serves.
    pub fn new(source: Arc<dyn ObjectSource>, to_endpoints: bool) -> Self {
        ClusterServices { source, to_endpoints }
    }

    /// An address behind a Service; each call may answer another one.
    fn endpoint(&self, namespace: &str, name: &str, service_port: &Value) -> Option<SocketAddr> {
        let slices =
            self.source.list(ironkeel_schema::resource("discovery.k8s.io", "v1", "endpointslices")?, namespace);
        let port_name = service_port.str_at(&["name"]).unwrap_or_default();
        let mut ready = Vec::new();
        for slice in slices.iter().filter(|s| s.label("kubernetes.io/service-name") == Some(name)) {
            let port = slice.items_at(&["ports"]).iter().find(|p| p.str_at(&["name"]).unwrap_or_default() == port_name);
            let Some(port) = port.and_then(|p| p.i64_at(&["port"])).and_then(|p| u16::try_from(p).ok()) else {
                continue;
            };
            for endpoint in slice.items_at(&["endpoints"]) {
                if endpoint.at(&["conditions", "ready"]).and_then(Value::as_bool) != Some(false) {
                    let addresses = endpoint.items_at(&["addresses"]).iter().filter_map(|a| a.as_str()?.parse().ok());
                    ready.extend(addresses.map(|ip| SocketAddr::new(ip, port)));
                }
            }
        }
        (!ready.is_empty()).then(|| ready[rand::random_range(0..ready.len())])
    }
}

impl fmt::Debug for ClusterServices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterServices")
    }
}

impl Resolver for ClusterServices {
    fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<Place, String> {
        let service = ironkeel_schema::resource("", "v1", "services")
            .and_then(|services| self.source.get(services, namespace, name))
            .ok_or_else(|| format!("service {name:?} not found"))?;
        if service.str_at(&["spec", "type"]) == Some("ExternalName") {
            if self.to_endpoints {
                return Err("unsupported service type \"ExternalName\"".to_owned());
            }
            let host = service.str_at(&["spec", "externalName"]).unwrap_or_default();
            return Ok(Place::Host(host.to_owned(), port));
        }
        let ports = service.items_at(&["spec", "ports"]);
        let found = ports
            .iter()
            .find(|p| p.i64_at(&["port"]) == Some(port.into()))
            .ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
        if self.to_endpoints {
            let found = self.endpoint(namespace, name, found).map(Place::Address);
            return found.ok_or_else(|| format!("no endpoints available for service {name:?}"));
        }
        match service.str_at(&["spec", "clusterIP"]).unwrap_or_default() {
            "None" => Err("cannot route to service with ClusterIP \"None\"".to_owned()),
            ip => {
                let ip = ip.parse().map_err(|_| format!("service {name:?} has no valid ClusterIP"))?;
                Ok(Place::Address(SocketAddr::new(ip, port)))
            }
        }
    }
}
