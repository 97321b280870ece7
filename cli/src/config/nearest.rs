//! The name that was probably meant.

use crate::config::keys::{Keys, Table};

/// How alike two names must be, from 0 to 1, to be offered for one another.
const ALIKE: f64 = 0.75;

/// The key nearest to a name that is none, with its table.
pub(crate) fn key(keys: &Keys, table: Table, name: &str) -> Option<String> {
    let plain = name.to_ascii_lowercase().replace('_', "-");
    let likeness = |key: &crate::config::keys::Key| {
        let alike = strsim::normalized_damerau_levenshtein(&key.name, &plain);
        // Of two that are equally alike the one in the same table is meant.
        if key.table == table {
            alike
        } else {
            alike - 0.01
        }
    };
    let keys = keys.iter().map(|key| (likeness(key), key.to_string()));
    let tables = Table::ROLES.iter().filter(|_| table == Table::Shared);
    let tables = tables.map(|role| {
        let alike = strsim::normalized_damerau_levenshtein(role.name(), &plain);
        (alike, format!("[{}]", role.name()))
    });
    keys.chain(tables)
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, name)| name)
}
