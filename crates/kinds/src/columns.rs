//! Columns of `kubectl get`, looked up by kind.

use crate::ColumnDefinition;
use crate::generated::columns::COLUMNS;

/// Kinds without columns of their own.
static PLAIN: &[ColumnDefinition] =
    &[ColumnDefinition::new("Name", "string", "name", "", 0), ColumnDefinition::new("Created At", "date", "", "", 0)];

const fn column(name: &'static str, kind: &'static str) -> ColumnDefinition {
    ColumnDefinition::new(name, kind, "", "", 0)
}

const fn wide(name: &'static str) -> ColumnDefinition {
    ColumnDefinition::new(name, "string", "", "", 1)
}

const NAME: ColumnDefinition = ColumnDefinition::new("Name", "string", "name", "", 0);
const AGE: ColumnDefinition = column("Age", "string");

/// Columns that the generated table does not have, or not all of.
static MORE: &[(&str, &[ColumnDefinition])] = &[
    ("apiService", &[NAME, column("Service", "string"), column("Available", "string"), AGE]),
    (
        "csiDriver",
        &[
            NAME,
            column("AttachRequired", "boolean"),
            column("PodInfoOnMount", "boolean"),
            column("StorageCapacity", "boolean"),
            column("TokenRequests", "string"),
            column("RequiresRepublish", "boolean"),
            column("Modes", "string"),
            AGE,
        ],
    ),
    (
        "event",
        &[
            column("Last Seen", "string"),
            column("Type", "string"),
            column("Reason", "string"),
            column("Object", "string"),
            wide("Subobject"),
            wide("Source"),
            column("Message", "string"),
            wide("First Seen"),
            wide("Count"),
            ColumnDefinition::new("Name", "string", "name", "", 1),
        ],
    ),
    ("mutatingPolicy", &[NAME, column("Mutations", "integer"), column("ParamKind", "string"), AGE]),
    ("networkPolicy", &[NAME, column("Pod-Selector", "string"), AGE]),
    ("policyBinding", &[NAME, column("PolicyName", "string"), column("ParamRef", "string"), AGE]),
    ("validatingPolicy", &[NAME, column("Validations", "integer"), column("ParamKind", "string"), AGE]),
];

/// The columns of a kind, by its key.
pub(crate) fn of(key: &str) -> &'static [ColumnDefinition] {
    if let Some((_, own)) = MORE.iter().find(|(k, _)| *k == key) {
        return own;
    }
    COLUMNS.binary_search_by(|(k, _)| (*k).cmp(key)).map_or(PLAIN, |i| COLUMNS[i].1)
}
