//! `status` of ValidatingAdmissionPolicies: which generation was looked at, and what type checking
//! found. Every API server can do this; the first write of a generation is the only one.

use std::sync::Arc;

use ironkeel_object::{Map, ObjectMeta, Value};
use ironkeel_registry::{ApiError, Change, Registry, Row, WriteRequest};

use crate::bootstrap;

/// Sets the status of one generation.
struct Checked {
    generation: i64,
    warnings: Vec<ironkeel_admission::ExpressionWarning>,
}

impl Change for Checked {
    fn apply(&self, current: &Value) -> Result<Value, ApiError> {
        let mut new = current.clone();
        if current.generation() != self.generation {
            return Ok(new);
        }
        let mut checking = Map::new();
        if !self.warnings.is_empty() {
            let list = self.warnings.iter().map(|w| {
                let mut one = Map::new();
                one.insert("fieldRef", w.field.as_str());
                one.insert("warning", w.warning.as_str());
                one
            });
            checking.insert("expressionWarnings", list.collect::<Vec<_>>());
        }
        *new.slot(&["status", "observedGeneration"]) = self.generation.into();
        *new.slot(&["status", "typeChecking"]) = Value::Object(checking);
        Ok(new)
    }
}

async fn look(registry: &Arc<Registry>, row: &Arc<Row>, policy: &Value) -> Result<(), ApiError> {
    let generation = policy.generation();
    if policy.i64_at(&["status", "observedGeneration"]) == Some(generation) {
        return Ok(());
    }
    let change = Checked { generation, warnings: ironkeel_admission::type_warnings(registry, policy) };
    let request = WriteRequest { subresource: "status".to_owned(), ..bootstrap::request(row, policy) };
    registry.update(&request, &change).await.map(drop)
}

/// Follows the policies until it is dropped.
pub(crate) async fn run(registry: Arc<Registry>) {
    let Some(row) = registry.row("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies") else { return };
    loop {
        let Some(mut watcher) = registry.follow(&row).await else { return };
        loop {
            let mut events = Vec::new();
            if watcher.next(&mut events).await.is_err() {
                break;
            }
            for event in &events {
                let Some((_, entry)) = event.object() else { continue };
                let Ok(policy) = entry.tree() else { continue };
                if let Err(error) = look(&registry, &row, &policy).await {
                    tracing::debug!(%error, policy = policy.name(), "the status of a policy was not written");
                }
            }
        }
    }
}
