//! How much of a shared device's capacity a request may take.

use ironkeel_object::{Quantity, Value};

use super::names::at_most;
use crate::Path;
use crate::error::Errors;
use crate::pod_spec::present;
use crate::resources::quantity;

/// Values that a policy may offer.
const VALUES_MAX: usize = 10;

/// One capacity of a device.
pub(super) fn capacity(c: &Value, shared: bool, at: &Path, e: &mut Errors) {
    let Some(policy) = present(c, "requestPolicy") else { return };
    let at = at.child("requestPolicy");
    if !shared {
        e.forbidden(&at, "allowMultipleAllocations must be true");
        return;
    }
    let whole = quantity(c.get("value")).unwrap_or(Quantity::ZERO);
    let default = quantity(policy.get("default"));
    let values = policy.items_at(&["validValues"]);
    let range = present(policy, "validRange");
    match (values.is_empty(), range) {
        (false, Some(_)) => {
            let text = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
            e.forbidden(&at, text);
        }
        (false, None) => match default {
            None => e.required(&at.child("default"), "required when validValues is defined"),
            Some(default) => valid_values(values, default, whole, &at.child("validValues"), e),
        },
        (true, Some(range)) => match default {
            None => e.required(&at.child("default"), "required when validRange is defined"),
            Some(default) => valid_range(range, default, whole, &at.child("validRange"), e),
        },
        (true, None) => {}
    }
}

fn valid_values(values: &[Value], default: Quantity, whole: Quantity, path: &Path, e: &mut Errors) {
    let parsed: Vec<Quantity> = values.iter().map(|v| quantity(Some(v)).unwrap_or(Quantity::ZERO)).collect();
    for (i, pair) in parsed.windows(2).enumerate().filter(|(_, p)| p[0] > p[1]) {
        e.invalid(&path.index(i + 1), pair[1].to_string(), "values must be sorted in ascending order");
    }
    let mut offered = false;
    if at_most(values, VALUES_MAX, path, e) {
        for (i, q) in parsed.iter().enumerate() {
            if *q > whole {
                let text = format!("option is larger than capacity value: {whole}");
                e.invalid(&path.index(i), q.to_string(), &text);
            }
            offered |= *q == default;
            if parsed[..i].iter().any(|x| x.value() == q.value()) {
                e.duplicate(&path.index(i), q.value().to_string());
            }
        }
    }
    if !offered {
        e.invalid(path, default.to_string(), "default value is not valid according to the requestPolicy");
    }
}

fn valid_range(range: &Value, default: Quantity, whole: Quantity, path: &Path, e: &mut Errors) {
    let at = |f: &str| path.child(f);
    let Some(min) = quantity(range.get("min")) else {
        e.required(&at("min"), "required when validRange is defined");
        return;
    };
    let mut say = |field: &str, value: Quantity, text: String| e.invalid(&at(field), value.to_string(), &text);
    if min > whole {
        say("min", min, format!("min is larger than capacity value: {whole}"));
    }
    if default < min {
        say("min", default, format!("default is less than min: {min}"));
    }
    let max = quantity(range.get("max"));
    if let Some(max) = max {
        if min > max {
            say("max", min, format!("min is larger than max: {max}"));
        }
        if max > whole {
            say("max", max, format!("max is larger than capacity value: {whole}"));
        }
        if default > max {
            say("max", default, format!("default is more than max: {max}"));
        }
    }
    let Some(step) = quantity(range.get("step")) else { return };
    if min + step > whole {
        say("step", step, format!("one step {} is larger than capacity value: {whole}", min + step));
    }
    for value in [Some(default), max].into_iter().flatten() {
        let over = value.value().wrapping_sub(min.value());
        // A step of nothing leads nowhere but to where it began.
        if over.checked_rem(step.value()).unwrap_or(over) != 0 {
            say("step", value, format!("value is not a multiple of a given step ({step}) from ({min})"));
        }
    }
}
