//! The tensor types of ggml: how many elements a block holds and how many bytes it takes.

use std::fmt;

/// How the elements of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TensorType {
    number: u32,
    name: &'static str,
    block_elements: u64,
    block_bytes: u64,
}

/// What a type number in a file stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    Known(TensorType),
    /// It was in the format once.
    Removed,
    Unknown,
}

const fn tensor_type(
    number: u32,
    name: &'static str,
    block_elements: u64,
    block_bytes: u64,
) -> TensorType {
    TensorType {
        number,
        name,
        block_elements,
        block_bytes,
    }
}

/// Every type of ggml as of November 2026: number, name, elements and bytes of a block.
const TYPES: [TensorType; 35] = [
    tensor_type(0, "F32", 1, 4),
    tensor_type(1, "F16", 1, 2),
    tensor_type(2, "Q4_0", 32, 18),
    tensor_type(3, "Q4_1", 32, 20),
    tensor_type(6, "Q5_0", 32, 22),
    tensor_type(7, "Q5_1", 32, 24),
    tensor_type(8, "Q8_0", 32, 34),
    tensor_type(9, "Q8_1", 32, 36),
    tensor_type(10, "Q2_K", 256, 84),
    tensor_type(11, "Q3_K", 256, 110),
    tensor_type(12, "Q4_K", 256, 144),
    tensor_type(13, "Q5_K", 256, 176),
    tensor_type(14, "Q6_K", 256, 210),
    tensor_type(15, "Q8_K", 256, 292),
    tensor_type(16, "IQ2_XXS", 256, 66),
    tensor_type(17, "IQ2_XS", 256, 74),
    tensor_type(18, "IQ3_XXS", 256, 98),
    tensor_type(19, "IQ1_S", 256, 50),
    tensor_type(20, "IQ4_NL", 32, 18),
    tensor_type(21, "IQ3_S", 256, 110),
    tensor_type(22, "IQ2_S", 256, 82),
    tensor_type(23, "IQ4_XS", 256, 136),
    tensor_type(24, "I8", 1, 1),
    tensor_type(25, "I16", 1, 2),
    tensor_type(26, "I32", 1, 4),
    tensor_type(27, "I64", 1, 8),
    tensor_type(28, "F64", 1, 8),
    tensor_type(29, "IQ1_M", 256, 56),
    tensor_type(30, "BF16", 1, 2),
    tensor_type(34, "TQ1_0", 256, 54),
    tensor_type(35, "TQ2_0", 256, 66),
    tensor_type(39, "MXFP4", 32, 17),
    tensor_type(40, "NVFP4", 64, 36),
    tensor_type(41, "Q1_0", 128, 18),
    tensor_type(42, "Q2_0", 64, 18),
];

/// Numbers that ggml has taken out of the format.
const REMOVED: [u32; 8] = [4, 5, 31, 32, 33, 36, 37, 38];

impl TensorType {
    /// The type with this name, as in `"Q8_0"`, case ignored.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        TYPES
            .into_iter()
            .find(|known| known.name.eq_ignore_ascii_case(name))
    }

    pub(super) fn lookup(number: u32) -> Lookup {
        match TYPES.into_iter().find(|known| known.number == number) {
            Some(known) => Lookup::Known(known),
            None if REMOVED.contains(&number) => Lookup::Removed,
            None => Lookup::Unknown,
        }
    }

    /// The number in the file format.
    #[must_use]
    pub fn number(self) -> u32 {
        self.number
    }

    /// The name, as in `"Q8_0"`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// How many elements of a row one block holds.
    #[must_use]
    pub fn block_elements(self) -> u64 {
        self.block_elements
    }

    /// How many bytes one block takes.
    #[must_use]
    pub fn block_bytes(self) -> u64 {
        self.block_bytes
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}
