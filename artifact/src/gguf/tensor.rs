//! The tensor table: names, shapes, types and places, each checked against the others.

use std::collections::HashSet;

use super::cursor::{Cursor, Place};
use super::error::{Error, shown};
use super::tensor_type::{Lookup, TensorType};
use super::{MAX_DIMENSIONS, MAX_TENSOR_NAME_BYTES};

/// One row of the tensor table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    name: String,
    dimensions: Vec<u64>,
    tensor_type: TensorType,
    offset: u64,
    bytes: u64,
    elements: u64,
}

impl TensorInfo {
    /// Reads the row `index`; `names` are those of the rows before it.
    pub(super) fn read<'a>(
        cursor: &mut Cursor<'a>,
        index: u64,
        alignment: u32,
        names: &mut HashSet<&'a str>,
    ) -> Result<Self, Error> {
        let name = read_name(cursor, index, names)?;
        let dimensions = read_dimensions(cursor, name)?;
        let elements = element_count(name, &dimensions)?;
        let tensor_type = read_type(cursor, name)?;

        let row = dimensions.first().copied().unwrap_or(1);
        let block = tensor_type.block_elements();
        if row % block != 0 {
            let (tensor, tensor_type) = (shown(name), tensor_type.name());
            return Err(Error::BlockMismatch {
                tensor,
                row,
                block,
                tensor_type,
            });
        }

        let offset = cursor.u64()?;
        if offset % u64::from(alignment) != 0 {
            return Err(Error::Misaligned {
                tensor: shown(name),
                offset,
                alignment,
            });
        }
        let bytes = (elements / block)
            .checked_mul(tensor_type.block_bytes())
            .filter(|bytes| offset.checked_add(*bytes).is_some())
            .ok_or_else(|| Error::Dimensions {
                tensor: shown(name),
                dimensions: dimensions.clone(),
            })?;
        Ok(Self {
            name: name.to_owned(),
            dimensions,
            tensor_type,
            offset,
            bytes,
            elements,
        })
    }

    /// The name, as in `"blk.0.attn_q.weight"`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Elements along each dimension, the row (fastest) first; empty for a single number.
    #[must_use]
    pub fn dimensions(&self) -> &[u64] {
        &self.dimensions
    }

    /// How elements are stored.
    #[must_use]
    pub fn tensor_type(&self) -> TensorType {
        self.tensor_type
    }

    /// Where the data begins, in bytes from [`Header::data_offset`](super::Header::data_offset).
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The length of the data in bytes, without padding.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many elements there are.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.elements
    }

    /// The first byte of the file after this tensor's data.
    pub(super) fn end_in_file(&self, data_offset: u64) -> Result<u64, Error> {
        (data_offset.checked_add(self.offset))
            .and_then(|start| start.checked_add(self.bytes))
            .ok_or_else(|| Error::TensorOverflow {
                tensor: shown(&self.name),
                offset: self.offset,
                bytes: self.bytes,
            })
    }
}

/// Checks that no two tensors share a byte.
pub(super) fn check_no_overlap(tensors: &[TensorInfo]) -> Result<(), Error> {
    let mut by_offset: Vec<&TensorInfo> = tensors.iter().collect();
    by_offset.sort_by_key(|tensor| tensor.offset);
    for pair in by_offset.windows(2) {
        if let [first, second] = pair
            && first.offset + first.bytes > second.offset
        {
            return Err(Error::Overlap {
                first: shown(&first.name),
                second: shown(&second.name),
            });
        }
    }
    Ok(())
}

fn read_name<'a>(
    cursor: &mut Cursor<'a>,
    index: u64,
    names: &mut HashSet<&'a str>,
) -> Result<&'a str, Error> {
    let offset = cursor.position();
    let name = cursor
        .name(Place::TensorName(index), MAX_TENSOR_NAME_BYTES)
        .map_err(|error| match error {
            Error::TooLong { length, offset, .. } => Error::TensorNameTooLong {
                index,
                length,
                offset,
            },
            error => error,
        })?;
    if names.insert(name) {
        Ok(name)
    } else {
        Err(Error::DuplicateTensor {
            tensor: shown(name),
            offset,
        })
    }
}

fn read_dimensions(cursor: &mut Cursor<'_>, name: &str) -> Result<Vec<u64>, Error> {
    let count = cursor.u32()?;
    if count > MAX_DIMENSIONS {
        return Err(Error::TooManyDimensions {
            tensor: shown(name),
            count,
        });
    }
    (0..count).map(|_| cursor.u64()).collect()
}

/// The product of the dimensions: ggml keeps it in a signed 64-bit number.
fn element_count(name: &str, dimensions: &[u64]) -> Result<u64, Error> {
    (dimensions.iter())
        .try_fold(1_u64, |product, dimension| product.checked_mul(*dimension))
        .filter(|product| (1..=i64::MAX.unsigned_abs()).contains(product))
        .ok_or_else(|| Error::Dimensions {
            tensor: shown(name),
            dimensions: dimensions.to_vec(),
        })
}

fn read_type(cursor: &mut Cursor<'_>, name: &str) -> Result<TensorType, Error> {
    let found = cursor.u32()?;
    match TensorType::lookup(found) {
        Lookup::Known(tensor_type) => Ok(tensor_type),
        Lookup::Removed => Err(Error::RemovedTensorType {
            tensor: shown(name),
            found,
        }),
        Lookup::Unknown => Err(Error::UnknownTensorType {
            tensor: shown(name),
            found,
        }),
    }
}
