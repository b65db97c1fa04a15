//! Custom resources as apply sees them: by the structural schema of their version.

use ironkeel_patch::{Schema, Structure};

use crate::storage::Row;

/// The structure by which applies of a custom resource are owned; none of a built-in kind.
pub fn structure_of(row: &Row) -> Option<Structure> {
    let custom = row.kind.custom.as_ref()?;
    (!custom.openapi.is_null()).then(|| Structure::of_resource(&custom.openapi))
}

/// How apply sees the objects of a row.
pub fn schema_of<'s>(row: &Row, structure: Option<&'s Structure>) -> Schema<'s> {
    match (structure, &row.kind.custom) {
        (Some(structure), _) => Schema::Custom(structure),
        (None, Some(_)) => Schema::Deduced,
        (None, None) => Schema::Table(row.kind.resource.type_id),
    }
}
