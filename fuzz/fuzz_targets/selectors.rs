//! Label and field selectors, quantities and times: texts of every kind.
#![no_main]

use ironkeel_object::{FieldSelector, LabelSelector, Quantity, Timestamp, parse_go_duration};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        for requirement in &selector.requirements {
            requirement.matches(Some("a"));
            requirement.matches(None);
        }
    }
    let _ = FieldSelector::parse(text);
    if let Ok(quantity) = Quantity::parse(text) {
        let canonical = quantity.to_string();
        // Not the text: `1023.5Ki` is written without a suffix, and read as decimal from then on.
        let again = Quantity::parse(&canonical).expect("a canonical quantity is one");
        assert_eq!(Quantity::parse(&again.to_string()).expect("a canonical quantity is one"), again);
    }
    let _ = Timestamp::parse(text);
    let _ = parse_go_duration(text);
});
