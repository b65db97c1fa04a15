//! What expressions mean: values, errors and types, by table.
#![allow(clippy::unwrap_used)]

use ironkeel_expr::{Activation, Budget, CompileError, Environment, ObjectType, REQUEST_BUDGET, Type};
use ironkeel_object::{Value, object};

fn pod() -> Value {
    object!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web-1",
            "namespace": "prod",
            "labels": { "app": "web", "app.kubernetes.io/name": "web" },
            "annotations": { "empty": "" }
        },
        "spec": {
            "replicas": 3,
            "ratio": 0.5,
            "hostNetwork": false,
            "nothing": null,
            "containers": [
                { "name": "a", "image": "registry.example.com/a:1", "ports": [80, 443] },
                { "name": "b", "image": "docker.io/b", "securityContext": { "privileged": true } }
            ],
            "words": ["pear", "apple", "fig"],
            "numbers": [3, 1, 2]
        }
    })
}

fn typed() -> Value {
    object!({
        "name": "x",
        "minReplicas": 2,
        "weight": 1,
        "created": "2024-05-06T07:08:09Z",
        "day": "2024-05-06",
        "timeout": "90s",
        "blob": "aGVsbG8=",
        "port": "80%",
        "namespace": "kube-system",
        "a-b": "dash",
        "tags": ["x", "y"],
        "ports": [{ "port": 80, "protocol": "TCP" }, { "port": 53, "protocol": "UDP" }],
        "limits": { "cpu": "1", "memory": "1Gi" }
    })
}

fn typed_schema() -> Value {
    object!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 10 },
            "minReplicas": { "type": "integer" },
            "maxReplicas": { "type": "integer" },
            "weight": { "type": "number" },
            "created": { "type": "string", "format": "date-time" },
            "day": { "type": "string", "format": "date" },
            "timeout": { "type": "string", "format": "duration" },
            "blob": { "type": "string", "format": "byte" },
            "port": { "x-kubernetes-int-or-string": true },
            "namespace": { "type": "string" },
            "a-b": { "type": "string" },
            "tags": { "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "string" } },
            "ports": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {
                    "type": "object",
                    "properties": { "port": { "type": "integer" }, "protocol": { "type": "string" } }
                }
            },
            "limits": { "type": "object", "additionalProperties": { "type": "string" } }
        }
    })
}

fn env() -> Environment {
    let schema = ironkeel_expr::DeclType::from_structural(&typed_schema(), false).unwrap();
    let request = ObjectType::new("kubernetes.AdmissionRequest")
        .field("name", Type::String)
        .field("operation", Type::String)
        .field("dryRun", Type::Bool);
    Environment::kubernetes()
        .with_bindings()
        .variable("object", Type::Dyn)
        .variable("oldObject", Type::Dyn)
        .variable("request", Type::object(request))
        .variable("self", schema.cel_type())
        .variable("old", Type::optional(schema.cel_type()))
}

/// The result as CEL writes it, or the error.
fn run(source: &str) -> String {
    let program = match env().compile(source, &[]) {
        Ok(program) => program,
        Err(e) => return e.to_string(),
    };
    let (object, typed, none) = (pod(), typed(), Value::Null);
    let request = object!({ "name": "web-1", "operation": "CREATE" });
    let mut activation = Activation::new();
    activation.bind("object", &object).bind("oldObject", &none).bind("request", &request);
    activation.bind("self", &typed).bind_optional("old", None);
    let mut budget = Budget::new(REQUEST_BUDGET);
    let value = match program.eval(&activation, &mut budget) {
        Ok(value) => value,
        Err(e) => return format!("error: {e}"),
    };
    // `%s` writes everything that a list may hold, with text in quotes.
    let shown = env().variable("v", Type::list(Type::Dyn)).compile("'%s'.format([v])", &[Type::String]).unwrap();
    let mut activation = Activation::new();
    activation.bind_val("v", vec![value.clone()].into());
    match shown.eval(&activation, &mut Budget::new(REQUEST_BUDGET)) {
        Ok(text) => {
            let text = text.as_str().unwrap();
            text[1..text.len() - 1].to_owned()
        }
        Err(_) => format!("{value:?}"),
    }
}

fn check(table: &[(&str, &str)]) {
    let wrong: Vec<String> = table
        .iter()
        .filter_map(|(source, expected)| {
            let got = run(source);
            (got != *expected).then(|| format!("{source}\n   wanted {expected}\n   got    {got}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

/// The first line of the error.
fn check_refused(table: &[(&str, &str)]) {
    for (source, expected) in table {
        let got = env().compile(source, &[]).map(|p| p.output_type().to_string());
        let got = got.map_err(|e| e.to_string().lines().next().unwrap_or_default().to_owned());
        assert_eq!(got, Err((*expected).to_owned()), "{source}");
    }
}

#[test]
fn literals_and_operators() {
    check(&[
        ("1", "1"),
        ("-1", "-1"),
        ("0x1F", "31"),
        ("-0x10", "-16"),
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("18446744073709551615u", "18446744073709551615"),
        ("1.5", "1.500000"),
        ("1e3", "1000.000000"),
        (".5 + 0.25", "0.750000"),
        ("true", "true"),
        ("null", "null"),
        ("'a'", "\"a\""),
        ("\"a\\n\\x41\\u00e9\"", "\"a\\nAé\""),
        ("r'a\\n' == 'a\\\\n'", "true"),
        ("'''a\n'b' c'''", "\"a\\n'b' c\""),
        ("b'ab\\xff'.size()", "3"),
        ("b'\\303\\277' == bytes('ÿ')", "true"),
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),
        ("-7 % 3", "-1"),
        ("7.0 / 2.0", "3.500000"),
        ("5u - 3u", "2"),
        ("3u - 5u", "error: unsigned integer overflow"),
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("1 / 0", "error: division by zero"),
        ("1 % 0", "error: modulus by zero"),
        ("1.0 / 0.0 > 1e300", "true"),
        ("'a' + 'b'", "\"ab\""),
        ("[1] + [2, 3]", "[1, 2, 3]"),
        ("b'a' + b'b' == b'ab'", "true"),
        ("!true", "false"),
        ("!!true", "true"),
        ("--1", "1"),
        ("- 1", "-1"),
        ("1 < 2 && 2 <= 2", "true"),
    ]);
    check(&[
        ("dyn(1) == 1.0", "true"),
        ("dyn(1) == 1u", "true"),
        ("1 < 1.5", "true"),
        ("2u > 1", "true"),
        ("-1 < 0u", "true"),
        ("1 in [1, 2]", "true"),
        ("3 in [1, 2]", "false"),
        ("'a' in {'a': 1}", "true"),
        ("dyn(1.0) in [1, 2]", "true"),
        ("[1, 2] == [1, 2]", "true"),
        ("{'a': 1} == {'a': 1}", "true"),
        ("{'a': 1} != {'a': 2}", "true"),
        ("{1: 'a', 2: 'b'}[2]", "\"b\""),
        ("{'a': 1}.a", "1"),
        ("{'a': 1}.b", "error: no such key: b"),
        ("{'a': 1}['b']", "error: no such key: b"),
        ("[1, 2][1]", "2"),
        ("[1, 2][5]", "error: index out of bounds: 5"),
        ("[1, 2][-1]", "error: index out of bounds: -1"),
        ("{'a': 1, 'a': 2}", "{\"a\":2}"),
        ("true ? 1 : 2", "1"),
        ("false ? 1 : true ? 2 : 3", "2"),
        ("true || 1 / 0 > 1", "true"),
        ("1 / 0 > 1 || true", "true"),
        ("false && 1 / 0 > 1", "false"),
        ("1 / 0 > 1 && false", "false"),
        ("1 / 0 > 1 && true", "error: division by zero"),
        ("1 / 0 > 1 || false", "error: division by zero"),
        ("true // comment", "true"),
        ("'a' < 'b'", "true"),
        ("true > false", "true"),
        ("type(1) == int", "true"),
        ("type('') == string && type([]) == list && type({}) == map", "true"),
        ("type(type(1)) == type", "true"),
        ("type(null) == null_type", "true"),
        ("type(duration('1s')) == google.protobuf.Duration", "true"),
        ("type(ip('::1')) == net.IP", "true"),
    ]);
}

#[test]
fn conversions() {
    check(&[
        ("int('42')", "42"),
        ("int(3.9)", "3"),
        ("int(-3.9)", "-3"),
        ("int(5u)", "5"),
        ("int('x')", "error: type conversion error from 'string' to 'int'"),
        ("int(1e19)", "error: integer overflow"),
        ("uint(5) == 5u", "true"),
        ("uint(-1)", "error: unsigned integer overflow"),
        ("double('1.5')", "1.500000"),
        ("double(2)", "2.000000"),
        ("string(1)", "\"1\""),
        ("string(1.5)", "\"1.5\""),
        ("string(1e30)", "\"1e+30\""),
        ("string(true)", "\"true\""),
        ("string(b'abc')", "\"abc\""),
        ("string(duration('90m'))", "\"5400s\""),
        ("string(timestamp('2024-01-02T03:04:05.5Z'))", "\"2024-01-02T03:04:05.5Z\""),
        ("bool('true')", "true"),
        ("bool('maybe')", "error: type conversion error from 'string' to 'bool'"),
        ("bytes('é').size()", "2"),
        ("size('é')", "1"),
        ("size([1, 2, 3])", "3"),
        ("{'a': 1}.size()", "1"),
        ("int(timestamp('1970-01-01T00:01:00Z'))", "60"),
        ("timestamp(60) == timestamp('1970-01-01T00:01:00Z')", "true"),
        ("dyn('a') == 1", "false"),
    ]);
}

#[test]
fn times() {
    check(&[
        ("timestamp('2024-05-06T07:08:09.123Z').getFullYear()", "2024"),
        ("timestamp('2024-05-06T07:08:09.123Z').getMonth()", "4"),
        ("timestamp('2024-05-06T07:08:09.123Z').getDate()", "6"),
        ("timestamp('2024-05-06T07:08:09.123Z').getDayOfMonth()", "5"),
        ("timestamp('2024-05-06T07:08:09.123Z').getDayOfYear()", "126"),
        ("timestamp('2024-05-06T07:08:09.123Z').getDayOfWeek()", "1"),
        ("timestamp('2024-05-06T07:08:09.123Z').getHours()", "7"),
        ("timestamp('2024-05-06T07:08:09.123Z').getMinutes()", "8"),
        ("timestamp('2024-05-06T07:08:09.123Z').getSeconds()", "9"),
        ("timestamp('2024-05-06T07:08:09.123Z').getMilliseconds()", "123"),
        ("timestamp('2024-05-06T23:08:09Z').getDate('+02:00')", "7"),
        ("timestamp('2024-05-06T01:08:09Z').getHours('-02:30')", "22"),
        ("timestamp('2024-01-01T00:00:00Z') + duration('1h') == timestamp('2024-01-01T01:00:00Z')", "true"),
        ("timestamp('2024-01-01T01:00:00Z') - timestamp('2024-01-01T00:00:00Z') == duration('1h')", "true"),
        ("duration('1h') + duration('30m')", "duration(\"5400s\")"),
        ("duration('1h30m').getMinutes()", "90"),
        ("duration('90s').getSeconds()", "90"),
        ("duration('1m') < duration('61s')", "true"),
        ("timestamp('9999-12-31T23:59:59Z') + duration('1s')", "error: timestamp overflow"),
        ("timestamp('2024-01-01T00:00:00Z').getHours('Nowhere/City')", "error: unknown time zone Nowhere/City"),
    ]);
}

#[test]
fn data_is_read_in_place() {
    check(&[
        ("object.metadata.name", "\"web-1\""),
        ("object.metadata['name']", "\"web-1\""),
        ("object.spec.replicas + 1", "4"),
        ("object.spec.ratio * 2.0", "1.000000"),
        ("object.spec.replicas == 3.0", "true"),
        ("object.spec.replicas <= 5", "true"),
        ("type(object.spec.replicas) == int", "true"),
        ("object.spec.nothing == null", "true"),
        ("oldObject == null", "true"),
        ("oldObject.metadata.name", "error: no such key: metadata"),
        ("has(object.spec.replicas)", "true"),
        ("has(object.spec.nope)", "false"),
        ("has(object.nope.nope)", "error: no such key: nope"),
        ("object.nope", "error: no such key: nope"),
        ("'app' in object.metadata.labels", "true"),
        ("object.metadata.labels['app.kubernetes.io/name']", "\"web\""),
        ("object.metadata.labels.`app.kubernetes.io/name`", "\"web\""),
        ("has(object.metadata.labels.`app.kubernetes.io/name`)", "true"),
        ("object.spec.containers[1].securityContext.privileged", "true"),
        ("object.spec.containers[0].ports[1]", "443"),
        ("size(object.spec.containers)", "2"),
        ("object.spec.containers.all(c, c.image.startsWith('registry.example.com/'))", "false"),
        ("object.spec.containers.exists(c, has(c.securityContext) && c.securityContext.privileged)", "true"),
        ("object.spec.containers.filter(c, c.name == 'b').map(c, c.image)", "[\"docker.io/b\"]"),
        ("object.metadata.labels.all(k, k.startsWith('app'))", "true"),
        ("object.metadata.labels.exists(k, v, k == 'app' && v == 'web')", "true"),
        ("object.spec.replicas + 'x'", "error: no such overload"),
        ("request.operation == 'CREATE'", "true"),
        ("has(request.dryRun)", "false"),
        ("request.dryRun", "error: no such key: dryRun"),
        ("object.?spec.?replicas.orValue(0)", "3"),
        ("object.?spec.?nope.orValue(7)", "7"),
        ("object.?nope.?deeper.hasValue()", "false"),
        ("object.spec.?containers[0].?name.value()", "\"a\""),
        ("object.spec.containers[?7].hasValue()", "false"),
        ("old.hasValue()", "false"),
        ("old.name.orValue('none')", "\"none\""),
    ]);
}

#[test]
fn typed_data_is_what_the_schema_says() {
    check(&[
        ("self.minReplicas", "2"),
        ("has(self.maxReplicas)", "false"),
        ("self.maxReplicas", "error: no such key: maxReplicas"),
        ("type(self.weight) == double", "true"),
        ("self.weight + 0.5", "1.500000"),
        ("self.created.getFullYear()", "2024"),
        ("self.day == timestamp('2024-05-06T00:00:00Z')", "true"),
        ("self.timeout == duration('1m30s')", "true"),
        ("self.blob == b'hello'", "true"),
        ("type(self.port) == string", "true"),
        ("self.port == 80", "false"),
        ("self.__namespace__", "\"kube-system\""),
        ("self.a__dash__b", "\"dash\""),
        ("self.tags == ['y', 'x']", "true"),
        ("self.tags == ['y', 'z']", "false"),
        ("(self.tags + ['x', 'z']).size()", "3"),
        ("self.ports == self.ports.map(p, p)", "true"),
        ("self.ports.map(p, p) == self.ports", "true"),
        ("(self.ports + self.ports.filter(p, p.port == 80)).size()", "2"),
        ("self.ports.all(p, p.port > 0)", "true"),
        ("self.ports.exists_one(p, p.protocol == 'UDP')", "true"),
        ("self.limits.all(k, quantity(self.limits[k]).isGreaterThan(quantity('0')))", "true"),
        ("self.limits['memory']", "\"1Gi\""),
    ]);
}

#[test]
fn macros() {
    check(&[
        ("[1, 2, 3].all(x, x > 0)", "true"),
        ("[1, 2, 3].all(x, x > 1)", "false"),
        ("[].all(x, x > 1)", "true"),
        ("[].exists(x, x > 1)", "false"),
        ("[1, 0].exists(x, 1 / x == 1)", "true"),
        ("[0, 1].exists(x, 1 / x == 1)", "true"),
        ("[0, 2].exists(x, 1 / x == 1)", "error: division by zero"),
        ("[0, 2].all(x, 1 / x == 5)", "false"),
        ("[1, 2, 2].exists_one(x, x == 1)", "true"),
        ("[1, 2, 2].exists_one(x, x == 2)", "false"),
        ("[1, 2].existsOne(x, x == 2)", "true"),
        ("[1, 2].map(x, x * 2)", "[2, 4]"),
        ("[1, 2, 3].map(x, x > 1, x * 2)", "[4, 6]"),
        ("[1, 2, 3].filter(x, x > 1)", "[2, 3]"),
        ("{'a': 1, 'b': 2}.map(k, k)", "[\"a\", \"b\"]"),
        ("{'a': 1, 'b': 2}.filter(k, k != 'a')", "[\"b\"]"),
        ("[[1, 2], [3]].map(l, l.map(x, x + 1))", "[[2, 3], [4]]"),
        ("[1, 2].map(x, [3, 4].map(y, x * y))", "[[3, 4], [6, 8]]"),
        ("[1, 2].map(x, [x].map(x, x + 10))", "[[11], [12]]"),
        ("['a', 'b'].all(i, v, i < 2 && v != 'c')", "true"),
        ("{'a': 1}.exists(k, v, k == 'a' && v == 1)", "true"),
        ("['a', 'b'].existsOne(i, v, i == 1)", "true"),
        ("['a', 'b'].transformList(i, v, string(i) + v)", "[\"0a\", \"1b\"]"),
        ("['a', 'b'].transformList(i, v, i > 0, v)", "[\"b\"]"),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v * 10)", "{\"a\":10, \"b\":20}"),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v)", "{\"b\":2}"),
        ("['x', 'y'].transformMap(i, v, v)[1]", "\"y\""),
        ("{'a': 'x'}.transformMapEntry(k, v, {v: k})", "{\"x\":\"a\"}"),
        ("[1, 1].transformMapEntry(i, v, {v: i})", "error: insert failed: key 1 already exists"),
        ("cel.bind(x, 1 + 1, x * x)", "4"),
        ("cel.bind(x, 1 / 0, true)", "true"),
        ("cel.bind(x, 2, cel.bind(y, x + 1, x * y))", "6"),
        ("optional.of(2).optMap(x, x + 1).value()", "3"),
        ("optional.none().optMap(x, x).hasValue()", "false"),
        ("optional.of(2).optFlatMap(x, optional.of(x * 2)).value()", "4"),
        ("optional.of(1).or(optional.of(2)).value()", "1"),
        ("optional.none().or(optional.of(2)).value()", "2"),
        ("optional.none().value()", "error: optional.none() dereference"),
        ("optional.ofNonZeroValue('').hasValue()", "false"),
        ("optional.of(1) == optional.of(1)", "true"),
        ("[1, ?optional.none(), ?optional.of(3)]", "[1, 3]"),
        ("{'a': 1, ?'b': optional.none()}.size()", "1"),
        ("{?'b': {'x': 2}[?'x']}.b", "2"),
        ("[optional.of(1), optional.none()].unwrapOpt()", "[1]"),
        ("[1, 2].first().value() + [1, 2].last().value()", "3"),
        ("[].first().hasValue()", "false"),
    ]);
}

#[test]
fn strings() {
    check(&[
        ("'hello'.contains('ell')", "true"),
        ("'hello'.startsWith('he') && 'hello'.endsWith('lo')", "true"),
        ("'hello'.matches('^h.*o$')", "true"),
        ("matches('hello', 'l+')", "true"),
        ("'hello'.matches('^l')", "false"),
        ("'a1b22'.find('[0-9]+')", "\"1\""),
        ("'a1b22'.findAll('[0-9]+')", "[\"1\", \"22\"]"),
        ("'a1b22'.findAll('[0-9]+', 1)", "[\"1\"]"),
        ("'x'.matches(object.metadata.name + '(')", "error: error parsing regexp: unclosed group: `web-1(`"),
        ("'tacocat'.charAt(3)", "\"o\""),
        ("'tacocat'.charAt(7)", "\"\""),
        ("'tacocat'.charAt(8)", "error: index out of range: 8"),
        ("'hello mellow'.indexOf('ello')", "1"),
        ("'hello mellow'.indexOf('ello', 2)", "7"),
        ("'hello mellow'.indexOf('jello')", "-1"),
        ("'hello mellow'.indexOf('', 2)", "2"),
        ("'hello mellow'.lastIndexOf('ello')", "7"),
        ("'hello mellow'.lastIndexOf('ello', 6)", "1"),
        ("'hello mellow'.lastIndexOf('')", "12"),
        ("'TacoCat'.lowerAscii()", "\"tacocat\""),
        ("'TacoCÆt'.upperAscii()", "\"TACOCÆT\""),
        ("'hello hello'.replace('he', 'we')", "\"wello wello\""),
        ("'hello hello'.replace('he', 'we', 1)", "\"wello hello\""),
        ("'ab'.replace('', '_')", "\"_a_b_\""),
        ("'a,b,c'.split(',')", "[\"a\", \"b\", \"c\"]"),
        ("'a,b,c'.split(',', 2)", "[\"a\", \"b,c\"]"),
        ("'abc'.split('')", "[\"a\", \"b\", \"c\"]"),
        ("'a,b'.split(',', 0)", "[]"),
        ("'tacocat'.substring(4)", "\"cat\""),
        ("'tacocat'.substring(0, 4)", "\"taco\""),
        ("'ta©o©αT'.substring(2, 5)", "\"©o©\""),
        ("'tacocat'.substring(9)", "error: index out of range: 9"),
        ("'tacocat'.substring(2, 1)", "error: invalid substring range. start: 2, end: 1"),
        ("'  \\ttrim\\n  '.trim()", "\"trim\""),
        ("['x', 'y'].join('-')", "\"x-y\""),
        ("['x', 'y'].join()", "\"xy\""),
        ("strings.quote('a\"b')", "\"\\\"a\\\\\\\"b\\\"\""),
        ("'%s is %d'.format(['x', 3])", "\"x is 3\""),
        ("'%s %s'.format([[1, 'a'], {'k': true}])", "\"[1, \\\"a\\\"] {\\\"k\\\":true}\""),
        ("'%.2f %e %b %x %X %o %%'.format([1.234, 1234.5, 5, 255, 255, 8])", "\"1.23 1.234500e+03 101 ff FF 10 %\""),
        (
            "'%d'.format(['x'])",
            "error: error during formatting: decimal clause can only be used on integers, was given string",
        ),
        ("jsonpatch.escapeKey('a/b~c')", "\"a~1b~0c\""),
    ]);
}

#[test]
fn lists_and_sets() {
    check(&[
        ("[1, 2, 2].isSorted()", "true"),
        ("[2, 1].isSorted()", "false"),
        ("object.spec.words.isSorted()", "false"),
        ("[1, 2, 3].sum()", "6"),
        ("[1.5, 2.5].sum()", "4.000000"),
        ("object.spec.numbers.sum()", "6"),
        ("[3, 1].min()", "1"),
        ("[3, 1].max()", "3"),
        ("[].min()", "error: min called on empty list"),
        ("[1, 2, 2].indexOf(2)", "1"),
        ("[1, 2, 2].lastIndexOf(2)", "2"),
        ("['a'].indexOf('b')", "-1"),
        ("[1, 2, 3, 4].slice(1, 3)", "[2, 3]"),
        ("[1].slice(0, 2)", "error: cannot slice(0, 2), list is length 1"),
        ("[[1], [2, 3]].flatten()", "[1, 2, 3]"),
        ("[[[1]], [[2], [3]]].flatten(2)", "[1, 2, 3]"),
        ("[3, 1, 2].sort()", "[1, 2, 3]"),
        ("['b', 'a'].sort()", "[\"a\", \"b\"]"),
        ("object.spec.containers.sortBy(c, c.image).map(c, c.name)", "[\"b\", \"a\"]"),
        ("lists.range(3)", "[0, 1, 2]"),
        ("[1, 2, 3].reverse()", "[3, 2, 1]"),
        ("[1, 2, 1].distinct()", "[1, 2]"),
        ("sets.contains([1, 2, 3], [2, 3])", "true"),
        ("sets.contains([1], [2])", "false"),
        ("sets.equivalent([1, 2, 1], [2, 1])", "true"),
        ("sets.intersects([1, 2], [2, 3])", "true"),
    ]);
}

#[test]
fn kubernetes_libraries() {
    check(&[
        ("quantity('1Gi').isGreaterThan(quantity('1000Mi'))", "true"),
        ("quantity('500m').compareTo(quantity('0.5'))", "0"),
        ("quantity('50k').add(20).compareTo(quantity('50020'))", "0"),
        ("quantity('50k').sub(quantity('20k')).asInteger()", "30000"),
        ("quantity('1500m').isInteger()", "false"),
        ("quantity('1500m').asInteger()", "error: cannot convert value to integer"),
        ("quantity('1500m').asApproximateFloat()", "1.500000"),
        ("sign(quantity('-1'))", "-1"),
        ("isQuantity('200K')", "false"),
        ("isQuantity('1.3Gi')", "true"),
        ("quantity('1') == quantity('1000m')", "true"),
        ("ip('192.168.0.1').family()", "4"),
        ("ip('::1').isLoopback()", "true"),
        ("isIP('1.2.3.4.5')", "false"),
        ("ip.isCanonical('2001:DB8::1')", "false"),
        ("ip('fe80::1').isLinkLocalUnicast() && ip('8.8.8.8').isGlobalUnicast()", "true"),
        ("string(ip('2001:0db8::1'))", "\"2001:db8::1\""),
        ("cidr('192.168.0.0/24').containsIP('192.168.0.7')", "true"),
        ("cidr('192.168.0.0/24').containsIP(ip('192.168.1.7'))", "false"),
        ("cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')", "true"),
        ("cidr('10.1.0.0/16').containsCIDR(cidr('10.0.0.0/8'))", "false"),
        ("cidr('192.168.1.5/24').ip() == ip('192.168.1.5')", "true"),
        ("string(cidr('192.168.1.5/24').masked())", "\"192.168.1.0/24\""),
        ("cidr('::1/128').prefixLength()", "128"),
        ("isCIDR('10.0.0.0/33')", "false"),
        ("url('https://user@example.com:8080/a b?x=1&x=2&y=%20z#f').getHost()", "\"example.com:8080\""),
        ("url('https://example.com:80/').getHostname()", "\"example.com\""),
        ("url('https://[::1]:80/').getPort()", "\"80\""),
        ("url('https://[::1]:80/').getHostname()", "\"::1\""),
        ("url('https://example.com/a b').getEscapedPath()", "\"/a%20b\""),
        ("url('https://example.com/?x=1&x=2&y=%20z').getQuery()", "{\"x\":[\"1\", \"2\"], \"y\":[\" z\"]}"),
        ("url('/path').getScheme()", "\"\""),
        ("isURL('not a url')", "false"),
        ("isURL('https://a:x/')", "false"),
        ("semver('1.2.3').isLessThan(semver('1.10.0'))", "true"),
        ("semver('1.0.0-rc.1').compareTo(semver('1.0.0'))", "-1"),
        ("semver('1.2.3').minor()", "2"),
        ("isSemver('v1.0')", "false"),
        ("semver('v01.2', true) == semver('1.2.0')", "true"),
        ("format.dns1123Label().validate('my-name').hasValue()", "false"),
        ("format.dns1123Label().validate('a.b').value()", "[\"must not contain dots\"]"),
        ("format.named('uuid').value().validate('x').value()", "[\"does not match the UUID format\"]"),
        ("format.named('nope').hasValue()", "false"),
        ("!format.qualifiedName().validate('example.com/name').hasValue()", "true"),
    ]);
}

#[test]
fn mistakes_are_named_where_they_are() {
    check_refused(&[
        ("x", "ERROR: <input>:1:1: undeclared reference to 'x' (in container '')"),
        ("1 + x", "ERROR: <input>:1:5: undeclared reference to 'x' (in container '')"),
        ("foo(1)", "ERROR: <input>:1:4: undeclared reference to 'foo' (in container '')"),
        ("1 + 'a'", "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'"),
        ("1 == 'a'", "ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, string)'"),
        ("1 == 1.0", "ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, double)'"),
        ("self.nope", "ERROR: <input>:1:5: undefined field 'nope'"),
        ("has(self.nope)", "ERROR: <input>:1:4: undefined field 'nope'"),
        (
            "self.minReplicas.startsWith('a')",
            "ERROR: <input>:1:28: found no matching overload for 'startsWith' applied to 'int.(string)'",
        ),
        ("'a'.b", "ERROR: <input>:1:4: type 'string' does not support field selection"),
        (
            "1.all(x, x)",
            "ERROR: <input>:1:1: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'"),
        ("true && 1", "ERROR: <input>:1:9: expected type 'bool' but found 'int'"),
        ("has(self)", "ERROR: <input>:1:5: invalid argument to has() macro"),
        ("[1].all(1, true)", "ERROR: <input>:1:9: argument must be a simple name"),
        ("[1].all(x, x, true)", "ERROR: <input>:1:12: duplicate variable name: x"),
        ("timestamp('x')", "ERROR: <input>:1:11: invalid timestamp argument"),
        ("duration('x')", "ERROR: <input>:1:10: invalid duration argument"),
        ("'a'.matches('(')", "ERROR: <input>:1:13: invalid matches argument"),
        ("9223372036854775808", "ERROR: <input>:1:1: invalid int literal"),
        ("namespace", "ERROR: <input>:1:1: reserved identifier: namespace"),
        ("Object{}", "ERROR: <input>:1:7: undeclared reference to 'Object' (in container '')"),
        ("self.", "ERROR: <input>:1:6: Syntax error: mismatched input '<EOF>' expecting IDENTIFIER"),
        ("(1", "ERROR: <input>:1:3: Syntax error: mismatched input '<EOF>' expecting ')'"),
        ("1 1", "ERROR: <input>:1:3: Syntax error: mismatched input '1' expecting <EOF>"),
        ("a ~ b", "ERROR: <input>:1:3: Syntax error: token recognition error at: '~'"),
    ]);
    let text = env().compile("true &&\n  x", &[]).unwrap_err().to_string();
    assert_eq!(text, "ERROR: <input>:2:3: undeclared reference to 'x' (in container '')\n |   x\n | ..^");
    let two = env().compile("x + y", &[]).unwrap_err().to_string();
    assert_eq!(two.matches("undeclared reference").count(), 2);
}

#[test]
fn the_output_type_is_checked() {
    let env = env();
    let refused = |source: &str, expected: &[Type]| match env.compile(source, expected) {
        Err(CompileError::OutputType(text)) => text,
        other => format!("{other:?}"),
    };
    assert_eq!(refused("1", &[Type::Bool]), "must evaluate to bool but got int");
    assert_eq!(refused("object.x", &[Type::Bool]), "must evaluate to bool but got dyn");
    assert_eq!(refused("1", &[Type::String, Type::Null]), "must evaluate to one of [string null_type] but got int");
    assert_eq!(env.compile("[1].map(x, 'a')", &[]).unwrap().output_type().to_string(), "list(string)");
    assert_eq!(env.compile("{'a': [1u]}", &[]).unwrap().output_type().to_string(), "map(string, list(uint))");
    assert_eq!(env.compile("[]", &[]).unwrap().output_type().to_string(), "list(dyn)");
    assert_eq!(env.compile("object.?a", &[]).unwrap().output_type().to_string(), "optional_type(dyn)");
    let program = env.compile("self.name == 'a' && has(object.spec.x)", &[Type::Bool]).unwrap();
    let names: Vec<String> = program.references().into_iter().collect();
    assert_eq!(names, ["object", "self"]);
    let paths: Vec<String> = program.field_paths().into_iter().collect();
    assert_eq!(paths, ["object.spec.x", "self.name"]);
}
