//! Files of configuration: authorizers and issuers, what they mean and what is said against them.
#![allow(clippy::unwrap_used)]

mod source;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ironkeel_auth::{
    AbacPolicies, Attributes, AuthError, AuthorizationMode, Authorizer, AuthorizerKind, ClaimMapping, Decision, KeySet,
    OidcConfig, UserInfo, WebhookRules, read_authentication, read_authorization,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use source::Memory;

const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\n";

#[track_caller]
fn says<T: std::fmt::Debug, E: std::fmt::Display>(found: Result<T, E>, wanted: &str) {
    let error = found.unwrap_err().to_string();
    assert!(error.contains(wanted), "{error}");
}

fn webhook(dir: &std::path::Path, more: &str) -> String {
    let file = dir.join("kubeconfig");
    std::fs::write(&file, "{}").unwrap();
    format!(
        "{HEAD}kind: AuthorizationConfiguration\nauthorizers:\n- type: Node\n  name: node\n- type: Webhook\n  name: hook\n  webhook:\n    timeout: 3s\n    authorizedTTL: 1m\n    unauthorizedTTL: 10s\n    subjectAccessReviewVersion: v1\n    matchConditionSubjectAccessReviewVersion: v1\n    failurePolicy: Deny\n    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {}}}\n{more}- type: RBAC\n  name: rbac\n",
        file.display()
    )
}

fn rules(text: &str) -> Box<WebhookRules> {
    let chain = read_authorization(text).unwrap();
    let hook = chain.into_iter().find(|e| e.name == "hook").unwrap();
    let AuthorizerKind::Webhook(rules) = hook.kind else { panic!("no webhook") };
    rules
}

#[test]
fn authorizers_are_read_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let text = webhook(dir.path(), "");
    let chain = read_authorization(&text).unwrap();
    assert_eq!(chain.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["node", "hook", "rbac"]);
    assert!(matches!(chain[0].kind, AuthorizerKind::Local(AuthorizationMode::Node)));
    let rules = rules(&text);
    assert_eq!((rules.timeout, rules.authorized_ttl), (Duration::from_secs(3), Duration::from_secs(60)));
    assert!(rules.deny_on_failure && rules.version == "v1");
    let uncached = text.replace("authorizedTTL: 1m\n", "authorizedTTL: 1m\n    cacheAuthorizedRequests: false\n");
    assert_eq!(self::rules(&uncached).authorized_ttl, Duration::ZERO);

    let file =
        |entries: &str| read_authorization(&format!("{HEAD}kind: AuthorizationConfiguration\nauthorizers:\n{entries}"));
    says(file(" []\n"), "authorizers: Required value: at least one authorization mode must be defined");
    says(file("- {type: Foo, name: a}\n"), "authorizers[0].type: Unsupported value: \"Foo\"");
    says(file("- {type: RBAC, name: a}\n- {type: RBAC, name: b}\n"), "authorizers[1].type: Duplicate value: \"RBAC\"");
    says(file("- {type: RBAC, name: a}\n- {type: Node, name: a}\n"), "authorizers[1].name: Duplicate value: \"a\"");
    says(file("- {type: RBAC, name: A_}\n"), "authorizers[0].name: Invalid value: \"A_\": authorizer name is invalid");
    says(file("- {type: Webhook, name: a}\n"), "authorizers[0].webhook: Required value: required when type=Webhook");
    says(
        file("- {type: Webhook, name: a, webhook: {timeout: 31s}}\n"),
        "authorizers[0].timeout: Invalid value: \"31s\"",
    );
    says(file("- {type: RBAC, name: a, colour: red}\n"), "unknown field `colour`");
    says(file("- {type: RBAC, name: a, webhook: {}}\n"), "may only be specified when type=Webhook");
    says(read_authorization("apiVersion: v1\nkind: Pod\n"), "no kind \"Pod\" is registered for version \"v1\"");
    let bad = |from: &str, to: &str| read_authorization(&text.replace(from, to));
    let why = "can only be set when type=KubeConfigFile";
    says(bad("KubeConfigFile,", "InClusterConfig,"), why);
    says(bad("failurePolicy: Deny", "failurePolicy: Maybe"), "authorizers[1].failurePolicy: Unsupported value");
    says(
        bad("subjectAccessReviewVersion: v1\n", "subjectAccessReviewVersion: v2\n"),
        "subjectAccessReviewVersion: Unsupported value: \"v2\"",
    );
}

#[test]
fn match_conditions_say_which_requests_are_asked_about() {
    let dir = tempfile::tempdir().unwrap();
    let conditions = |list: &[&str]| {
        let lines: String = list.iter().map(|c| format!("    - expression: {}\n", json!(c))).collect();
        webhook(dir.path(), &format!("    matchConditions:\n{lines}"))
    };
    let user = UserInfo::new("jane", ["devs"]);
    let pods = Attributes {
        namespace: "shop",
        field_selector: "spec.nodeName=n1",
        label_selector: "a in (b, c),!d",
        ..Attributes::for_resource(&user, "list", "", "v1", "pods")
    };
    let path = Attributes::for_path(&user, "get", "/metrics");
    let check = |list: &[&str], of_pods: Result<bool, &str>, of_path: Result<bool, &str>| {
        let rules = rules(&conditions(list));
        for (attributes, wanted) in [(&pods, of_pods), (&path, of_path)] {
            match (rules.conditions.match_request(attributes), wanted) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{list:?}"),
                (Err(why), Err(wanted)) => assert!(why.contains(wanted), "{why}"),
                other => panic!("{list:?}: {other:?}"),
            }
        }
    };
    check(&["has(request.resourceAttributes)"], Ok(true), Ok(false));
    check(&["request.user == 'jane'", "'devs' in request.groups"], Ok(true), Ok(true));
    // What is not there fails, unless another condition is false.
    check(&["request.resourceAttributes.namespace == 'shop'"], Ok(true), Err("no such key"));
    check(&["request.resourceAttributes.namespace == 'shop'", "request.user == 'joe'"], Ok(false), Ok(false));
    check(
        &[
            "request.resourceAttributes.fieldSelector.requirements.exists(r, r.key == 'spec.nodeName' && r.operator == 'In' && r.values == ['n1'])",
        ],
        Ok(true),
        Err("no such key"),
    );
    check(
        &[
            "has(request.resourceAttributes) && request.resourceAttributes.labelSelector.requirements.exists(r, r.key == 'd' && r.operator == 'DoesNotExist')",
        ],
        Ok(true),
        Ok(false),
    );
    check(&["request.?nonResourceAttributes.path.orValue('') == '/metrics'"], Ok(false), Ok(true));
    says(read_authorization(&conditions(&["request.colour == 'red'"])), "matchConditions[0].expression: Invalid value");
    says(read_authorization(&conditions(&["request.user"])), "must evaluate to bool");
    says(read_authorization(&conditions(&["true", "true"])), "matchConditions[1].expression: Duplicate value");
    let unversioned = conditions(&["true"]).replace("    matchConditionSubjectAccessReviewVersion: v1\n", "");
    says(read_authorization(&unversioned), "required if match conditions are specified");
}

#[test]
fn policies_of_abac_allow_what_their_lines_say() {
    let version = "\"apiVersion\":\"abac.authorization.kubernetes.io/v1beta1\",\"kind\":\"Policy\"";
    let line = |spec: Value| format!("{{{version},\"spec\":{spec}}}\n");
    let text = [
        "# a comment\n\n".to_owned(),
        line(json!({ "user": "alice", "namespace": "*", "resource": "*", "apiGroup": "*" })),
        line(json!({ "group": "devs", "namespace": "shop", "resource": "pods", "readonly": true })),
        line(json!({ "user": "*", "nonResourcePath": "/health*", "readonly": true })),
        "{\"user\":\"old\",\"resource\":\"services\"}\n".to_owned(),
    ]
    .concat();
    let authorizer = Authorizer::with_modes(Arc::new(Memory::default()), vec![AuthorizationMode::Abac]);
    authorizer.set_policies(AbacPolicies::parse(&text).unwrap());
    let check = |user: &UserInfo, verb: &str, target: &str, allowed: bool| {
        let attributes = match target.split_once(' ') {
            None => Attributes::for_path(user, verb, target),
            Some((namespace, resource)) => {
                Attributes { namespace, ..Attributes::for_resource(user, verb, "", "v1", resource) }
            }
        };
        let decision = authorizer.authorize(&attributes);
        assert_eq!(decision.is_allowed(), allowed, "{} {verb} {target}: {decision:?}", user.name);
    };
    let none: [&str; 0] = [];
    let (alice, dev, old) = (UserInfo::new("alice", none), UserInfo::new("bob", ["devs"]), UserInfo::new("old", none));
    check(&alice, "delete", "bank secrets", true);
    check(&alice, "get", "/metrics", false);
    check(&dev, "list", "shop pods", true);
    check(&dev, "delete", "shop pods", false);
    check(&dev, "list", "bank pods", false);
    check(&dev, "get", "/healthz/ping", true);
    check(&UserInfo::anonymous(), "get", "/healthz", false);
    check(&old, "create", "any services", true);
    check(&old, "create", "any pods", false);
    let bob = Attributes::for_resource(&dev, "get", "", "v1", "nodes");
    assert_eq!(authorizer.authorize(&bob), Decision::NoOpinion("No policy matched.".into()));
    let known = authorizer.rules_for(&dev, "shop");
    assert!(known[0].rules.iter().any(|r| r.resources == ["pods"] && r.verbs == ["get", "list", "watch"]));
    says(AbacPolicies::parse("\n{]\n"), "error reading policy file on line 2");
    says(
        AbacPolicies::parse("{\"apiVersion\":\"abac.authorization.kubernetes.io/v1beta1\",\"kind\":\"Pod\"}"),
        "no kind \"Pod\"",
    );
}

struct Issuer {
    key: EcdsaKeyPair,
    keys: KeySet,
}

impl Issuer {
    fn new() -> Issuer {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut keys = KeySet::default();
        keys.add_jwks(&json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "k", "x": text(x), "y": text(y) }] }));
        Issuer { key, keys }
    }

    fn ask(&self, oidc: &OidcConfig, more: Value) -> Result<UserInfo, AuthError> {
        self.ask_with(oidc, &json!({ "alg": "ES256", "kid": "k" }), more)
    }

    fn ask_with(&self, oidc: &OidcConfig, header: &Value, more: Value) -> Result<UserInfo, AuthError> {
        let mut claims = json!({ "iss": "https://issuer.example", "aud": ["client"], "exp": 2000, "sub": "s" });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        let claims = oidc.verify(&oidc.issuer, &self.keys, &token, 1000)?;
        oidc.identify(&claims).map(|who| who.user)
    }
}

fn issuer(more: &str) -> String {
    format!(
        "{HEAD}kind: AuthenticationConfiguration\njwt:\n- issuer:\n    url: https://issuer.example\n    audiences: [client]\n{more}"
    )
}

#[test]
fn claims_become_a_user_by_expressions() {
    let text = issuer(
        "  claimValidationRules:\n  - {claim: hd, requiredValue: example.com}\n  - {expression: 'claims.email_verified == true', message: verify your address}\n  claimMappings:\n    username: {expression: 'claims.email.split(\"@\")[0] + \"-x\"'}\n    groups: {expression: 'claims.roles.map(r, \"idp:\" + r)'}\n    uid: {claim: sub}\n    extra:\n    - {key: example.com/tenant, valueExpression: 'claims.tenant'}\n  userValidationRules:\n  - {expression: \"!user.username.startsWith('system:')\", message: reserved}\n",
    );
    let read = read_authentication(&text, &[]).unwrap();
    let (issuer, oidc) = (Issuer::new(), &read.issuers[0]);
    let good = json!({ "email": "jane@example.com", "email_verified": true, "hd": "example.com", "roles": ["dev", ""], "tenant": "t1", "jti": "j" });
    let jane = issuer.ask(oidc, good.clone()).unwrap();
    assert_eq!((jane.name.as_str(), jane.uid.as_str()), ("jane-x", "s"));
    assert_eq!(jane.groups, ["idp:dev", "idp:", UserInfo::AUTHENTICATED]);
    assert_eq!(jane.extra["example.com/tenant"], ["t1"]);
    assert_eq!(jane.extra["authentication.kubernetes.io/credential-id"], ["JTI=j"]);
    let with = |key: &str, value: Value| {
        let mut claims = good.clone();
        claims[key] = value;
        issuer.ask(oidc, claims)
    };
    says(with("email_verified", json!(false)), "failed: verify your address");
    says(with("hd", json!("other.com")), "claim \"hd\"");
    says(with("email", json!("system:a@b")), "failed: reserved");
    says(with("roles", json!([1])), "error evaluating group claim expression");
    says(with("tenant", json!({})), "error evaluating extra claim expression");
    says(with("exp", json!(999)), "expired");
    says(with("aud", json!("else")), "audiences");
    says(with("nbf", json!(1400)), "not valid yet");
    assert!(with("nbf", json!(1200)).is_ok(), "the issuer's clock may be ahead a little");
}

#[test]
fn claims_by_name_are_prefixed_and_strict() {
    let text = issuer(
        "  claimMappings:\n    username: {claim: email, prefix: 'oidc:'}\n    groups: {claim: groups, prefix: ''}\n",
    );
    let read = read_authentication(&text, &[]).unwrap();
    let issuer = Issuer::new();
    let ask = |claims: Value| issuer.ask(&read.issuers[0], claims);
    let jane = ask(json!({ "email": "j@e", "groups": "one" })).unwrap();
    assert_eq!((jane.name.as_str(), jane.groups[0].as_str()), ("oidc:j@e", "one"));
    assert_eq!(ask(json!({ "email": "j@e" })).unwrap().groups, [UserInfo::AUTHENTICATED]);
    says(ask(json!({ "email": "j@e", "email_verified": false })), "email_verified");
    says(ask(json!({ "email": "j@e", "groups": ["a", 1] })), "parse groups claim");
    says(ask(json!({ "groups": [] })), "email");
}

#[test]
fn a_configuration_of_issuers_says_all_that_is_wrong() {
    let mapped = "  claimMappings: {username: {claim: sub, prefix: ''}}\n";
    let read = |text: &str| read_authentication(text, &["https://own.example".to_owned()]);
    let good = issuer(mapped);
    assert!(read(&good).unwrap().anonymous.is_none());
    let bad = |from: &str, to: &str| read(&good.replace(from, to));
    says(
        bad("https://issuer.example", "http://issuer.example"),
        "jwt[0].issuer.url: Invalid value: \"http://issuer.example\": URL scheme must be https",
    );
    says(
        bad("https://issuer.example", "https://own.example"),
        "URL must not overlap with disallowed issuers: [https://own.example]",
    );
    says(bad("https://issuer.example", "https://issuer.example?a=b"), "URL must not contain a query");
    says(bad("audiences: [client]", "audiences: []"), "jwt[0].issuer.audiences: Required value: at least one");
    says(
        bad("audiences: [client]", "audiences: [a, b]"),
        "audienceMatchPolicy must be MatchAny for multiple audiences",
    );
    says(
        bad("    audiences", "    egressSelectorType: cluster\n    audiences"),
        "egress selectors are not supported here",
    );
    says(
        bad("    audiences", "    discoveryURL: https://issuer.example/\n    audiences"),
        "discoveryURL must be different from URL",
    );
    says(
        bad(", prefix: ''", ""),
        "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set",
    );
    says(bad("claim: sub, prefix: ''", "expression: 'claims.email'"), "claims.email_verified must be used in");
    says(bad("claim: sub, prefix: ''", "expression: 'claim'"), "compilation failed: ERROR");
    says(
        bad("claim: sub, prefix: ''", ""),
        "jwt[0].claimMappings.username: Required value: claim or expression is required",
    );
    let extra = |key: &str| {
        bad("prefix: ''}}", &format!("prefix: ''}}, extra: [{{key: {key}, valueExpression: 'claims.a'}}]}}"))
    };
    assert!(extra("example.com/a").is_ok());
    says(extra("tenant"), "must be a domain-prefixed path");
    says(extra("kubernetes.io/a"), "reserved for Kubernetes use");
    says(extra("example.com/A"), "must be lowercase");
    says(
        read(&format!("{good}- issuer: {{url: 'https://issuer.example', audiences: [c]}}\n{mapped}")),
        "jwt[1].issuer.url: Duplicate value",
    );
    let anonymous = read(&format!(
        "{HEAD}kind: AuthenticationConfiguration\nanonymous: {{enabled: true, conditions: [{{path: /livez}}]}}\n"
    ));
    let rule = anonymous.unwrap().anonymous.unwrap();
    assert!(rule.enabled && rule.paths == ["/livez"]);
    let off =
        format!("{HEAD}kind: AuthenticationConfiguration\nanonymous: {{enabled: false, conditions: [{{path: /a}}]}}\n");
    says(read(&off), "anonymous.conditions: Invalid value");
    says(read(&format!("{good}colour: red\n")), "unknown field `colour`");
}

#[test]
fn a_token_that_demands_unknown_extensions_is_refused() {
    let issuer = Issuer::new();
    let mut oidc = OidcConfig::new("https://issuer.example", "client");
    oidc.algorithms = vec!["ES256".to_owned()];
    let ask = |header: Value| issuer.ask_with(&oidc, &header, json!({}));
    assert!(ask(json!({ "alg": "ES256", "kid": "k", "b64": true })).is_ok());
    for crit in [json!(["exp"]), json!([]), json!("exp"), json!(["b64"])] {
        let refused = ask(json!({ "alg": "ES256", "kid": "k", "crit": crit, "exp": 1 })).unwrap_err();
        assert!(matches!(refused, AuthError::CriticalHeader), "{crit}: {refused}");
    }
    for alg in ["none", "ES512", "HS256", "EdDSA"] {
        assert!(ask(json!({ "alg": alg, "kid": "k" })).is_err(), "{alg}");
    }
}

#[test]
fn groups_may_stand_elsewhere() {
    let mut oidc = OidcConfig::new("https://issuer.example", "client");
    let claims = json!({ "_claim_names": { "groups": "src1", "rest": "src2" },
        "_claim_sources": { "src1": { "endpoint": "https://elsewhere/groups", "access_token": "t" }, "src3": { "JWT": "a.b.c" } } });
    assert_eq!(oidc.distributed_groups(&claims).unwrap(), None, "no groups are wanted");
    oidc.groups = ClaimMapping::Claim { name: "groups".to_owned(), prefix: String::new() };
    let found = oidc.distributed_groups(&claims).unwrap().unwrap();
    assert_eq!(
        (found.name.as_str(), found.endpoint.as_str(), found.access_token.as_str()),
        ("groups", "https://elsewhere/groups", "t")
    );
    assert!(!format!("{found:?}").contains("\"t\""));
    let with = |key: &str, value: Value| {
        let mut claims = claims.clone();
        claims[key] = value;
        oidc.distributed_groups(&claims)
    };
    assert_eq!(with("groups", json!(["own"])).unwrap(), None, "they stand here");
    assert_eq!(with("_claim_names", json!({ "other": "src1" })).unwrap(), None);
    assert_eq!(with("_claim_names", json!({ "groups": "src3" })).unwrap(), None, "aggregated claims are not read");
    says(with("_claim_names", json!({ "groups": "src2" })), "contained a source src2 missing in _claims_sources");
    says(with("_claim_names", json!("src1")), "error parsing distributed claim names");
    says(with("_claim_sources", json!([])), "could not parse claim sources");
}
