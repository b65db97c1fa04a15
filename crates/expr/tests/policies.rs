//! What admission policies need: the authorizer, patches, message types.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use ironkeel_expr::{
    Activation, AuthorizationCheck, AuthorizationDecision, AuthorizerHook, Budget, CheckTarget, Environment, EvalError,
    ObjectType, Opaque, REQUEST_BUDGET, ResourceCheck, Type, TypeProvider, escaping,
};
use ironkeel_object::{Value, object};
use parking_lot::Mutex;

/// Allows `get`; remembers what it was asked.
#[derive(Default)]
struct Recorder(Mutex<Vec<AuthorizationCheck>>);

impl AuthorizerHook for Recorder {
    fn authorize(&self, check: &AuthorizationCheck) -> AuthorizationDecision {
        self.0.lock().push(check.clone());
        match check.verb.as_str() {
            "get" => AuthorizationDecision { allowed: true, reason: "it is get".into(), error: None },
            "fail" => AuthorizationDecision { error: Some("broken".into()), ..Default::default() },
            _ => AuthorizationDecision::default(),
        }
    }
}

fn ask(source: &str) -> (Result<bool, EvalError>, Vec<AuthorizationCheck>) {
    let env = Environment::kubernetes()
        .variable("authorizer", Type::Opaque(Opaque::Authorizer))
        .variable("authorizer.requestResource", Type::Opaque(Opaque::ResourceCheck));
    let program = env.compile(source, &[Type::Bool]).unwrap();
    let recorder = Recorder::default();
    let request = ResourceCheck { resource: "pods".into(), namespace: "ns".into(), ..Default::default() };
    let result = {
        let mut activation = Activation::new();
        activation.bind_authorizer("authorizer", &recorder);
        activation.bind_request_resource("authorizer.requestResource", &recorder, request);
        let mut budget = Budget::new(REQUEST_BUDGET);
        program.eval(&activation, &mut budget).map(|v| v.as_bool().unwrap())
    };
    (result, recorder.0.into_inner())
}

#[test]
fn the_authorizer_is_asked_what_the_expression_says() {
    let (allowed, asked) =
        ask("authorizer.group('apps').resource('deployments').subresource('scale').namespace('a').name('b')\
         .labelSelector('x=y').check('get').allowed()");
    assert_eq!(allowed, Ok(true));
    let check = ResourceCheck {
        group: "apps".into(),
        version: "*".into(),
        resource: "deployments".into(),
        subresource: "scale".into(),
        namespace: "a".into(),
        name: "b".into(),
        label_selector: "x=y".into(),
        ..Default::default()
    };
    assert_eq!(asked[0].target, CheckTarget::Resource(check));
    let (allowed, asked) = ask("authorizer.path('/healthz').check('post').allowed()");
    assert_eq!((allowed, &asked[0].target), (Ok(false), &CheckTarget::Path("/healthz".into())));
    let (reason, asked) = ask("authorizer.serviceAccount('ns', 'sa').path('/').check('get').reason() == 'it is get'");
    assert_eq!((reason, &asked[0].service_account), (Ok(true), &Some(("ns".into(), "sa".into()))));
    let (allowed, asked) = ask("authorizer.requestResource.check('get').allowed()");
    assert_eq!(allowed, Ok(true));
    assert!(matches!(&asked[0].target, CheckTarget::Resource(r) if r.resource == "pods" && r.namespace == "ns"));
    let (errored, _) =
        ask("authorizer.path('/x').check('fail').errored() && authorizer.path('/x').check('fail').error() == 'broken'");
    assert_eq!(errored, Ok(true));
    let (refused, _) = ask("authorizer.path(' ').check('get').allowed()");
    assert_eq!(refused.unwrap_err().to_string(), "path must not be empty");
    let (refused, _) = ask("authorizer.serviceAccount('ns', 'S A').path('/').check('get').allowed()");
    assert_eq!(refused.unwrap_err().to_string(), "Invalid service account name");
}

#[test]
fn only_two_authorization_checks_fit_into_an_expression() {
    let twice = "authorizer.path('/a').check('x').allowed() || authorizer.path('/b').check('x').allowed()";
    assert_eq!(ask(twice).0, Ok(false));
    let thrice = format!("{twice} || authorizer.path('/c').check('x').allowed()");
    assert_eq!(ask(&thrice).0, Err(EvalError::CostLimitExceeded));
}

fn patched(source: &str, expected: &[Type]) -> Result<Value, String> {
    let env = Environment::kubernetes().with_patch_types().variable("object", Type::Dyn);
    let program = env.compile(source, expected).map_err(|e| e.to_string())?;
    let object = object!({ "metadata": { "labels": { "a": "b" } }, "spec": { "replicas": 2 } });
    let mut activation = Activation::new();
    activation.bind("object", &object);
    let value = program.eval(&activation, &mut Budget::new(REQUEST_BUDGET)).map_err(|e| e.to_string())?;
    value.to_value().map_err(|e| e.to_string())
}

#[test]
fn an_apply_configuration_is_a_tree_of_the_set_fields() {
    let apply = [Type::patch_object()];
    let tree = patched(
        "Object{metadata: Object.metadata{labels: {'x': 'y'}}, spec: Object.spec{replicas: object.spec.replicas + 1, \
         containers: [Object.spec.containers{name: 'a', ?image: optional.none()}]}}",
        &apply,
    );
    let expected = object!({
        "metadata": { "labels": { "x": "y" } },
        "spec": { "containers": [{ "name": "a" }], "replicas": 3 }
    });
    assert_eq!(tree, Ok(expected));
    assert_eq!(patched("Object{}", &apply), Ok(Value::object()));
    assert_eq!(
        patched("Object{spec: Object.status{x: 1}}", &apply),
        Err("unexpected type name \"Object.status\", expected \"Object.spec\", which matches field name path from root Object type".into())
    );
    assert_eq!(patched("Object.spec{}", &apply), Err("must evaluate to Object but got Object.spec".into()));
}

#[test]
fn a_json_patch_is_a_list_of_operations() {
    let patch = [Type::list(Type::json_patch())];
    let operations = patched(
        "[JSONPatch{op: 'test', path: '/spec/replicas', value: object.spec.replicas}, \
         JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: {'k': [1, 2]}}, \
         JSONPatch{op: 'move', path: '/a', from: '/b'}]",
        &patch,
    );
    let expected = object!([
        { "op": "test", "path": "/spec/replicas", "value": 2 },
        { "op": "add", "path": "/metadata/labels/a~1b", "value": { "k": [1, 2] } },
        { "op": "move", "path": "/a", "from": "/b" },
    ]);
    assert_eq!(operations, Ok(expected));
    let wrong = patched("[JSONPatch{op: 1, path: '/a'}]", &patch).unwrap_err();
    assert!(wrong.contains("expected type of field 'op' is 'string' but provided type is 'int'"), "{wrong}");
    let unknown = patched("[JSONPatch{nope: 1}]", &patch).unwrap_err();
    assert!(unknown.contains("undefined field 'nope'"), "{unknown}");
}

struct Types(Arc<ObjectType>);

impl TypeProvider for Types {
    fn object_type(&self, name: &str) -> Option<Arc<ObjectType>> {
        (name == self.0.name()).then(|| self.0.clone())
    }
}

#[test]
fn a_provider_brings_message_types() {
    let config = ObjectType::new("example.Config").field("limit", Type::Int).field("a-b", Type::String);
    let env = Environment::kubernetes().with_types(Arc::new(Types(Arc::new(config))));
    let program = env.compile("example.Config{limit: 3, a__dash__b: 'x'}", &[]).unwrap();
    let value = program.eval(&Activation::new(), &mut Budget::new(REQUEST_BUDGET)).unwrap().to_value();
    assert_eq!(value, Ok(object!({ "a-b": "x", "limit": 3 })));
    let limit = env.compile("example.Config{limit: 3}.limit + 1", &[Type::Int]).unwrap();
    let value = limit.eval(&Activation::new(), &mut Budget::new(REQUEST_BUDGET)).unwrap().to_value();
    assert_eq!(value, Ok(Value::from(4)));
}

#[test]
fn field_names_are_escaped_as_identifiers() {
    for (name, escaped) in [
        ("a", Some("a")),
        ("a-b", Some("a__dash__b")),
        ("a.b/c", Some("a__dot__b__slash__c")),
        ("a__b", Some("a__underscores__b")),
        ("a_b", Some("a_b")),
        ("namespace", Some("__namespace__")),
        ("true", Some("__true__")),
        ("namespaces", Some("namespaces")),
        ("1a", None),
        ("a b", None),
        ("é", None),
        ("", None),
    ] {
        assert_eq!(escaping::escape(name).as_deref(), escaped, "{name}");
        if let Some(escaped) = escaped {
            assert_eq!(escaping::unescape(escaped).as_deref(), Some(name), "{escaped}");
        }
    }
    assert_eq!(escaping::unescape("a__nope__b"), None);
}

#[test]
fn unbound_variables_fail_only_when_they_are_read() {
    let env = Environment::kubernetes().variable("params", Type::Dyn).variable("object", Type::Dyn);
    let program = env.compile("true || params.x == 1", &[Type::Bool]).unwrap();
    let run = |p: &ironkeel_expr::Program| {
        let result = p.eval(&Activation::new(), &mut Budget::new(REQUEST_BUDGET)).map(|v| v.as_bool());
        result.map_err(|e| e.to_string())
    };
    assert_eq!(run(&program), Ok(Some(true)));
    let program = env.compile("params.x == 1", &[Type::Bool]).unwrap();
    assert_eq!(run(&program), Err("no such attribute(s): params".into()));
}
