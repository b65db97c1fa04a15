//! The dynamic object tree that the server works on, and what reads it without a codec:
//! metadata accessors, selectors, quantities, times, names.
//!
//! Typed views (k8s-openapi) are for readers of the API; here nothing is dropped, so unknown
//! fields are seen. What does not live here: bytes (`codec`), rules of a kind (`kinds`).

mod map;
mod meta;
mod quantity;
mod quoted;
mod selector;
mod source;
mod time;
mod value;

pub use map::{Key, Map};
pub use meta::{Gvk, ObjectMeta, OwnerRef};
pub use quantity::{Quantity, QuantityError, QuantityFormat};
pub use quoted::{is_print, quoted};
pub use selector::{FieldRequirement, FieldSelector, LabelSelector, Operator, Requirement, SelectorError};
pub use source::ObjectSource;
pub use time::{Timestamp, format_go_duration, parse_go_duration};
pub use value::{Number, Value};
