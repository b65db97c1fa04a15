//! CEL selectors of requests and classes: what they see, and what they may cost. The model is
//! upstream's dynamic-resource-allocation/cel; who evaluates them is the scheduler.

use std::sync::LazyLock;

use ironkeel_expr::{DeclType, Environment, Opaque, Type};
use ironkeel_object::Value;

use super::names::{at_most, text};
use crate::Path;
use crate::error::Errors;
use crate::pod_spec::present;

const SELECTORS_MAX: usize = 32;
const EXPRESSION_MAX_BYTES: usize = 10 * 1024;
/// What an expression may cost in the worst case.
const EXPRESSION_COST_MAX: u64 = 1_000_000;
const DRIVER_MAX_BYTES: u64 = 63;
const ATTRIBUTE_MAX_BYTES: u64 = 64;
/// Attributes and capacities of one device, together.
const ENTRIES_MAX: u64 = 32;

/// The type of `device`.
static DEVICE: LazyLock<DeclType> = LazyLock::new(|| {
    let attributes = DeclType::map(DeclType::any(ATTRIBUTE_MAX_BYTES), ENTRIES_MAX);
    let capacity = DeclType::map(DeclType::sized(Type::Opaque(Opaque::Quantity), 0), ENTRIES_MAX);
    DeclType::object(
        "kubernetes.DRADevice",
        vec![
            ("driver", DeclType::sized(Type::String, DRIVER_MAX_BYTES)),
            ("allowMultipleAllocations", DeclType::sized(Type::Bool, 1)),
            ("attributes", DeclType::map(attributes, ENTRIES_MAX)),
            ("capacity", DeclType::map(capacity, ENTRIES_MAX)),
        ],
    )
});

/// What selectors see.
static ENVIRONMENT: LazyLock<Environment> =
    LazyLock::new(|| Environment::kubernetes().with_bindings().variable("device", DEVICE.cel_type()));

/// `selectors` of a request or a class.
pub(super) fn validate(holder: &Value, path: &Path, e: &mut Errors) {
    let list = holder.items_at(&["selectors"]);
    if !at_most(list, SELECTORS_MAX, path, e) {
        return;
    }
    for (i, s) in list.iter().enumerate() {
        let at = path.index(i).child("cel");
        match present(s, "cel") {
            None => e.required(&at, ""),
            Some(c) => expression(text(c, "expression"), &at.child("expression"), e),
        }
    }
}

fn expression(source: &str, at: &Path, e: &mut Errors) {
    if source.len() > EXPRESSION_MAX_BYTES {
        e.too_long(at, EXPRESSION_MAX_BYTES);
        return;
    }
    let program = match ENVIRONMENT.compile(source, &[]) {
        Ok(program) => program,
        Err(why) => {
            e.invalid(at, source, &format!("compilation failed: {why}"));
            return;
        }
    };
    match program.output_type() {
        Type::Bool | Type::Dyn => {
            if program.estimate(&[("device", &DEVICE)]).max > EXPRESSION_COST_MAX {
                e.forbidden(at, "too complex, exceeds cost limit");
            }
        }
        other => {
            e.invalid(at, source, &format!("must evaluate to bool or the unknown type, not {other}"));
        }
    }
}
