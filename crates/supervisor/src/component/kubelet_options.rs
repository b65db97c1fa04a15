//! From the kubelet's flags to its options: files are read, values checked.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;
use ironkeel_kubelet::{CgroupDriver, ServingCertificate};
use k8s_openapi::api::core::v1::Taint;

use super::{read, required};
use crate::flags::{FlagError, Given, invalid};
use crate::host::KUBELET_PORT;
use crate::instance::{DEFAULT_DATA_DIR, host_name};

/// What the command was given. Absent values leave the kubelet's default.
pub(super) struct KubeletOptions {
    pub(super) kubeconfig: PathBuf,
    pub(super) data_dir: PathBuf,
    pub(super) node_name: String,
    pub(super) node_ips: Vec<IpAddr>,
    pub(super) runtime: Option<(String, String)>,
    pub(super) pod_cidr: Option<Ipv4Net>,
    pub(super) cluster_cidr: Option<Ipv4Net>,
    pub(super) listen: SocketAddr,
    pub(super) serving: Option<ServingCertificate>,
    pub(super) client_ca: Option<Vec<u8>>,
    pub(super) register_node: bool,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) taints: Vec<Taint>,
    pub(super) reserved: BTreeMap<String, String>,
    pub(super) cluster_dns: Vec<IpAddr>,
    pub(super) cluster_domain: Option<String>,
    pub(super) root_dir: Option<PathBuf>,
    pub(super) manifests: Option<PathBuf>,
    pub(super) resolv_conf: Option<PathBuf>,
    pub(super) provider_id: Option<String>,
    pub(super) cgroup_driver: CgroupDriver,
    pub(super) cgroup_root: Option<String>,
    pub(super) max_pods: u32,
    pub(super) one_pull: bool,
    pub(super) image_gc: (u64, u64, Duration),
    pub(super) pressure_transition: Duration,
    pub(super) log_files: usize,
    pub(super) log_bytes: u64,
}

fn addresses(given: &Given, flag: &'static str) -> Result<Vec<IpAddr>, FlagError> {
    let parse = |text: &String| text.parse::<IpAddr>().map_err(|e| invalid(flag, text, e.to_string()));
    given.all(flag).iter().flat_map(|text| text.split(',').map(str::to_owned)).map(|t| parse(&t)).collect()
}

fn pairs(given: &Given, flag: &'static str) -> Result<BTreeMap<String, String>, FlagError> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(invalid(flag, text, "must be key=value")),
    };
    given.all(flag).iter().map(pair).collect()
}

/// `key=value:effect` or `key:effect`.
fn taint(text: &str) -> Result<Taint, FlagError> {
    const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let wrong = |reason: &str| invalid("register-with-taints", text, reason);
    let (key, effect) = text.rsplit_once(':').ok_or_else(|| wrong("must be key=value:effect"))?;
    if !EFFECTS.contains(&effect) {
        return Err(wrong("the effect must be NoSchedule, PreferNoSchedule or NoExecute"));
    }
    let (key, value) = key.split_once('=').map_or((key, None), |(k, v)| (k, Some(v.to_owned())));
    if key.is_empty() {
        return Err(wrong("must be key=value:effect"));
    }
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

/// `10Mi`, `500Ki`, `1Gi` or bytes.
fn bytes(given: &Given, flag: &'static str, default: u64) -> Result<u64, FlagError> {
    let Some(text) = given.text(flag) else { return Ok(default) };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        _ => return Err(invalid(flag, text, "must be a number of bytes, Ki, Mi or Gi")),
    };
    let number: u64 = digits.parse().map_err(|_| invalid(flag, text, "must be a number of bytes, Ki, Mi or Gi"))?;
    number.checked_shl(shift).filter(|n| n >> shift == number).ok_or_else(|| invalid(flag, text, "is too large"))
}

/// Both flags reserve; of one resource only one of them may.
fn reserved(given: &Given) -> Result<BTreeMap<String, String>, FlagError> {
    let mut all = pairs(given, "system-reserved")?;
    for (resource, quantity) in pairs(given, "kube-reserved")? {
        if all.insert(resource.clone(), quantity.clone()).is_some() {
            let reason = format!("{resource} stands in --system-reserved already; put the sum there");
            return Err(invalid("kube-reserved", &format!("{resource}={quantity}"), reason));
        }
    }
    Ok(all)
}

fn serving(given: &Given) -> Result<Option<ServingCertificate>, FlagError> {
    match (read(given, "tls-cert-file")?, read(given, "tls-private-key-file")?) {
        (Some(certificate), Some(key)) => Ok(Some(ServingCertificate { certificate, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(FlagError::Required("tls-private-key-file")),
        (None, Some(_)) => Err(FlagError::Required("tls-cert-file")),
    }
}

/// Reads the command line.
pub(super) fn options(given: &Given) -> Result<KubeletOptions, FlagError> {
    let path = |flag: &'static str| given.text(flag).map(PathBuf::from);
    let range = |flag: &'static str| {
        given.text(flag).map(|_| given.parsed(flag, Ipv4Net::default()).map(|net| net.trunc())).transpose()
    };
    let kubeconfig = required(given, "kubeconfig")?;
    let runtime = given.text("container-runtime-endpoint").map(|endpoint| {
        let images = given.text("image-service-endpoint").unwrap_or(endpoint);
        (endpoint.to_owned(), images.to_owned())
    });
    let cgroup_driver = match given.text("cgroup-driver") {
        None | Some("cgroupfs") => CgroupDriver::Cgroupfs,
        Some("systemd") if runtime.is_some() => CgroupDriver::Systemd,
        Some("systemd") => {
            return Err(invalid("cgroup-driver", "systemd", "the embedded runtime makes cgroups itself"));
        }
        Some(other) => return Err(invalid("cgroup-driver", other, "must be cgroupfs or systemd")),
    };
    let node_ips = match given.text("node-ip") {
        Some(text) => text
            .split(',')
            .map(|ip| ip.parse().map_err(|e: std::net::AddrParseError| invalid("node-ip", text, e.to_string())))
            .collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    Ok(KubeletOptions {
        kubeconfig,
        data_dir: path("data-dir").unwrap_or_else(|| DEFAULT_DATA_DIR.into()),
        node_name: given.text("hostname-override").map_or_else(host_name, |n| n.trim().to_lowercase()),
        node_ips,
        runtime,
        pod_cidr: range("pod-cidr")?,
        cluster_cidr: range("cluster-cidr")?,
        listen: SocketAddr::new(
            given.parsed("address", IpAddr::from([0, 0, 0, 0]))?,
            given.parsed("port", KUBELET_PORT)?,
        ),
        serving: serving(given)?,
        client_ca: read(given, "client-ca-file")?,
        register_node: given.switch("register-node", true),
        labels: pairs(given, "node-labels")?,
        taints: given.all("register-with-taints").iter().map(|t| taint(t)).collect::<Result<_, _>>()?,
        reserved: reserved(given)?,
        cluster_dns: addresses(given, "cluster-dns")?,
        cluster_domain: given.text("cluster-domain").map(str::to_owned),
        root_dir: path("root-dir"),
        manifests: path("pod-manifest-path"),
        resolv_conf: path("resolv-conf"),
        provider_id: given.text("provider-id").map(str::to_owned),
        cgroup_driver,
        cgroup_root: given.text("cgroup-root").map(str::to_owned),
        max_pods: given.parsed("max-pods", 110)?,
        one_pull: given.switch("serialize-image-pulls", false),
        image_gc: (
            given.parsed("image-gc-high-threshold", 85)?,
            given.parsed("image-gc-low-threshold", 80)?,
            given.duration("minimum-image-ttl-duration", Duration::from_secs(120))?,
        ),
        pressure_transition: given.duration("eviction-pressure-transition-period", Duration::from_secs(300))?,
        log_files: given.parsed("container-log-max-files", 5)?,
        log_bytes: bytes(given, "container-log-max-size", 10 << 20)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::flags;

    fn given(line: &str) -> Given {
        flags::parse(super::super::kubelet_flags::TABLE, line.split_whitespace().map(str::to_owned)).unwrap()
    }

    #[test]
    fn taints_sizes_and_reservations_are_read_as_upstream_reads_them() {
        let read = taint("k=v:NoExecute").unwrap();
        assert_eq!((read.key.as_str(), read.value.as_deref(), read.effect.as_str()), ("k", Some("v"), "NoExecute"));
        assert_eq!(taint("k:NoSchedule").unwrap().value, None);
        for bad in ["k=v", "=v:NoSchedule", "k=v:Never"] {
            assert!(taint(bad).is_err(), "{bad}");
        }
        let size = |text: &str| bytes(&given(&format!("--container-log-max-size={text}")), "container-log-max-size", 1);
        assert_eq!((size("10Mi").unwrap(), size("7").unwrap()), (10 << 20, 7));
        assert!(size("10MB").is_err() && size("99999999999999999999Gi").is_err());
        let both = reserved(&given("--system-reserved=cpu=100m --kube-reserved=memory=1Gi")).unwrap();
        assert_eq!(
            both.into_iter().collect::<Vec<_>>(),
            [("cpu".into(), "100m".into()), ("memory".into(), "1Gi".into())]
        );
        assert!(reserved(&given("--system-reserved=cpu=1 --kube-reserved=cpu=1")).is_err());
    }
}
