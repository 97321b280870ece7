//! Metadata arrays, kept as the bytes of the file.

use super::cursor::{Cursor, Place};
use super::error::{Error, shown};
use super::value::{Value, ValueType, check_bools, read_type};
use super::{MAX_ARRAY_ELEMENTS, MAX_STRING_BYTES};

/// An array of numbers, truth values or strings.
///
/// A tokenizer has hundreds of thousands of strings: they stay in the encoding of the file, in
/// one allocation, and are decoded as they are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    element_type: ValueType,
    len: usize,
    bytes: Vec<u8>,
}

impl Array {
    pub(super) fn read(cursor: &mut Cursor<'_>, key: &str) -> Result<Self, Error> {
        let type_offset = cursor.position();
        let element_type = read_type(cursor, key)?;
        if element_type == ValueType::Array {
            return Err(Error::NestedArray {
                key: shown(key),
                offset: type_offset,
            });
        }
        let place = Place::Value(key);
        let offset = cursor.position();
        let length = cursor.u64()?;
        if length > MAX_ARRAY_ELEMENTS {
            let (place, limit) = (place.to_string(), MAX_ARRAY_ELEMENTS);
            return Err(Error::TooLong {
                place,
                length,
                limit,
                offset,
            });
        }
        let offset = cursor.position();
        let bytes = match element_type.size() {
            Some(size) => cursor.take(length * size)?,
            None => cursor.strings(place, length)?,
        };
        if element_type == ValueType::Bool {
            check_bools(bytes, key, offset)?;
        }
        // The limit keeps the length inside usize.
        let len = usize::try_from(length).unwrap_or(usize::MAX);
        Ok(Self {
            element_type,
            len,
            bytes: bytes.to_vec(),
        })
    }

    /// The type of every element; never [`ValueType::Array`].
    #[must_use]
    pub fn element_type(&self) -> ValueType {
        self.element_type
    }

    /// The elements in the encoding of the file.
    #[cfg(any(test, feature = "test-support"))]
    pub(super) fn encoded(&self) -> &[u8] {
        &self.bytes
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order. Strings that are not UTF-8 (some tokenizers have them) come out
    /// with replacement characters; [`Array::strings`] gives their bytes.
    pub fn iter(&self) -> impl Iterator<Item = Value> + '_ {
        let mut rest = Cursor::new(&self.bytes, None);
        // What was read once reads again, so no element is lost to an error here.
        (0..self.len).map_while(move |_| self.next_element(&mut rest))
    }

    /// The bytes of each string; nothing if the elements are not strings.
    pub fn strings(&self) -> impl Iterator<Item = &[u8]> + '_ {
        let len = if self.element_type == ValueType::String {
            self.len
        } else {
            0
        };
        let mut rest = Cursor::new(&self.bytes, None);
        (0..len).map_while(move |_| rest.sized(Place::Value(""), MAX_STRING_BYTES).ok())
    }

    fn next_element(&self, rest: &mut Cursor<'_>) -> Option<Value> {
        Some(match self.element_type {
            ValueType::U8 => Value::U8(u8::from_le_bytes(rest.array().ok()?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(rest.array().ok()?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(rest.array().ok()?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(rest.array().ok()?)),
            ValueType::U32 => Value::U32(u32::from_le_bytes(rest.array().ok()?)),
            ValueType::I32 => Value::I32(i32::from_le_bytes(rest.array().ok()?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(rest.array().ok()?)),
            ValueType::U64 => Value::U64(u64::from_le_bytes(rest.array().ok()?)),
            ValueType::I64 => Value::I64(i64::from_le_bytes(rest.array().ok()?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(rest.array().ok()?)),
            ValueType::Bool => Value::Bool(rest.array().ok()? == [1]),
            ValueType::String => {
                let bytes = rest.sized(Place::Value(""), MAX_STRING_BYTES).ok()?;
                Value::String(String::from_utf8_lossy(bytes).into_owned())
            }
            ValueType::Array => return None,
        })
    }
}
