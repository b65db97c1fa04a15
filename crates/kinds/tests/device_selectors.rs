//! CEL selectors of device classes: what type-checks, and what costs too much. Each answer was
//! upstream's to the same expression.
#![allow(clippy::unwrap_used)]

use ironkeel_kinds::kind;
use ironkeel_object::object;

const NESTED: &str =
    "device.attributes.all(a, device.attributes.all(b, device.attributes.all(c, device.attributes.all(d, a == b))))";

fn refusal(expression: &str) -> String {
    let class = object!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": { "name": "c" },
        "spec": { "selectors": [{ "cel": { "expression": expression } }] },
    });
    let errors = kind("resource.k8s.io", "v1", "deviceclasses").unwrap().hooks.validate(&class);
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn selectors_see_the_device_and_are_limited_in_cost() {
    for fine in [
        "device.driver == 'a' && device.allowMultipleAllocations",
        "device.attributes['a.b'].x",
        "device.attributes['a.b'].x.contains('a')",
        "device.capacity['a.b'].mem.compareTo(quantity('1Gi')) >= 0",
        "semver('1.2.3').isGreaterThan(device.attributes['a'].v)",
        "cel.bind(d, device.attributes['a.b'], d.x && d.y)",
        "device.attributes['a'].?x.orValue('a') == 'b'",
    ] {
        assert_eq!(refusal(fine), "", "{fine}");
    }
    for (expression, detail) in [
        ("1", "must evaluate to bool or the unknown type, not int"),
        ("device.capacity['a.b'].mem", "must evaluate to bool or the unknown type, not kubernetes.Quantity"),
        ("device.foo", "undefined field 'foo'"),
        ("device.attributes['a'].x.includes(1)", "undeclared reference to 'includes'"),
        (NESTED, "spec.selectors[0].cel.expression: Forbidden: too complex, exceeds cost limit"),
    ] {
        let told = refusal(expression);
        assert!(told.contains(detail), "{expression}: {told}");
    }
}
