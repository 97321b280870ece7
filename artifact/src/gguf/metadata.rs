//! The metadata of a GGUF file: keys and values, in file order.

use std::collections::HashSet;

use super::cursor::{Cursor, Place};
use super::error::{Error, shown};
use super::value::Value;
use super::{DEFAULT_ALIGNMENT, MAX_ALIGNMENT, MAX_KEY_BYTES};

/// Metadata entries in file order; no key comes twice.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
}

impl Metadata {
    pub(super) fn read(cursor: &mut Cursor<'_>, count: u64) -> Result<Self, Error> {
        let mut entries = Vec::new();
        let mut keys = HashSet::new();
        for index in 0..count {
            let offset = cursor.position();
            let key = cursor.name(Place::Key(index), MAX_KEY_BYTES)?;
            if !keys.insert(key) {
                return Err(Error::DuplicateKey {
                    key: shown(key),
                    offset,
                });
            }
            entries.push((key.to_owned(), Value::read(cursor, key)?));
        }
        Ok(Self { entries })
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        // A real file has a few dozen keys, which a linear search beats any index at.
        self.entries
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    /// The text of a key, if it has one.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// The number of a key, if it has one and it is an integer of any width, not negative.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_u64()
    }

    /// Keys and values in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> + '_ {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The alignment of tensor data in bytes, checked: offsets are rounded with it.
    pub(super) fn alignment(&self) -> Result<u32, Error> {
        match self.get("general.alignment") {
            None => Ok(DEFAULT_ALIGNMENT),
            Some(&Value::U32(alignment))
                if alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT =>
            {
                Ok(alignment)
            }
            Some(Value::U32(alignment)) => Err(Error::Alignment {
                found: alignment.to_string(),
            }),
            Some(other) => Err(Error::Alignment {
                found: format!("of type {:?}", other.value_type()),
            }),
        }
    }
}
