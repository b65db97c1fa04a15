//! A pod's names on the network: resolver configuration by dnsPolicy and dnsConfig, hostname, and the managed
//! hosts file. The runtime writes resolv.conf and the hostname into the containers; the hosts file is ours.

use std::{net::IpAddr, path::Path};

use ironkeel_cri::v1 as cri;
use k8s_openapi::api::core::v1::Pod;

use crate::{Error, error::FileContext, names};

/// Longest hostname that the kernel takes, bytes.
const HOSTNAME_MAX_BYTES: usize = 63;
/// Longest fully qualified name that the kernel takes as hostname, bytes.
const FQDN_MAX_BYTES: usize = 64;
/// First line of a managed hosts file.
const HOSTS_HEADER: &str = "# Kubernetes-managed hosts file.";
const HOSTS_HEADER_HOST_NETWORK: &str = "# Kubernetes-managed hosts file (host network).";

/// The cluster's side of name resolution.
pub(crate) struct ClusterDns<'a> {
    pub(crate) servers: &'a [IpAddr],
    pub(crate) domain: &'a str,
    pub(crate) host: &'a cri::DnsConfig,
}

/// Reads a resolver configuration.
pub(crate) fn parse_resolv_conf(text: &str) -> cri::DnsConfig {
    let mut config = cri::DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => config.servers.extend(words.next()),
            Some("search") => config.searches = words.map(|w| w.trim_end_matches('.').to_owned()).collect(),
            Some("options") => config.options = words.collect(),
            _ => {}
        }
    }
    config.searches.retain(|search| !search.is_empty());
    config
}

/// The resolver configuration of the pod.
pub(crate) fn dns_config(pod: &Pod, cluster: &ClusterDns<'_>) -> cri::DnsConfig {
    let spec = pod.spec.as_ref();
    let host_network = spec.and_then(|spec| spec.host_network) == Some(true);
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let cluster_first = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !host_network,
        _ => false,
    };
    let mut config = match policy {
        "None" => cri::DnsConfig::default(),
        _ if cluster_first && !cluster.servers.is_empty() => {
            let (namespace, domain) = (names::namespace(pod), cluster.domain);
            let mut searches = Vec::new();
            if !domain.is_empty() {
                searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
            }
            let more = cluster.host.searches.iter().filter(|search| !searches.contains(search)).cloned();
            let more: Vec<String> = more.collect();
            searches.extend(more);
            cri::DnsConfig {
                servers: cluster.servers.iter().map(IpAddr::to_string).collect(),
                searches,
                options: vec!["ndots:5".into()],
            }
        }
        _ => cluster.host.clone(),
    };
    if let Some(own) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        for server in own.nameservers.iter().flatten() {
            if !config.servers.contains(server) {
                config.servers.push(server.clone());
            }
        }
        for search in own.searches.iter().flatten() {
            if !config.searches.contains(search) {
                config.searches.push(search.clone());
            }
        }
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            config.options.retain(|existing| existing.split(':').next() != Some(name.as_str()));
            config.options.push(match &option.value {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.clone(),
            });
        }
    }
    config
}

/// The pod's hostname, and its domain when it has one.
pub(crate) fn hostname_and_domain(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = pod.spec.as_ref();
    if let Some(hostname) = spec.and_then(|spec| spec.hostname_override.as_deref()).filter(|name| !name.is_empty()) {
        return (hostname.to_owned(), String::new());
    }
    let set = spec.and_then(|spec| spec.hostname.as_deref()).filter(|name| !name.is_empty());
    let mut hostname = set.unwrap_or(names::name(pod)).to_owned();
    if hostname.len() > HOSTNAME_MAX_BYTES {
        hostname.truncate(HOSTNAME_MAX_BYTES);
        hostname.truncate(hostname.trim_end_matches(['-', '.']).len());
    }
    let subdomain = spec.and_then(|spec| spec.subdomain.as_deref()).filter(|name| !name.is_empty());
    let domain = subdomain.map(|subdomain| format!("{subdomain}.{}.svc.{cluster_domain}", names::namespace(pod)));
    (hostname, domain.unwrap_or_default())
}

/// What the kernel is told as the pod's hostname; empty for pods on the host's network.
pub(crate) fn kernel_hostname(pod: &Pod, cluster_domain: &str) -> Result<String, Error> {
    let spec = pod.spec.as_ref();
    let (hostname, domain) = hostname_and_domain(pod, cluster_domain);
    if spec.and_then(|spec| spec.host_network) == Some(true) {
        return Ok(String::new());
    }
    if spec.and_then(|spec| spec.set_hostname_as_fqdn) == Some(true) && !domain.is_empty() {
        let fqdn = format!("{hostname}.{domain}");
        if fqdn.len() > FQDN_MAX_BYTES {
            let message =
                format!("failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long");
            return Err(Error::ContainerConfig(message));
        }
        return Ok(fqdn);
    }
    Ok(hostname)
}

/// The managed hosts file's text; `host` is the node's own file, for pods on its network.
pub(crate) fn hosts_file(pod: &Pod, pod_ips: &[String], cluster_domain: &str, host: Option<&str>) -> String {
    let mut text = match host {
        Some(host) => format!("{HOSTS_HEADER_HOST_NETWORK}\n{host}"),
        None => {
            let local = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
                         fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";
            let (hostname, domain) = hostname_and_domain(pod, cluster_domain);
            let mut text = format!("{HOSTS_HEADER}\n{local}");
            for ip in pod_ips {
                text.push_str(&match domain.is_empty() {
                    true => format!("{ip}\t{hostname}\n"),
                    false => format!("{ip}\t{hostname}.{domain}\t{hostname}\n"),
                });
            }
            text
        }
    };
    let aliases = pod.spec.as_ref().and_then(|spec| spec.host_aliases.as_ref());
    if let Some(aliases) = aliases.filter(|aliases| !aliases.is_empty()) {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t")));
        }
    }
    text
}

/// Writes the pod's hosts file.
pub(crate) fn write_hosts_file(path: &Path, pod: &Pod, pod_ips: &[String], cluster_domain: &str) -> Result<(), Error> {
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    let host = if host_network { std::fs::read_to_string("/etc/hosts").ok() } else { None };
    let text = hosts_file(pod, pod_ips, cluster_domain, host.as_deref());
    if std::fs::read_to_string(path).is_ok_and(|existing| existing == text) {
        return Ok(());
    }
    std::fs::write(path, text).file("writing", path)?;
    set_mode(path, 0o644)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).file("setting the mode of", path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pod(spec: &str) -> Pod {
        let yaml = format!("{{metadata: {{name: web-0, namespace: ns}}, spec: {{containers: [], {spec}}}}}");
        serde_yaml_ng::from_str(&yaml).unwrap()
    }

    #[test]
    fn dns_policies_choose_the_resolver() {
        let host = parse_resolv_conf("nameserver 9.9.9.9\nsearch example.org.\noptions rotate\n");
        let servers = ["10.96.0.10".parse().unwrap()];
        let cluster = ClusterDns { servers: &servers, domain: "cluster.local", host: &host };
        let check = |spec: &str, servers: &[&str], searches: &[&str], options: &[&str]| {
            let config = dns_config(&pod(spec), &cluster);
            assert_eq!(config.servers, servers, "{spec}");
            assert_eq!(config.searches, searches, "{spec}");
            assert_eq!(config.options, options, "{spec}");
        };
        let in_cluster = ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org"];
        check("dnsPolicy: ClusterFirst", &["10.96.0.10"], &in_cluster, &["ndots:5"]);
        check("hostNetwork: true", &["9.9.9.9"], &["example.org"], &["rotate"]);
        check("hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet", &["10.96.0.10"], &in_cluster, &["ndots:5"]);
        check("dnsPolicy: Default", &["9.9.9.9"], &["example.org"], &["rotate"]);
        check(
            "dnsPolicy: None, dnsConfig: {nameservers: [1.1.1.1], searches: [a.b], options: [{name: ndots, value: '2'}]}",
            &["1.1.1.1"],
            &["a.b"],
            &["ndots:2"],
        );
    }

    #[test]
    fn hosts_file_names_the_pod_and_its_aliases() {
        let pod = pod("hostname: h, subdomain: s, hostAliases: [{ip: 1.2.3.4, hostnames: [x, y]}]");
        let text = hosts_file(&pod, &["10.0.0.5".into()], "cluster.local", None);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.contains("\n10.0.0.5\th.s.ns.svc.cluster.local\th\n"));
        assert!(text.ends_with("# Entries added by HostAliases.\n1.2.3.4\tx\ty\n"));
    }

    #[test]
    fn the_hostname_is_qualified_only_when_asked() {
        assert_eq!(kernel_hostname(&pod("subdomain: s"), "c.l").unwrap(), "web-0");
        assert_eq!(
            kernel_hostname(&pod("subdomain: s, setHostnameAsFQDN: true"), "c.l").unwrap(),
            "web-0.s.ns.svc.c.l"
        );
        let long = "l".repeat(60);
        assert!(kernel_hostname(&pod(&format!("subdomain: {long}, setHostnameAsFQDN: true")), "c.l").is_err());
    }
}
