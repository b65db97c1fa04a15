//! Tokens: issued, verified, tampered with, bound to objects that come and go.
#![allow(clippy::unwrap_used)]

mod source;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ironkeel_auth::token::Reference;
use ironkeel_auth::{
    AuthError, AuthRequest, Authenticated, Authenticator, AuthenticatorConfig, BoundObject, KeySet,
    ServiceAccountIssuer, SigningKey, TokenRequest,
};
use ironkeel_object::{ObjectMeta, object};
use source::Memory;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const NOW: i64 = 1_800_000_000;

struct Bench {
    memory: Arc<Memory>,
    issuer: ServiceAccountIssuer,
    authenticator: Authenticator,
    clock: Arc<AtomicI64>,
}

fn bench(anonymous: bool) -> Bench {
    let key = SigningKey::generate().unwrap();
    let mut keys = KeySet::default();
    keys.add_signing_key(&key);
    let memory = Arc::new(Memory::default());
    memory.put(object!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "namespace": "shop", "name": "web", "uid": "sa-1" } }));
    memory.put(object!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": "shop", "name": "web-0", "uid": "pod-1" } }));
    let clock = Arc::new(AtomicI64::new(NOW));
    let reading = clock.clone();
    let config = AuthenticatorConfig {
        issuers: vec![ISSUER.to_owned()],
        keys: keys.clone(),
        api_audiences: vec![ISSUER.to_owned()],
        static_tokens: Some("# tokens\nsesame,ali,7,\"caves, thieves\"\n".to_owned()),
        anonymous,
        clock: Arc::new(move || reading.load(Ordering::SeqCst)),
        ..AuthenticatorConfig::default()
    };
    let authenticator = Authenticator::new(config, memory.clone()).unwrap();
    Bench {
        memory,
        issuer: ServiceAccountIssuer::new(ISSUER, vec![ISSUER.to_owned()], key, keys),
        authenticator,
        clock,
    }
}

fn request(pod: bool) -> TokenRequest {
    let reference = |name: &str, uid: &str| Reference { name: name.to_owned(), uid: uid.to_owned() };
    TokenRequest {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        uid: "sa-1".to_owned(),
        audiences: Vec::new(),
        expiration_seconds: 3600,
        bound_object: pod
            .then(|| BoundObject::Pod { pod: reference("web-0", "pod-1"), node: Some(reference("node-a", "node-1")) }),
    }
}

impl Bench {
    fn ask(&self, token: &str) -> Result<Option<Authenticated>, AuthError> {
        self.authenticator.authenticate(&AuthRequest { bearer: Some(token), ..AuthRequest::default() })
    }
}

#[test]
fn a_bound_token_names_account_groups_pod_and_node() {
    let bench = bench(false);
    let (token, expiry) = bench.issuer.issue(request(true), NOW).unwrap();
    assert_eq!(expiry, NOW + 3600);
    for _ in 0..2 {
        let found = bench.ask(&token).unwrap().unwrap();
        assert_eq!(found.audiences, [ISSUER]);
        assert_eq!(found.user.name, "system:serviceaccount:shop:web");
        assert_eq!(found.user.uid, "sa-1");
        assert_eq!(
            found.user.groups,
            ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"]
        );
        assert_eq!(found.user.extra["authentication.kubernetes.io/pod-name"], ["web-0"]);
        assert_eq!(found.user.extra["authentication.kubernetes.io/pod-uid"], ["pod-1"]);
        assert_eq!(found.user.extra["authentication.kubernetes.io/node-name"], ["node-a"]);
        assert!(found.user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("JTI="));
    }
}

#[test]
fn a_changed_token_is_refused_wherever_it_was_changed() {
    let bench = bench(false);
    let (token, _) = bench.issuer.issue(request(false), NOW).unwrap();
    bench.ask(&token).unwrap().unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let other = URL_SAFE_NO_PAD.encode(claims.replace("shop", "bank"));
    let tampered = [parts[0], other.as_str(), parts[2]].join(".");
    assert!(matches!(bench.ask(&tampered), Err(AuthError::InvalidSignature)));
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    assert!(matches!(bench.ask(&format!("{none}.{}.", parts[1])), Err(AuthError::InvalidSignature)));
    let mut signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    for i in [0, 31, 32, 63] {
        signature[i] ^= 1;
        let forged = [parts[0], parts[1], &URL_SAFE_NO_PAD.encode(&signature)].join(".");
        assert!(matches!(bench.ask(&forged), Err(AuthError::InvalidSignature)));
        signature[i] ^= 1;
    }
    let stranger = SigningKey::generate().unwrap();
    let theirs = ServiceAccountIssuer::new(ISSUER, vec![ISSUER.to_owned()], stranger, KeySet::default());
    let (forged, _) = theirs.issue(request(false), NOW).unwrap();
    assert!(matches!(bench.ask(&forged), Err(AuthError::InvalidSignature)));
    assert!(matches!(bench.ask("a.b.c"), Err(AuthError::UnknownToken)));
    assert!(matches!(bench.ask(&"x".repeat(20_000)), Err(AuthError::TokenTooLong { .. })));
}

#[test]
fn time_and_audience_are_looked_at_even_when_the_token_is_remembered() {
    let bench = bench(false);
    let (token, expiry) = bench.issuer.issue(request(false), NOW).unwrap();
    bench.ask(&token).unwrap().unwrap();
    bench.clock.store(expiry + 61, Ordering::SeqCst);
    assert!(matches!(bench.ask(&token), Err(AuthError::Expired)));
    bench.clock.store(NOW - 61, Ordering::SeqCst);
    assert!(matches!(bench.ask(&token), Err(AuthError::NotYetValid)));
    bench.clock.store(NOW, Ordering::SeqCst);
    let vault = ["vault".to_owned()];
    assert!(matches!(bench.authenticator.authenticate_token(&token, &vault), Err(AuthError::WrongAudience { .. })));
    let (for_vault, _) = bench.issuer.issue(TokenRequest { audiences: vault.to_vec(), ..request(false) }, NOW).unwrap();
    assert!(matches!(bench.ask(&for_vault), Err(AuthError::WrongAudience { .. })));
    assert_eq!(bench.authenticator.authenticate_token(&for_vault, &vault).unwrap().audiences, ["vault"]);
}

#[test]
fn a_token_dies_with_its_pod_and_with_its_account() {
    let bench = bench(false);
    let (token, _) = bench.issuer.issue(request(true), NOW).unwrap();
    bench.ask(&token).unwrap().unwrap();
    bench.memory.put(object!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": "shop", "name": "web-0", "uid": "pod-2" } }));
    assert!(matches!(bench.ask(&token), Err(AuthError::BoundObjectInvalid { kind: "Pod", .. })));
    let mut dying = object!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": "shop", "name": "web-0", "uid": "pod-1" } });
    let at = |seconds: i64| jiff_text(NOW - seconds);
    dying.meta_mut().insert("deletionTimestamp", at(30));
    bench.memory.put(dying.clone());
    bench.ask(&token).unwrap().unwrap();
    dying.meta_mut().insert("deletionTimestamp", at(90));
    bench.memory.put(dying);
    assert!(matches!(bench.ask(&token), Err(AuthError::BoundObjectInvalid { kind: "Pod", .. })));
    bench.memory.remove("serviceaccounts", "shop", "web");
    assert!(matches!(bench.ask(&token), Err(AuthError::BoundObjectInvalid { kind: "ServiceAccount", .. })));
}

fn jiff_text(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap().to_string()
}

#[test]
fn lifetimes_have_limits() {
    let bench = bench(false);
    for (seconds, good) in [(599, false), (600, true), (1 << 32, true), ((1 << 32) + 1, false)] {
        let request = TokenRequest { expiration_seconds: seconds, ..request(false) };
        assert_eq!(bench.issuer.issue(request, NOW).is_ok(), good, "{seconds}");
    }
}

#[test]
fn discovery_and_key_set_tell_how_to_verify() {
    let bench = bench(false);
    let discovery = bench.issuer.discovery("https://192.0.2.1:6443/openid/v1/jwks");
    assert_eq!(discovery["issuer"], ISSUER);
    assert_eq!(discovery["id_token_signing_alg_values_supported"][0], "ES256");
    let keys = bench.issuer.jwks();
    let key = &keys["keys"][0];
    assert_eq!(
        (key["kty"].as_str(), key["crv"].as_str(), key["alg"].as_str()),
        (Some("EC"), Some("P-256"), Some("ES256"))
    );
    let (token, _) = bench.issuer.issue(request(false), NOW).unwrap();
    let point: Vec<u8> = [4]
        .into_iter()
        .chain(["x", "y"].iter().flat_map(|c| URL_SAFE_NO_PAD.decode(key[*c].as_str().unwrap()).unwrap()))
        .collect();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, point);
    public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
}

#[test]
fn tokens_of_before_a_rotation_still_verify() {
    let dir = tempfile::tempdir().unwrap();
    let old = SigningKey::load_or_create(dir.path()).unwrap();
    std::fs::rename(dir.path().join("sa.pub"), dir.path().join("sa-2025.pub")).unwrap();
    std::fs::remove_file(dir.path().join("sa.key")).unwrap();
    let new = SigningKey::load_or_create(dir.path()).unwrap();
    assert_ne!(old.id(), new.id());
    let mut keys = KeySet::default();
    keys.add_signing_key(&new);
    keys.add_directory(dir.path()).unwrap();
    for key in [old, new] {
        let issuer = ServiceAccountIssuer::new(ISSUER, Vec::new(), key, keys.clone());
        let (token, _) = issuer.issue(request(false), NOW).unwrap();
        assert_eq!(keys.verify(&token).unwrap().sub, "system:serviceaccount:shop:web");
    }
    std::fs::write(dir.path().join("sa-bad.pub"), "rubbish").unwrap();
    assert!(keys.add_directory(dir.path()).is_err());
}

#[test]
fn static_tokens_name_their_user() {
    let bench = bench(false);
    let ali = bench.ask("sesame").unwrap().unwrap().user;
    assert_eq!((ali.name.as_str(), ali.uid.as_str()), ("ali", "7"));
    assert_eq!(ali.groups, ["caves", "thieves", "system:authenticated"]);
    assert!(matches!(bench.ask("sesam"), Err(AuthError::UnknownToken)));
    let bad = AuthenticatorConfig { static_tokens: Some("only,two".to_owned()), ..AuthenticatorConfig::default() };
    assert!(matches!(Authenticator::new(bad, bench.memory.clone()), Err(AuthError::TokenFileLine { line: 1 })));
}

#[test]
fn bootstrap_tokens_are_good_for_joining_until_they_expire() {
    let bench = bench(false);
    let put = |usage: &str, expiration: &str| {
        let b64 = |s: &str| STANDARD.encode(s);
        bench.memory.put(object!({
            "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": { "namespace": "kube-system", "name": "bootstrap-token-abcdef" },
            "data": {
                "token-id": (b64("abcdef")), "token-secret": (b64("0123456789abcdef")), "expiration": (b64(expiration)),
                "usage-bootstrap-authentication": (b64(usage)),
                "auth-extra-groups": (b64("system:bootstrappers:workers")),
            },
        }));
    };
    put("true", &jiff_text(NOW + 60));
    let joining = bench.ask("abcdef.0123456789abcdef").unwrap().unwrap().user;
    assert_eq!(joining.name, "system:bootstrap:abcdef");
    assert_eq!(joining.groups, ["system:bootstrappers", "system:bootstrappers:workers", "system:authenticated"]);
    assert!(matches!(bench.ask("abcdef.0123456789abcdee"), Err(AuthError::UnknownToken)));
    put("true", &jiff_text(NOW));
    assert!(matches!(bench.ask("abcdef.0123456789abcdef"), Err(AuthError::BootstrapToken { .. })));
    put("false", &jiff_text(NOW + 60));
    assert!(matches!(bench.ask("abcdef.0123456789abcdef"), Err(AuthError::BootstrapToken { .. })));
}

#[test]
fn without_credentials_only_an_open_server_lets_anyone_in() {
    assert_eq!(bench(false).authenticator.authenticate(&AuthRequest::default()).unwrap(), None);
    let user = bench(true).authenticator.authenticate(&AuthRequest::default()).unwrap().unwrap().user;
    assert_eq!(
        (user.name.as_str(), user.groups.as_slice()),
        ("system:anonymous", &["system:unauthenticated".to_owned()][..])
    );
    assert!(bench(true).ask("wrong").is_err());
}
