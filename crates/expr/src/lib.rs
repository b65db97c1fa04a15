//! CEL as Kubernetes speaks it (v1.36): parser, type check, cost budget, Kubernetes' libraries.
//!
//! Pure: no I/O, no clock. The data are trees of [`ironkeel_object::Value`], read in place.
//! What does not live here: who asks (admission policies, CRD rules, match conditions), and the
//! authorizer, which the caller brings as an [`AuthorizerHook`].
//!
//! ```
//! use ironkeel_expr::{Activation, Budget, Environment, Type};
//! use ironkeel_object::object;
//!
//! // Once a policy: what names there are, and of which types.
//! let env = Environment::kubernetes().variable("object", Type::Dyn).variable("oldObject", Type::Dyn);
//! let rule = env.compile("object.spec.replicas <= 5", &[Type::Bool])?;
//!
//! // Once a request: the data, and what all rules together may cost.
//! let object = object!({ "spec": { "replicas": 3 } });
//! let mut activation = Activation::new();
//! activation.bind("object", &object);
//! let mut budget = Budget::new(ironkeel_expr::REQUEST_BUDGET);
//! assert_eq!(rule.eval(&activation, &mut budget)?.as_bool(), Some(true));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - Typed data (CRD rules, `request`, `namespaceObject`): [`DeclType::from_structural`] turns a JSON schema into a
//!   type with size bounds; or build an [`ObjectType`]. A `dyn` variable is read as JSON: integers, doubles, text.
//! - `variables.x` of policies: [`Environment::composed`] declares, [`Activation::compose`] binds the programs;
//!   each runs at most once an activation, when it is first read.
//! - Mutating policies: [`Environment::with_patch_types`] knows `Object{…}` and `JSONPatch{…}`;
//!   [`Val::to_value`] makes the tree (`Object{}`: the set fields; `[JSONPatch{}]`: a list of operations).
//! - CRD rules: [`Program::estimate`] is the static worst case that upstream compares with
//!   [`EXPRESSION_COST_LIMIT`]; [`Program::references`] tells which variables an expression reads.

//!
//! # Shape
//!
//! ```text
//! Environment::kubernetes() -> Self                                  builder, cheap to clone
//!   .variable(name: &str, Type) -> Self                              dotted names too: "authorizer.requestResource"
//!   .composed(name: &str, field: &str, Type) -> Self                 one more field of `variables`
//!   .with_types(Arc<dyn TypeProvider>) / .with_patch_types() -> Self
//!   .compile(&self, source: &str, expected: &[Type]) -> Result<Program, CompileError>   empty: any type
//! Program: Clone + Send + Sync
//!   .eval<'a>(&'a self, &Activation<'a>, &mut Budget) -> Result<Val<'a>, EvalError>
//!   .output_type() -> &Type   .source() -> &str   .references() -> BTreeSet<String>
//!   .estimate(&[(&str, &DeclType)]) -> CostEstimate { min, max }
//! Activation<'a>: new, bind(name, &'a Value), bind_val, bind_optional, bind_authorizer(name, &'a dyn AuthorizerHook),
//!   bind_request_resource(name, hook, ResourceCheck), compose(name, [(field, &'a Program)])
//! Val<'a>: as_bool, as_str, is_null, type_of, to_value() -> Result<ironkeel_object::Value, EvalError>
//! DeclType::from_structural(schema: &Value, is_resource_root: bool) -> Option<DeclType>   .cel_type() -> Type
//!   .property(json name) / .items() / .values() -> Option<&DeclType>  .max_elements() -> Option<u64>
//! ```

mod activation;
mod ast;
mod authorizer;
mod budget;
mod check;
mod convert;
mod cost;
mod env;
mod error;
pub mod escaping;
mod estimate;
mod eval;
mod functions;
mod lexer;
mod library;
mod macros;
mod parser;
mod program;
mod schema;
mod source;
mod time;
mod types;
mod unify;
mod value;

pub use activation::Activation;
pub use authorizer::{AuthorizationCheck, AuthorizationDecision, AuthorizerHook, CheckTarget, ResourceCheck};
pub use budget::Budget;
pub use env::Environment;
pub use error::{CompileError, EvalError, Issue, Issues};
pub use estimate::CostEstimate;
pub use program::Program;
pub use schema::DeclType;
pub use types::{Field, ListKind, ListType, ObjectType, Opaque, Type, TypeProvider};
pub use value::{Entries, List, MapKey, MapVal, Message, OpaqueVal, Text, Val};

/// Most that one run of one expression may cost; about 0.1 s upstream.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// Most that all rules of a custom resource or of a policy binding may cost in one request.
pub const REQUEST_BUDGET: u64 = 10_000_000;
/// Most that the match conditions of one webhook or policy binding may cost in one request.
pub const MATCH_CONDITIONS_BUDGET: u64 = 2_500_000;
/// The estimated cost at which a CRD's rule is refused.
pub const EXPRESSION_COST_LIMIT: u64 = 10_000_000;
/// The estimated cost at which a CRD's rules together are refused.
pub const TOTAL_COST_LIMIT: u64 = 100_000_000;
/// Longest source, in characters.
pub const MAX_SOURCE_CHARS: usize = 100_000;
/// Deepest nesting of a source, and of the tree that macros make of it.
pub const MAX_DEPTH: usize = 250;
