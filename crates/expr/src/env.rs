//! What an expression may name, and compiling against it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::check::Checker;
use crate::error::CompileError;
use crate::program::Program;
use crate::types::{ObjectType, Type, TypeProvider};
use crate::{parser, source};

/// Variables with their types, message types, and the libraries of Kubernetes 1.36.
#[derive(Clone, Default)]
pub struct Environment {
    pub(crate) variables: BTreeMap<Arc<str>, Type>,
    pub(crate) types: Option<Arc<dyn TypeProvider>>,
    pub(crate) patch_types: bool,
    bindings: bool,
}

impl Environment {
    /// No variables yet; all libraries that Kubernetes turns on.
    pub fn kubernetes() -> Self {
        Environment::default()
    }

    /// Declares a variable. A name with dots (`authorizer.requestResource`) goes before the field of
    /// a variable that would read the same.
    pub fn variable(mut self, name: &str, ty: Type) -> Self {
        self.variables.insert(name.into(), ty);
        self
    }

    /// Declares one more field of a composed variable (`variables`), which is declared with its first.
    /// Give [`Program::output_type`]; later programs see the fields declared before they compile.
    pub fn composed(mut self, name: &str, field: &str, ty: Type) -> Self {
        // Taken out, so that nothing is copied as long as no program holds it.
        let mut object = match self.variables.remove(name) {
            Some(Type::Object(known)) => Arc::unwrap_or_clone(known),
            _ => ObjectType::new("kubernetes.variables"),
        };
        object.add_field(field, ty);
        self.variables.insert(name.into(), Type::object(object));
        self
    }

    /// Message types for literals.
    pub fn with_types(mut self, types: Arc<dyn TypeProvider>) -> Self {
        self.types = Some(types);
        self
    }

    /// `Object{…}`, `Object.spec{…}` and `JSONPatch{…}`, for mutating policies.
    pub fn with_patch_types(mut self) -> Self {
        self.patch_types = true;
        self
    }

    /// `cel.bind(…)`, which only selectors of devices have.
    pub fn with_bindings(mut self) -> Self {
        self.bindings = true;
        self
    }

    /// Declares a composed variable that has no fields yet.
    pub fn composition(self, name: &str) -> Self {
        self.variable(name, Type::object(ObjectType::new("kubernetes.variables")))
    }

    /// Takes a variable back.
    pub fn without(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    /// Parses and checks a source. `expected` are the types that are of use to the caller; with none,
    /// every type is.
    pub fn compile(&self, source: &str, expected: &[Type]) -> Result<Program, CompileError> {
        let parsed = parser::parse(source, self.bindings).map_err(|faults| source::issues(source, faults))?;
        let checked = Checker::run(self, parsed).map_err(|faults| source::issues(source, faults))?;
        let output = &checked.expr.ty;
        if !expected.is_empty() && !expected.iter().any(|e| e == output || matches!(e, Type::Dyn)) {
            let names: Vec<String> = expected.iter().map(Type::declared_name).collect();
            let output = output.declared_name();
            return Err(CompileError::OutputType(match &names[..] {
                [one] => format!("must evaluate to {one} but got {output}"),
                more => format!("must evaluate to one of [{}] but got {output}", more.join(" ")),
            }));
        }
        Ok(Program::new(source, checked))
    }

    /// The message type of that name.
    pub(crate) fn message_type(&self, name: &str) -> Option<Type> {
        if self.patch_types {
            if name == "JSONPatch" {
                return Some(Type::json_patch());
            }
            if name == "Object" || name.starts_with("Object.") {
                return Some(Type::object(ObjectType::new(name)));
            }
        }
        self.types.as_ref()?.object_type(name).map(Type::Object)
    }

    /// Whether a message type takes any field.
    pub(crate) fn is_open(&self, name: &str) -> bool {
        self.patch_types && (name == "Object" || name.starts_with("Object."))
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("variables", &self.variables).finish_non_exhaustive()
    }
}
