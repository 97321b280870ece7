//! Splits a GGUF file in two, as `llama-gguf-split` does: the metadata with the first part, a third
//! of the tensors in each file's own table, and what makes them one model.

use artifact::gguf::{Header, TensorInfo};

const U16: u32 = 2;
const I32: u32 = 5;
/// Alignment of the data, the default of the format.
const ALIGNMENT: usize = 32;
/// Magic, version, and the counts of tensors and entries.
const FIXED_BYTES: usize = 24;

/// Both parts of a model, to be named `…-00001-of-00002.gguf` and `…-00002-of-00002.gguf`.
///
/// # Panics
/// When `file` is not a GGUF file with at least two tensors.
#[must_use]
pub fn split_gguf(file: &[u8]) -> [Vec<u8>; 2] {
    let header = Header::parse(file, Some(file.len() as u64)).expect("a GGUF file");
    let tensors = header.tensors();
    let begin = usize::try_from(header.data_offset()).expect("an offset");
    let entries = &file[FIXED_BYTES..table_start(&file[..begin], &tensors[0])];
    let count = u64::from_le_bytes(file[16..24].try_into().expect("eight bytes"));
    let (first, second) = tensors.split_at(tensors.len() / 3 + 1);
    let part = |number: u16, entries: &[u8], count: u64, own: &[TensorInfo]| {
        let mut metadata = entries.to_vec();
        entry(&mut metadata, "split.no", U16, &number.to_le_bytes());
        entry(&mut metadata, "split.count", U16, &2_u16.to_le_bytes());
        let all = i32::try_from(tensors.len()).expect("a count");
        entry(
            &mut metadata,
            "split.tensors.count",
            I32,
            &all.to_le_bytes(),
        );
        assemble(&file[..8], &metadata, count + 3, own, &file[begin..])
    };
    [part(0, entries, count, first), part(1, &[], 0, second)]
}

/// Where the table of tensors begins: at the name of its first row.
fn table_start(head: &[u8], first: &TensorInfo) -> usize {
    let mut row = (first.name().len() as u64).to_le_bytes().to_vec();
    row.extend_from_slice(first.name().as_bytes());
    let mut windows = head.windows(row.len());
    windows
        .rposition(|window| window == row)
        .expect("the first tensor's name")
}

fn entry(metadata: &mut Vec<u8>, key: &str, kind: u32, value: &[u8]) {
    metadata.extend_from_slice(&(key.len() as u64).to_le_bytes());
    metadata.extend_from_slice(key.as_bytes());
    metadata.extend_from_slice(&kind.to_le_bytes());
    metadata.extend_from_slice(value);
}

fn assemble(
    begin: &[u8],
    metadata: &[u8],
    count: u64,
    tensors: &[TensorInfo],
    data: &[u8],
) -> Vec<u8> {
    let mut part = begin.to_vec();
    part.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    part.extend_from_slice(&count.to_le_bytes());
    part.extend_from_slice(metadata);
    let mut body = Vec::new();
    for tensor in tensors {
        part.extend_from_slice(&(tensor.name().len() as u64).to_le_bytes());
        part.extend_from_slice(tensor.name().as_bytes());
        let dimensions = u32::try_from(tensor.dimensions().len()).expect("a few");
        part.extend_from_slice(&dimensions.to_le_bytes());
        for dimension in tensor.dimensions() {
            part.extend_from_slice(&dimension.to_le_bytes());
        }
        part.extend_from_slice(&tensor.tensor_type().number().to_le_bytes());
        part.extend_from_slice(&(body.len() as u64).to_le_bytes());
        let at = usize::try_from(tensor.offset()).expect("an offset");
        let bytes = usize::try_from(tensor.bytes()).expect("a size");
        body.extend_from_slice(&data[at..at + bytes]);
        body.resize(body.len().next_multiple_of(ALIGNMENT), 0);
    }
    part.resize(part.len().next_multiple_of(ALIGNMENT), 0);
    part.extend_from_slice(&body);
    part
}
