//! Columns of `kubectl get`, looked up by kind.

use crate::ColumnDefinition;
use crate::generated::columns::COLUMNS;

/// Kinds without columns of their own.
static PLAIN: &[ColumnDefinition] =
    &[ColumnDefinition::new("Name", "string", "name", "", 0), ColumnDefinition::new("Created At", "date", "", "", 0)];

/// The columns under a key of the generated table.
pub(crate) fn of(key: &str) -> &'static [ColumnDefinition] {
    COLUMNS.binary_search_by(|(k, _)| (*k).cmp(key)).map_or(PLAIN, |i| COLUMNS[i].1)
}
