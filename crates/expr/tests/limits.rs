//! Costs, budgets, estimates, and sources that mean harm.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ironkeel_expr::{
    Activation, Budget, CompileError, DeclType, Environment, EvalError, MAX_SOURCE_CHARS, PER_CALL_LIMIT,
    REQUEST_BUDGET, Type, Val,
};
use ironkeel_object::{Value, object};

fn env() -> Environment {
    Environment::kubernetes().with_bindings().variable("self", Type::Dyn).variable("list", Type::list(Type::Int))
}

fn data() -> (Value, Value) {
    let list: Vec<Value> = (0..100).map(|i: i64| Value::from(i)).collect();
    (object!({ "a": { "b": 1 }, "s": "0123456789", "list": [1, 2, 3] }), Value::from(list))
}

/// What a source costs, whatever comes out of it.
fn cost(source: &str) -> u64 {
    let program = env().compile(source, &[]).unwrap();
    let (data, list) = data();
    let mut activation = Activation::new();
    activation.bind("self", &data).bind("list", &list);
    let mut budget = Budget::new(REQUEST_BUDGET);
    let _ = program.eval(&activation, &mut budget);
    REQUEST_BUDGET - budget.remaining()
}

fn outcome(source: &str) -> Result<(), EvalError> {
    let program = env().compile(source, &[]).unwrap();
    let (data, list) = data();
    let mut activation = Activation::new();
    activation.bind("self", &data).bind("list", &list);
    program.eval(&activation, &mut Budget::new(REQUEST_BUDGET)).map(|_| ())
}

#[test]
fn costs_are_cel_gos() {
    for (source, expected) in [
        ("1", 0),
        ("self", 1),
        ("self.a.b", 3),
        ("has(self.a)", 1),
        ("1 + 2", 1),
        ("self.a.b == 1", 4),
        ("true && self.a.b == 1", 4),
        ("true ? self : self.a", 1),
        ("[1, 2]", 0),
        ("[self]", 11),
        ("{'a': self}", 31),
        ("'abc' == self.s", 3),
        ("self.s.startsWith('0')", 3),
        // Types tell no overload apart, so it is a plain operation.
        ("self.s + self.s", 5),
        ("self.s + '0123456789'", 4),
        ("self.s.contains('12345678901')", 4),
        ("self.s.matches('[0-9]+')", 2 + 2 * 2),
        ("1 in [1, 2, 3]", 0),
        ("1 in self.list", 3),
        ("list.isSorted()", 101),
        ("timestamp('2024-01-01T00:00:00Z')", 0),
        // A turn: the condition (call and accumulator), the step (accumulator and predicate).
        ("[1, 2, 3].all(x, x > 0)", 3 * (2 + 1 + 2) + 1),
        ("[1, 2, 3].map(x, x)", 3 * (1 + 11 + 1) + 1),
        ("quantity('1000000000')", 1),
        ("lists.range(10)", 21),
        ("self.list.distinct()", 2 + 18 + 11),
    ] {
        assert_eq!(cost(source), expected, "{source}");
    }
}

#[test]
fn one_expression_may_not_cost_more_than_its_limit() {
    let nested = "list.all(a, list.all(b, list.all(c, a + b + c >= 0)))";
    assert_eq!(outcome(nested), Err(EvalError::CostLimitExceeded));
    assert_eq!(EvalError::CostLimitExceeded.to_string(), "operation cancelled: actual cost limit exceeded");
    // Neither logic nor macros make up for it.
    assert_eq!(outcome(&format!("{nested} || true")), Err(EvalError::CostLimitExceeded));
    assert_eq!(outcome(&format!("[1].exists(x, {nested}) || true")), Err(EvalError::CostLimitExceeded));
    assert!(cost(nested) <= PER_CALL_LIMIT + 400_000);
    assert_eq!(outcome("lists.range(9223372036854775807)"), Err(EvalError::CostLimitExceeded));
    assert_eq!(outcome("lists.range(100000).distinct()"), Err(EvalError::CostLimitExceeded));
    // 2^30 characters, if nobody looked.
    let doubling =
        (0..30).fold("'x'.replace('x', 'xxxxxxxxxx')".to_owned(), |s, _| format!("{s}.replace('x', 'xxxxxxxxxx')"));
    assert_eq!(outcome(&doubling), Err(EvalError::CostLimitExceeded));
}

#[test]
fn a_budget_is_shared_and_runs_out() {
    let program = env().compile("list.all(x, x >= 0)", &[Type::Bool]).unwrap();
    let (_, list) = data();
    let mut activation = Activation::new();
    activation.bind("list", &list);
    let mut budget = Budget::new(1000);
    assert_eq!(program.eval(&activation, &mut budget).unwrap().as_bool(), Some(true));
    assert_eq!(budget.remaining(), 498);
    let failed = program.eval(&activation, &mut budget).unwrap_err();
    assert_eq!(failed, EvalError::OutOfBudget);
    assert_eq!(
        failed.to_string(),
        "validation failed due to running out of cost budget, no further validation rules will be run"
    );
    assert_eq!(budget.remaining(), 0);
}

#[test]
fn an_interrupt_stops_a_run() {
    let flag = Arc::new(AtomicBool::new(true));
    let program = env().compile("list.all(x, x >= 0)", &[]).unwrap();
    let (_, list) = data();
    let mut activation = Activation::new();
    activation.bind("list", &list);
    let mut budget = Budget::new(REQUEST_BUDGET).interruptible(flag);
    assert_eq!(program.eval(&activation, &mut budget).unwrap_err(), EvalError::Interrupted);
}

fn refused(source: &str) -> String {
    match env().compile(source, &[]) {
        Err(CompileError::Issues(issues)) => issues.issues[0].message.clone(),
        other => format!("{other:?}").chars().take(200).collect(),
    }
}

#[test]
fn deep_and_long_sources_are_refused_without_harm() {
    let deep = "expression recursion limit exceeded: 250";
    let n = 40_000;
    assert_eq!(refused(&format!("{}1{}", "(".repeat(n), ")".repeat(n))), deep);
    assert_eq!(refused(&format!("{}{}", "[".repeat(n), "]".repeat(n))), deep);
    assert_eq!(refused(&format!("self{}", ".a".repeat(n))), deep);
    assert_eq!(refused(&format!("self{}", "[0]".repeat(30_000))), deep);
    assert_eq!(refused(&format!("1{}", "+1".repeat(n))), deep);
    assert_eq!(refused(&"true?1:".repeat(10_000)), deep);
    assert_eq!(refused(&format!("self{}", ".map(x,x)".repeat(10_000))), deep);
    assert_eq!(refused(&"{1:".repeat(20_000)), deep);
    assert_eq!(refused(&"size(".repeat(15_000)), deep);
    let long = format!("'{}'", "x".repeat(MAX_SOURCE_CHARS));
    assert_eq!(refused(&long), "expression code point size exceeds limit: size: 100002, limit 100000");
    // Unary operators nest nothing, and wide logic is one node.
    assert_eq!(outcome(&format!("{}true", "!".repeat(n))), Ok(()));
    assert_eq!(outcome(&format!("{}1", "- ".repeat(n))), Ok(()));
    assert_eq!(outcome(&vec!["true"; 12_000].join(" && ")), Ok(()));
    assert_eq!(outcome(&format!("[{}1]", "1,".repeat(n))), Ok(()));
}

#[test]
fn the_deepest_source_that_is_accepted_runs_on_a_small_stack() {
    let run = || {
        for depth in (1..250).rev().step_by(3) {
            for source in [
                format!("{}1{}", "[".repeat(depth), "]".repeat(depth)),
                format!("{}self.s{}", "dyn(".repeat(depth), ")".repeat(depth)),
                format!("1{}", "+1".repeat(depth)),
                format!("{}true{}", "[1].all(x,".repeat(depth / 3), ")".repeat(depth / 3)),
                format!("{}1{}", "cel.bind(x,1,".repeat(depth), ")".repeat(depth)),
                format!("{}1{}", "true?(".repeat(depth), "):1".repeat(depth)),
                format!("optional.of(1){}", ".optMap(x, x)".repeat(depth)),
            ] {
                if let Ok(program) = env().compile(&source, &[]) {
                    let (data, list) = data();
                    let mut activation = Activation::new();
                    activation.bind("self", &data).bind("list", &list);
                    let _ = program.eval(&activation, &mut Budget::new(REQUEST_BUDGET));
                    let _ = program.estimate(&[]);
                }
            }
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn random_bytes_do_not_panic() {
    let pieces = [
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "self",
        ".a",
        "?",
        ":",
        ",",
        "'x'",
        "\"",
        "'''",
        "1",
        "0x",
        "1u",
        "1e",
        "..",
        "&&",
        "||",
        "!",
        "-",
        "in",
        ".map(x,",
        "has(",
        "cel.bind(",
        "é",
        "`",
        "\\",
        "r'",
        "b'",
        "\n",
        "//",
        " ",
        "==",
        "+",
        "size(",
        ".?",
        "[?",
        "{?",
        "optional.none()",
        ".format([",
        "duration('1h')",
        ".matches('",
    ];
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..20_000 {
        let mut source = String::new();
        for _ in 0..12 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            source.push_str(pieces[(seed % pieces.len() as u64) as usize]);
        }
        if let Ok(program) = env().compile(&source, &[]) {
            let (data, list) = data();
            let mut activation = Activation::new();
            activation.bind("self", &data).bind("list", &list);
            let _ = program.eval(&activation, &mut Budget::new(REQUEST_BUDGET));
        }
    }
}

fn schema() -> Value {
    object!({
        "type": "object",
        "properties": {
            "n": { "type": "integer" },
            "s": { "type": "string", "maxLength": 100 },
            "free": { "type": "string" },
            "list": { "type": "array", "maxItems": 10, "items": { "type": "string", "maxLength": 5 } },
            "wide": { "type": "array", "items": { "type": "array", "items": { "type": "string" } } },
            "map": {
                "type": "object",
                "maxProperties": 7,
                "additionalProperties": { "type": "string", "maxLength": 5 }
            }
        }
    })
}

#[test]
fn estimates_follow_the_bounds_of_the_schema() {
    let schema = DeclType::from_structural(&schema(), false).unwrap();
    let env = Environment::kubernetes().variable("self", schema.cel_type());
    for (source, expected) in [
        ("true", 0),
        ("self.n > 1", 3),
        ("has(self.n)", 1),
        // Four octets a character.
        ("self.s == 'abc'", 3),
        ("self.s.startsWith('abc')", 3),
        ("self.s + self.s == ''", 84),
        ("self.s.matches('^a')", 2 + 41),
        ("self.list.all(x, x == 'a')", 2 + 10 * (2 + 1 + 2) + 1),
        ("self.list.map(x, x).size() > 1", 2 + 10 + 10 * (1 + 1 + 10 + 1) + 1 + 2),
        ("self.map.all(k, k == 'a')", 2 + 7 * (2 + 1 + 1) + 1),
        ("self.n in [1, 2, 3]", 2 + 10 + 3),
        ("self.n == 1 || self.n == 2", 4),
    ] {
        let program = env.compile(source, &[]).unwrap();
        assert_eq!(program.estimate(&[("self", &schema)]).max, expected, "{source}");
    }
    let wide = env.compile("self.wide.all(x, x.all(y, y == self.free))", &[]).unwrap();
    assert!(wide.estimate(&[("self", &schema)]).max > ironkeel_expr::TOTAL_COST_LIMIT);
    // Without a schema nothing is bounded.
    let unbounded = env.compile("self.list.all(x, true)", &[]).unwrap();
    assert_eq!(unbounded.estimate(&[]).max, u64::MAX);
    assert_eq!(schema.property("list").unwrap().max_elements(), Some(10));
    assert_eq!(schema.property("wide").unwrap().items().unwrap().max_elements(), Some(1_048_575));
}

#[test]
fn composed_variables_run_once_and_share_the_budget() {
    let env = env();
    let first = env.compile("list.map(x, x * 2)", &[]).unwrap();
    let env = env.composed("variables", "doubled", first.output_type().clone());
    let second = env.compile("variables.doubled.max()", &[]).unwrap();
    assert_eq!(second.output_type(), &Type::Int);
    let env = env.composed("variables", "largest", second.output_type().clone());
    let broken = env.compile("1 / 0", &[]).unwrap();
    let env = env.composed("variables", "broken", broken.output_type().clone());
    let rule = env.compile("variables.largest == 198 && variables.doubled.size() == 100", &[Type::Bool]).unwrap();
    let failing = env.compile("variables.broken == 1", &[Type::Bool]).unwrap();
    assert!(env.compile("variables.nope", &[]).is_err());
    let (_, list) = data();
    let mut activation = Activation::new();
    activation.bind("list", &list);
    activation.compose("variables", [("doubled", &first), ("largest", &second), ("broken", &broken)]);
    let mut budget = Budget::new(REQUEST_BUDGET);
    assert_eq!(rule.eval(&activation, &mut budget).unwrap().as_bool(), Some(true));
    let spent = REQUEST_BUDGET - budget.remaining();
    assert_eq!(rule.eval(&activation, &mut budget).unwrap().as_bool(), Some(true));
    assert!(REQUEST_BUDGET - budget.remaining() - spent < 20);
    assert_eq!(
        failing.eval(&activation, &mut budget).unwrap_err().to_string(),
        "composited variable \"broken\" fails to evaluate: division by zero"
    );
    // A variable that is bound to read itself ends in an error.
    let loop_env = Environment::kubernetes().composed("variables", "x", Type::Int);
    let own = loop_env.compile("variables.x + 1", &[]).unwrap();
    let mut activation = Activation::new();
    activation.compose("variables", [("x", &own)]);
    assert!(own.eval(&activation, &mut budget).unwrap_err().to_string().contains("refers to itself"));
}

#[test]
fn a_long_chain_of_composed_variables_ends_in_an_error_not_in_an_overflow() {
    let mut env = Environment::kubernetes();
    let mut programs = Vec::new();
    for i in 0..2000 {
        let source = if i == 0 { "1".to_owned() } else { format!("[[[[variables.v{} + 1]]]][0][0][0][0]", i - 1) };
        let program = env.compile(&source, &[]).unwrap();
        env = env.composed("variables", &format!("v{i}"), program.output_type().clone());
        programs.push((format!("v{i}"), program));
    }
    let last = env.compile("variables.v1999", &[]).unwrap();
    let run = move || {
        let mut activation = Activation::new();
        activation.compose("variables", programs.iter().map(|(n, p)| (n.as_str(), p)));
        let mut budget = Budget::new(REQUEST_BUDGET);
        last.eval(&activation, &mut budget).map(|v| matches!(v, Val::Int(_))).map_err(|e| e.to_string())
    };
    let result = std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
    assert!(result.is_err_and(|e| e.contains("recursion limit")));
}
