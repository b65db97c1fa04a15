//! `ironkeel kube-proxy` as a process of its own: its ports for health and for metrics, which upstream serves
//! in plain text to whoever reaches them.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr};

use ironkeel_auth::{Pki, PkiConfig};
use ironkeel_testkit::run::{Background, SHORT, eventually};
use ironkeel_testkit::tools::can_run;
use ironkeel_testkit::{Error, NetworkNamespace, http, must};

const IRONKEEL: &str = env!("CARGO_BIN_EXE_ironkeel");
const API_PORT: u16 = 16443;
const HEALTH_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;

#[test]
fn a_proxy_tells_its_health_to_all_and_its_metrics_to_the_host() {
    if !can_run("kube_proxy", &[]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    Pki::load_or_create(&dir.path().join("pki"), PkiConfig::default()).unwrap();
    std::fs::write(dir.path().join("tokens.csv"), "t-proxy,system:kube-proxy,1\n").unwrap();
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         clusters: [{{name: k, cluster: {{server: \"https://127.0.0.1:{API_PORT}\", insecure-skip-tls-verify: true}}}}]\n\
         users: [{{name: u, user: {{token: t-proxy}}}}]\n"
    );
    std::fs::write(dir.path().join("kubeconfig"), kubeconfig).unwrap();
    let host = must("a host", NetworkNamespace::new());
    let start = |name: &str, flags: Vec<String>| {
        let mut command = host.command(IRONKEEL);
        command.arg(name).args(flags);
        must(name, Background::start(command))
    };
    let mut server = start(
        "kube-apiserver",
        vec![
            format!("--data-dir={}", path("data")),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={API_PORT}"),
            "--service-account-issuer=https://issuer".to_owned(),
            format!("--service-account-signing-key-file={}", path("pki/sa.key")),
            format!("--token-auth-file={}", path("tokens.csv")),
            "--authorization-mode=Node,RBAC".to_owned(),
        ],
    );
    must("the API server", server.wait_for("serving on https://", SHORT));
    let proxy = start(
        "kube-proxy",
        vec![
            format!("--kubeconfig={}", path("kubeconfig")),
            format!("--data-dir={}", path("proxy")),
            "--hostname-override=n1".to_owned(),
            "--cluster-cidr=10.244.0.0/16".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        ],
    );
    let ask = |ip: Ipv4Addr, port: u16, page: &str| {
        let asked = host.enter(|| http::get(SocketAddr::new(ip.into(), port), page));
        let failed = |source| Error::Io { step: format!("GET {page} from {ip}:{port}"), source };
        asked.and_then(|answer| answer.map_err(failed))
    };
    let here = Ipv4Addr::LOCALHOST;
    let health = must("/healthz", eventually("the proxy's health", SHORT, || ask(here, HEALTH_PORT, "/healthz")));
    assert_eq!((health.status, health.header("content-type")), (200, Some("application/json")), "{}", health.body);
    assert_eq!(health.header("x-content-type-options"), Some("nosniff"));
    let told = health.json();
    assert_eq!((&told["nodeEligible"], &told["healthy"]), (&true.into(), &true.into()), "{}", health.body);
    assert!(told["lastUpdated"].is_string() && told["currentTime"].is_string(), "{}", health.body);
    // Load balancers ask the node's address.
    let live = must("/livez", ask(host.address(), HEALTH_PORT, "/livez"));
    assert_eq!((live.status, live.json().get("nodeEligible")), (200, None), "{}", live.body);
    assert_eq!(must("a page", ask(here, HEALTH_PORT, "/metrics")).status, 404);

    let metrics = must("/metrics", ask(here, METRICS_PORT, "/metrics"));
    assert!(metrics.body.contains("\nprocess_resident_memory_bytes "), "{}", metrics.body);
    assert_eq!(must("/proxyMode", ask(here, METRICS_PORT, "/proxyMode")).body, "nftables");
    assert_eq!(must("/healthz", ask(here, METRICS_PORT, "/healthz")).body, "ok");
    let flags = must("/flagz", ask(here, METRICS_PORT, "/flagz")).body;
    assert!(flags.contains("hostname-override=n1\n"), "{flags}");
    assert!(ask(host.address(), METRICS_PORT, "/metrics").is_err(), "the host alone may ask");
    proxy.interrupt();
    let (code, lines) = must("the proxy's end", proxy.wait_for_end(SHORT));
    assert_eq!(code, 0, "{lines:?}");
    assert!(ask(here, HEALTH_PORT, "/healthz").is_err(), "the port is closed");
    server.interrupt();
    must("the server's end", server.wait_for_end(SHORT));
}
