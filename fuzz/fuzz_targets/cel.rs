//! CEL: what compiles ends within its budget, gives the same answer twice, and is never worth more than it was
//! charged. The first line may be the data (JSON), the rest is the expression.
#![no_main]

use std::sync::{Arc, LazyLock};

use ironkeel_codec::parse_json;
use ironkeel_expr::{Activation, Budget, DeclType, Environment, Program, Type};
use ironkeel_object::{Value, object};
use libfuzzer_sys::fuzz_target;

/// What one expression may cost: a tenth of a call's limit, so that most inputs are quick.
const BUDGET: u64 = 100_000;

struct Fixture {
    schema: Option<DeclType>,
    environments: Vec<Environment>,
    data: Value,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let schema = object!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 10 },
            "n": { "type": "integer" },
            "d": { "type": "number" },
            "t": { "type": "string", "format": "date-time" },
            "u": { "type": "string", "format": "duration" },
            "b": { "type": "string", "format": "byte" },
            "s": { "type": "array", "items": { "type": "string" }, "maxItems": 5 },
            "m": { "type": "object", "additionalProperties": { "type": "integer" } },
            "o": { "type": "object", "properties": { "x": { "type": "boolean" } } },
            "p": { "x-kubernetes-int-or-string": true }
        }
    });
    let schema = DeclType::from_structural(&schema, true);
    let own = schema.as_ref().map_or(Type::Dyn, DeclType::cel_type);
    let data = object!({
        "name": "x", "n": 2, "d": 1.5, "t": "2024-05-06T07:08:09Z", "u": "90s", "b": "aGVsbG8=",
        "s": ["a", "b"], "m": { "k": 1 }, "o": { "x": true }, "p": "80%"
    });
    Fixture {
        environments: vec![
            Environment::kubernetes().variable("self", own.clone()).variable("oldSelf", own),
            Environment::kubernetes().variable("self", Type::Dyn).with_patch_types(),
        ],
        schema,
        data,
    }
});

fn run(program: &Program, data: &Value) -> (String, u64) {
    let mut activation = Activation::new();
    activation.bind("self", data);
    activation.bind("oldSelf", data);
    let mut budget = Budget::new(BUDGET);
    let answer = match program.eval(&activation, &mut budget) {
        Ok(value) => {
            let _ = value.type_of();
            format!("{:?}", value.to_value())
        }
        Err(error) => error.to_string(),
    };
    (answer, budget.remaining())
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (value, source) = match text.split_once('\n').map(|(first, rest)| (parse_json(first.as_bytes()), rest)) {
        Some((Ok(value), rest)) => (Some(value), rest),
        _ => (None, text),
    };
    let fixture = &*FIXTURE;
    for (i, environment) in fixture.environments.iter().enumerate() {
        let Ok(program) = environment.compile(source, &[]) else { continue };
        let _ = (program.references(), program.field_paths(), program.output_type().to_string());
        if let Some(schema) = fixture.schema.as_ref().filter(|_| i == 0) {
            let cost = program.estimate(&[("self", schema), ("oldSelf", schema)]);
            assert!(cost.min <= cost.max, "{source:?}: {cost:?}");
        }
        // Typed data are what the schema says; the fuzzer's own go where anything is allowed.
        let data = value.as_ref().filter(|_| i == 1).unwrap_or(&fixture.data);
        let program = Arc::new(program);
        assert_eq!(run(&program, data), run(&program, data), "{source:?} twice");
    }
});
