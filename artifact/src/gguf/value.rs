//! Metadata values: thirteen types of them.

use std::fmt;

use super::MAX_STRING_BYTES;
use super::array::Array;
use super::cursor::{Cursor, Place};
use super::error::{Error, shown};

/// The type of a metadata value or of the elements of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the type of its name")]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl fmt::Display for ValueType {
    /// The name as the format's description has it: `uint32`, `string`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::U8 => "uint8",
            Self::I8 => "int8",
            Self::U16 => "uint16",
            Self::I16 => "int16",
            Self::U32 => "uint32",
            Self::I32 => "int32",
            Self::F32 => "float32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Array => "array",
            Self::U64 => "uint64",
            Self::I64 => "int64",
            Self::F64 => "float64",
        })
    }
}

impl ValueType {
    /// The type with this number in the format.
    pub(super) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::String,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// The number of this type in the format: they stand in its order.
    #[cfg(any(test, feature = "test-support"))]
    pub(super) fn number(self) -> u32 {
        self as u32
    }

    /// Bytes of one value; `None` for strings and arrays, whose length is in the file.
    pub(super) fn size(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }
}

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each is a value of the type of its name")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// Reads the type and the value of the entry `key`.
    pub(super) fn read(cursor: &mut Cursor<'_>, key: &str) -> Result<Self, Error> {
        let value_type = read_type(cursor, key)?;
        let offset = cursor.position();
        Ok(match value_type {
            ValueType::Array => Self::Array(Array::read(cursor, key)?),
            ValueType::String => {
                Self::String(cursor.text(Place::Value(key), MAX_STRING_BYTES)?.to_owned())
            }
            ValueType::Bool => {
                let [found] = cursor.array()?;
                check_bools(&[found], key, offset)?;
                Self::Bool(found == 1)
            }
            ValueType::U8 => Self::U8(u8::from_le_bytes(cursor.array()?)),
            ValueType::I8 => Self::I8(i8::from_le_bytes(cursor.array()?)),
            ValueType::U16 => Self::U16(u16::from_le_bytes(cursor.array()?)),
            ValueType::I16 => Self::I16(i16::from_le_bytes(cursor.array()?)),
            ValueType::U32 => Self::U32(u32::from_le_bytes(cursor.array()?)),
            ValueType::I32 => Self::I32(i32::from_le_bytes(cursor.array()?)),
            ValueType::F32 => Self::F32(f32::from_le_bytes(cursor.array()?)),
            ValueType::U64 => Self::U64(u64::from_le_bytes(cursor.array()?)),
            ValueType::I64 => Self::I64(i64::from_le_bytes(cursor.array()?)),
            ValueType::F64 => Self::F64(f64::from_le_bytes(cursor.array()?)),
        })
    }

    /// The type of this value.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// The text, if this is a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if this is an integer of any width and not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(number) => Some(number.into()),
            Self::U16(number) => Some(number.into()),
            Self::U32(number) => Some(number.into()),
            Self::U64(number) => Some(number),
            Self::I8(number) => number.try_into().ok(),
            Self::I16(number) => number.try_into().ok(),
            Self::I32(number) => number.try_into().ok(),
            Self::I64(number) => number.try_into().ok(),
            _ => None,
        }
    }

    /// The array, if this is one.
    #[must_use]
    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Self::Array(array) => Some(array),
            _ => None,
        }
    }

    /// The value as JSON: floats in their shortest form (`null` if not finite), arrays in full.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::U8(number) => (*number).into(),
            Self::I8(number) => (*number).into(),
            Self::U16(number) => (*number).into(),
            Self::I16(number) => (*number).into(),
            Self::U32(number) => (*number).into(),
            Self::I32(number) => (*number).into(),
            // By way of its decimal form, or 0.1 would come out as 0.10000000149011612.
            Self::F32(number) => number.to_string().parse::<f64>().ok().into(),
            Self::Bool(truth) => (*truth).into(),
            Self::String(text) => text.as_str().into(),
            Self::Array(array) => array.iter().map(|value| value.to_json()).collect(),
            Self::U64(number) => (*number).into(),
            Self::I64(number) => (*number).into(),
            Self::F64(number) => (*number).into(),
        }
    }
}

pub(super) fn read_type(cursor: &mut Cursor<'_>, key: &str) -> Result<ValueType, Error> {
    let offset = cursor.position();
    let found = cursor.u32()?;
    ValueType::from_number(found).ok_or_else(|| Error::UnknownValueType {
        key: shown(key),
        found,
        offset,
    })
}

pub(super) fn check_bools(bytes: &[u8], key: &str, offset: u64) -> Result<(), Error> {
    match bytes.iter().zip(offset..).find(|(byte, _)| **byte > 1) {
        Some((&found, offset)) => Err(Error::InvalidBool {
            key: shown(key),
            found,
            offset,
        }),
        None => Ok(()),
    }
}
