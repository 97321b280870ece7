//! Writes small GGUF files, valid or broken on purpose, for tests.

use super::{DEFAULT_ALIGNMENT, MAGIC, TensorType, Value};

/// The vocabulary of [`GgufBuilder::tiny_llama`].
const TINY_TOKENS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// Builds a GGUF file in memory.
///
/// ```
/// use artifact::gguf::{Header, Value, builder::GgufBuilder};
///
/// let file = GgufBuilder::new()
///     .kv("general.architecture", "llama")
///     .kv("llama.context_length", Value::U32(512))
///     .tensor("token_embd.weight", &[64, 8], "Q8_0")
///     .build();
/// let header = Header::parse(&file, Some(file.len() as u64))?;
/// assert_eq!(header.parameter_count(), 512);
/// # Ok::<(), artifact::gguf::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct GgufBuilder {
    version: u32,
    alignment: u32,
    entries: u64,
    metadata: Vec<u8>,
    tensors: Vec<Tensor>,
    data_bytes: u64,
    fill: u8,
}

#[derive(Debug, Clone)]
struct Tensor {
    name: Vec<u8>,
    dimensions: Vec<u64>,
    type_number: u32,
    offset: u64,
}

impl Default for GgufBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl GgufBuilder {
    /// An empty file of version 3 with the default alignment.
    #[must_use]
    pub fn new() -> Self {
        Self {
            version: 3,
            alignment: DEFAULT_ALIGNMENT,
            entries: 0,
            metadata: Vec::new(),
            tensors: Vec::new(),
            data_bytes: 0,
            fill: 0,
        }
    }

    /// A file that looks like a small llama model: named, with a context of 512 and one tensor.
    #[must_use]
    pub fn tiny_llama(name: &str) -> Self {
        Self::new()
            .kv("general.architecture", "llama")
            .kv("general.name", name)
            .kv("general.file_type", Value::U32(7))
            .kv("llama.block_count", Value::U32(1))
            .kv("llama.context_length", Value::U32(512))
            .kv("llama.embedding_length", Value::U32(64))
            .kv("tokenizer.ggml.model", "gpt2")
            .strings("tokenizer.ggml.tokens", &TINY_TOKENS)
            .strings("tokenizer.ggml.merges", &["a b"])
            .tensor("token_embd.weight", &[64, 8], "Q8_0")
            .tensor("output_norm.weight", &[64], "F32")
    }

    /// Sets the format version.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Sets the alignment that tensors are laid out by, and says so in the metadata. To be called
    /// before the first tensor.
    #[must_use]
    pub fn alignment(mut self, alignment: u32) -> Self {
        self.alignment = alignment;
        self.kv("general.alignment", Value::U32(alignment))
    }

    /// Sets the byte that tensor data is filled with, so that two files can differ in it.
    #[must_use]
    pub fn fill(mut self, byte: u8) -> Self {
        self.fill = byte;
        self
    }

    /// Adds a metadata entry.
    #[must_use]
    pub fn kv(self, key: &str, value: impl Into<Value>) -> Self {
        let (number, bytes) = encode(&value.into());
        self.raw_kv(key.as_bytes(), number, &bytes)
    }

    /// Adds a metadata entry that is an array of strings.
    #[must_use]
    pub fn strings<S: AsRef<[u8]>>(self, key: &str, values: &[S]) -> Self {
        let mut bytes = 8_u32.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        for value in values {
            bytes.extend(sized(value.as_ref()));
        }
        self.raw_kv(key.as_bytes(), 9, &bytes)
    }

    /// Adds a metadata entry with any type number and any bytes as its value.
    #[must_use]
    pub fn raw_kv(mut self, key: &[u8], type_number: u32, value: &[u8]) -> Self {
        self.entries += 1;
        self.metadata.extend(sized(key));
        self.metadata.extend(type_number.to_le_bytes());
        self.metadata.extend(value);
        self
    }

    /// Adds a tensor behind those before it.
    ///
    /// # Panics
    /// If no tensor type has this name, or the data would be larger than a test may ask for.
    #[must_use]
    pub fn tensor(mut self, name: &str, dimensions: &[u64], type_name: &str) -> Self {
        let Some(tensor_type) = TensorType::from_name(type_name) else {
            panic!("no tensor type is called {type_name}");
        };
        let blocks = dimensions
            .iter()
            .product::<u64>()
            .div_ceil(tensor_type.block_elements());
        let offset = self.data_bytes;
        let bytes = blocks * tensor_type.block_bytes();
        self.data_bytes = (offset + bytes).next_multiple_of(u64::from(self.alignment.max(1)));
        assert!(
            self.data_bytes <= 1 << 30,
            "tensors of a test file take at most 1 GiB"
        );
        self.raw_tensor(name.as_bytes(), dimensions, tensor_type.number(), offset)
    }

    /// Adds a row to the tensor table with any content, and no data for it.
    #[must_use]
    pub fn raw_tensor(
        mut self,
        name: &[u8],
        dimensions: &[u64],
        type_number: u32,
        offset: u64,
    ) -> Self {
        let (name, dimensions) = (name.to_vec(), dimensions.to_vec());
        self.tensors.push(Tensor {
            name,
            dimensions,
            type_number,
            offset,
        });
        self
    }

    /// The header alone: everything before the padding and the tensor data.
    #[must_use]
    pub fn header(&self) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend(self.entries.to_le_bytes());
        file.extend(&self.metadata);
        for tensor in &self.tensors {
            file.extend(sized(&tensor.name));
            file.extend((tensor.dimensions.len() as u32).to_le_bytes());
            file.extend(
                tensor
                    .dimensions
                    .iter()
                    .flat_map(|dimension| dimension.to_le_bytes()),
            );
            file.extend(tensor.type_number.to_le_bytes());
            file.extend(tensor.offset.to_le_bytes());
        }
        file
    }

    /// The whole file.
    #[must_use]
    pub fn build(self) -> Vec<u8> {
        let mut file = self.header();
        if !self.tensors.is_empty() {
            file.resize(
                file.len().next_multiple_of(self.alignment.max(1) as usize),
                0,
            );
        }
        file.resize(file.len() + self.data_bytes as usize, self.fill);
        file
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

/// A string as the format has it: length, then bytes.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

/// The type number and the bytes of a value.
fn encode(value: &Value) -> (u32, Vec<u8>) {
    match value {
        Value::U8(number) => (0, number.to_le_bytes().to_vec()),
        Value::I8(number) => (1, number.to_le_bytes().to_vec()),
        Value::U16(number) => (2, number.to_le_bytes().to_vec()),
        Value::I16(number) => (3, number.to_le_bytes().to_vec()),
        Value::U32(number) => (4, number.to_le_bytes().to_vec()),
        Value::I32(number) => (5, number.to_le_bytes().to_vec()),
        Value::F32(number) => (6, number.to_le_bytes().to_vec()),
        Value::Bool(truth) => (7, vec![u8::from(*truth)]),
        Value::String(text) => (8, sized(text.as_bytes())),
        Value::Array(array) => (9, encode_array(array)),
        Value::U64(number) => (10, number.to_le_bytes().to_vec()),
        Value::I64(number) => (11, number.to_le_bytes().to_vec()),
        Value::F64(number) => (12, number.to_le_bytes().to_vec()),
    }
}

fn encode_array(array: &super::Array) -> Vec<u8> {
    let mut bytes = array.element_type().number().to_le_bytes().to_vec();
    bytes.extend((array.len() as u64).to_le_bytes());
    bytes.extend(array.encoded());
    bytes
}
