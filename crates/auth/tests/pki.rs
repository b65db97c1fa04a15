//! Certificates: made once, healed when they no longer fit, and good for a real handshake.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ironkeel_auth::pki::{
    LEAF_VALIDITY, RENEW_BEFORE, ReplaceableCertificates, ServingCertificates, api_server_tls_with,
};
use ironkeel_auth::{
    AuthError, ClientCertificates, Identity, Peer, Pki, PkiConfig, RequestHeaderConfig, UserInfo,
    identity_of_certificate,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, Stream};

fn config(ip: &str) -> PkiConfig {
    PkiConfig {
        node_name: "node-a".to_owned(),
        node_ips: vec![ip.parse::<IpAddr>().unwrap()],
        service_ips: vec!["10.96.0.1".parse().unwrap()],
        ..PkiConfig::default()
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Serves one connection; returns the user of the client's certificate and what both sides said.
fn handshake(server: Arc<ServerConfig>, client: Arc<ClientConfig>, name: &str) -> std::io::Result<Option<UserInfo>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let serving = std::thread::spawn(move || -> std::io::Result<Option<UserInfo>> {
        let (mut socket, _) = listener.accept()?;
        let mut connection = ServerConnection::new(server).map_err(std::io::Error::other)?;
        let mut stream = Stream::new(&mut connection, &mut socket);
        let mut hello = [0; 5];
        stream.read_exact(&mut hello)?;
        stream.write_all(&hello)?;
        stream.flush()?;
        let leaf = connection.peer_certificates().and_then(|c| c.first());
        Ok(leaf.and_then(|c| identity_of_certificate(c).unwrap()))
    });
    let mut socket = TcpStream::connect(address)?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(client, name).map_err(std::io::Error::other)?;
    let mut stream = Stream::new(&mut connection, &mut socket);
    stream.write_all(b"hello")?;
    let mut echo = [0; 5];
    stream.read_exact(&mut echo)?;
    assert_eq!(&echo, b"hello");
    assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
    serving.join().unwrap()
}

#[test]
fn a_component_is_known_by_its_certificate_after_a_handshake() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(dir.path(), config("192.0.2.7")).unwrap();
    let server = pki.api_server_tls().unwrap();
    for identity in Identity::ALL {
        let client = pki.client_tls(identity).unwrap();
        let user = handshake(server.clone(), client, "kubernetes.default.svc").unwrap().unwrap();
        let expected = identity.user("node-a");
        assert_eq!((&user.name, &user.groups), (&expected.name, &expected.groups));
        assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
    }
    assert_eq!(Identity::Kubelet.user("node-a").node(), Some("node-a"));
    let bare = pki.client_tls_with(None).unwrap();
    for name in ["192.0.2.7", "10.96.0.1", "127.0.0.1", "::1", "node-a", "localhost"] {
        assert_eq!(handshake(server.clone(), bare.clone(), name).unwrap(), None);
    }
    assert!(handshake(server, bare.clone(), "192.0.2.8").is_err());
    assert_eq!(handshake(pki.kubelet_tls().unwrap(), bare, "192.0.2.7").unwrap(), None);
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ours = Pki::load_or_create(one.path(), config("192.0.2.7")).unwrap();
    let theirs = Pki::load_or_create(two.path(), config("192.0.2.7")).unwrap();
    let forged = ours.client_tls_with(Some(theirs.client(Identity::Admin))).unwrap();
    assert!(handshake(ours.kubelet_tls().unwrap(), forged, "localhost").is_err());
    let front_proxy = ours.client_tls_with(Some(ours.front_proxy_client())).unwrap();
    assert!(handshake(ours.kubelet_tls().unwrap(), front_proxy, "localhost").is_err());
}

#[test]
fn each_authority_vouches_for_its_own_kind_of_peer_alone() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ours = Pki::load_or_create(one.path(), config("192.0.2.7")).unwrap();
    let theirs = Pki::load_or_create(two.path(), config("192.0.2.7")).unwrap();
    let headers = RequestHeaderConfig::new(ours.front_proxy_ca_pem(), vec!["front-proxy-client".to_owned()]);
    let known = ClientCertificates::new(ours.ca_pem(), Some(headers.clone())).unwrap();
    let of = |pki: &Pki, identity| vec![pki.client(identity).cert_der.clone()];
    let admin = known.identify(&of(&ours, Identity::Admin)).unwrap();
    assert_eq!(admin.user.unwrap().name, "kubernetes-admin");
    assert!(!admin.front_proxy);
    assert!(matches!(known.identify(&of(&theirs, Identity::Admin)), Err(AuthError::UntrustedCertificate)));
    let proxy = [ours.front_proxy_client().cert_der.clone()];
    let peer = known.identify(&proxy).unwrap();
    assert!(peer.expires > 1_700_000_000);
    assert_eq!(peer, Peer { user: None, front_proxy: true, expires: peer.expires });
    assert!(known.identify(&[theirs.front_proxy_client().cert_der.clone()]).is_err());
    assert_eq!(known.identify(&[]).unwrap(), Peer::default());
    let others = RequestHeaderConfig { allowed_names: vec!["somebody-else".to_owned()], ..headers };
    assert!(ClientCertificates::new(ours.ca_pem(), Some(others)).unwrap().identify(&proxy).is_err());

    let mut said = http::HeaderMap::new();
    for (name, value) in [
        ("x-remote-user", "jane"),
        ("x-remote-uid", "u1"),
        ("x-remote-group", "a"),
        ("x-remote-group", "b"),
        ("x-remote-extra-acme.com%2fproject", "p"),
        ("accept", "application/json"),
    ] {
        said.append(http::HeaderName::from_static(name), http::HeaderValue::from_static(value));
    }
    let jane = known.named_in_headers(&said).unwrap();
    assert_eq!((jane.name.as_str(), jane.uid.as_str()), ("jane", "u1"));
    assert_eq!(jane.groups, ["a", "b", UserInfo::AUTHENTICATED]);
    assert_eq!(jane.extra["acme.com/project"], ["p"]);
    known.strip_headers(&mut said);
    assert_eq!(said.len(), 1);
    assert_eq!(known.named_in_headers(&said), None);
}

#[test]
fn keys_are_private_and_a_second_start_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let pki_dir = dir.path().join("pki");
    let first = Pki::load_or_create(&pki_dir, config("192.0.2.7")).unwrap();
    assert_eq!(mode(&pki_dir), 0o700);
    for entry in std::fs::read_dir(&pki_dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "key") {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
    for open in ["ca.key", "sa.key", "admin.key"] {
        std::fs::set_permissions(pki_dir.join(open), std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let second = Pki::load_or_create(&pki_dir, config("192.0.2.7")).unwrap();
    for closed in ["ca.key", "sa.key", "admin.key"] {
        assert_eq!(mode(&pki_dir.join(closed)), 0o600);
    }
    assert_eq!(first.ca_pem(), second.ca_pem());
    assert_eq!(first.api_server().cert_pem, second.api_server().cert_pem);
    assert_eq!(first.client(Identity::Admin).key_pem, second.client(Identity::Admin).key_pem);
    assert_eq!(first.service_account_key().id(), second.service_account_key().id());
    let kubeconfig = dir.path().join("admin.kubeconfig");
    first.write_kubeconfig(&kubeconfig, "https://127.0.0.1:6443", Identity::Admin).unwrap();
    assert_eq!(mode(&kubeconfig), 0o600);
    let text = std::fs::read_to_string(kubeconfig).unwrap();
    assert!(text.contains("server: \"https://127.0.0.1:6443\"") && text.contains("client-key-data: "));
    assert!(!format!("{first:?}").contains("PRIVATE"));
}

#[test]
fn a_new_address_or_an_old_certificate_is_healed_by_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let first = Pki::load_or_create(dir.path(), config("192.0.2.7")).unwrap();
    let moved = Pki::load_or_create(dir.path(), config("192.0.2.99")).unwrap();
    assert_ne!(first.api_server().cert_pem, moved.api_server().cert_pem);
    assert_eq!(first.client(Identity::Proxy).cert_pem, moved.client(Identity::Proxy).cert_pem);
    assert_eq!(first.ca_pem(), moved.ca_pem());
    let bare = moved.client_tls_with(None).unwrap();
    handshake(moved.api_server_tls().unwrap(), bare, "192.0.2.99").unwrap();
    let near = SystemTime::now() + LEAF_VALIDITY - RENEW_BEFORE + Duration::from_secs(3600);
    let renewed = Pki::load_or_create(dir.path(), PkiConfig { now: near, ..config("192.0.2.99") }).unwrap();
    assert_ne!(moved.api_server().cert_pem, renewed.api_server().cert_pem);
    assert_ne!(moved.client(Identity::Admin).cert_pem, renewed.client(Identity::Admin).cert_pem);
    assert_eq!(moved.ca_pem(), renewed.ca_pem());
}

#[test]
fn a_damaged_authority_is_named_and_a_damaged_leaf_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = Pki::load_or_create(dir.path(), config("192.0.2.7")).unwrap();
    std::fs::write(dir.path().join("apiserver.crt"), "rubbish").unwrap();
    let second = Pki::load_or_create(dir.path(), config("192.0.2.7")).unwrap();
    assert_ne!(first.api_server().cert_pem, second.api_server().cert_pem);
    std::fs::remove_file(dir.path().join("ca.key")).unwrap();
    let error = Pki::load_or_create(dir.path(), config("192.0.2.7")).unwrap_err().to_string();
    assert!(error.contains("ca.key is missing"), "{error}");
    std::fs::write(dir.path().join("ca.key"), "rubbish").unwrap();
    let error = Pki::load_or_create(dir.path(), config("192.0.2.7")).unwrap_err().to_string();
    assert!(error.contains("not a key in PEM"), "{error}");
}

#[test]
fn authorities_are_replaced_while_they_are_asked() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ours = Pki::load_or_create(one.path(), config("192.0.2.7")).unwrap();
    let theirs = Pki::load_or_create(two.path(), config("192.0.2.7")).unwrap();
    let headers = RequestHeaderConfig::new(ours.front_proxy_ca_pem(), Vec::new());
    let known = ClientCertificates::new(ours.ca_pem(), Some(headers)).unwrap();
    let shared = known.clone();
    let of = |pki: &Pki| vec![pki.client(Identity::Admin).cert_der.clone()];
    let before = known.generation();
    known.replace_client_ca(theirs.ca_pem()).unwrap();
    assert!(shared.generation() > before);
    assert!(shared.identify(&of(&ours)).is_err());
    assert!(shared.identify(&of(&theirs)).unwrap().user.is_some());
    assert_eq!(known.client_ca_pem(), theirs.ca_pem());
    let proxy = [theirs.front_proxy_client().cert_der.clone()];
    assert!(shared.identify(&proxy).is_err());
    known.replace_front_proxy_ca(theirs.front_proxy_ca_pem()).unwrap();
    assert!(shared.identify(&proxy).unwrap().front_proxy);
    assert!(known.replace_client_ca("no certificate").is_err());
    assert!(shared.identify(&of(&theirs)).is_ok(), "the one of before stays");
}

#[test]
fn a_replaced_serving_certificate_is_shown_to_new_connections() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ours = Pki::load_or_create(one.path(), config("192.0.2.7")).unwrap();
    let theirs = Pki::load_or_create(two.path(), config("192.0.2.7")).unwrap();
    let read = |dir: &tempfile::TempDir| {
        let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        ServingCertificates::new(&text("apiserver.crt"), &text("apiserver.key")).unwrap()
    };
    let shown = Arc::new(ReplaceableCertificates::new(read(&one)));
    let server = api_server_tls_with(shown.clone(), rustls::ALL_VERSIONS, &[]).unwrap();
    // Made anew each time: a client that resumes its session is shown no certificate.
    let knows = |pki: &Pki| handshake(server.clone(), pki.client_tls_with(None).unwrap(), "localhost").is_ok();
    assert!(knows(&ours));
    assert!(!knows(&theirs));
    shown.replace(read(&two));
    assert!(!knows(&ours));
    assert!(knows(&theirs));
}

#[test]
fn cipher_suites_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    Pki::load_or_create(dir.path(), config("192.0.2.7")).unwrap();
    let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let shown = Arc::new(ServingCertificates::new(&text("apiserver.crt"), &text("apiserver.key")).unwrap());
    let with = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        api_server_tls_with(shown.clone(), rustls::ALL_VERSIONS, &names).map_err(|e| e.to_string())
    };
    let good =
        ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_AES_128_GCM_SHA256"];
    let config = with(&good).unwrap();
    let of_12 = config.crypto_provider().cipher_suites.iter().filter(|s| s.tls13().is_none()).count();
    assert_eq!(of_12, 2);
    for bad in ["TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_AES_512", "AES128-SHA"] {
        assert_eq!(with(&[bad]).unwrap_err(), format!("Cipher suite {bad} not supported or doesn't exist"));
    }
}
