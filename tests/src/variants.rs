//! Versions of a model as people make them: another chat template, some tensors trained on, an
//! adapter merged, another quantisation. And what a node that has one must fetch of another.

use std::collections::HashSet;

use artifact::gguf::builder::GgufBuilder;
use artifact::gguf::{Header, TensorInfo, TensorType, Value};
use artifact::{ChunkHash, ChunkMap};

use crate::upstream::noise;

const TEMPLATE: &str = "tokenizer.chat_template";
/// Q8_0: a scale in half precision, then as many weights of a byte.
const Q8_0_WEIGHTS: usize = 32;
const Q8_0_BYTES: usize = 2 + Q8_0_WEIGHTS;

/// The bundled model.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn hay_tiny() -> Vec<u8> {
    std::fs::read(crate::fixture("hay-tiny-q8_0.gguf")).expect("the bundled model")
}

/// A model of a header that passes every check, and noise: per block, 4 MiB of attention and
/// 6 MiB of feed-forward weights in tensors of 512 KiB to 2 MiB.
#[must_use]
pub fn wide_model(blocks: u64, seed: u64) -> Vec<u8> {
    let mut builder = GgufBuilder::tiny_llama("Wide").kv(TEMPLATE, "{{ messages }}");
    for block in 0..blocks {
        for (name, rows) in [
            ("attn_q", 512),
            ("attn_k", 256),
            ("attn_v", 256),
            ("attn_output", 1024),
            ("ffn_gate", 1024),
            ("ffn_up", 1024),
            ("ffn_down", 1024),
        ] {
            builder = builder.tensor(&format!("blk.{block}.{name}.weight"), &[512, rows], "F32");
        }
    }
    let mut file = builder.build();
    let data = place(Header::parse(&file, None).expect("a header").data_offset());
    let filling = noise(file.len() - data, seed);
    file[data..].copy_from_slice(&filling);
    file
}

/// The model with another chat template.
#[must_use]
pub fn with_template(model: &[u8], template: &str) -> Vec<u8> {
    rewrite(
        model,
        |key| (key == TEMPLATE).then(|| Value::from(template)),
        |tensor, data| (tensor.tensor_type(), data.to_vec()),
    )
}

/// The model with some tensors trained on: every fiftieth byte of those is a little different.
#[must_use]
pub fn with_changed_tensors(model: &[u8], is_changed: impl Fn(&str) -> bool) -> Vec<u8> {
    rewrite(
        model,
        |_| None,
        |tensor, data| {
            let mut data = data.to_vec();
            if is_changed(tensor.name()) {
                data.iter_mut().step_by(50).for_each(|byte| *byte ^= 1);
            }
            (tensor.tensor_type(), data)
        },
    )
}

/// The model with an adapter (`LoRA`) merged, of the usual kind: on the queries and values of
/// every block.
#[must_use]
pub fn with_merged_adapter(model: &[u8]) -> Vec<u8> {
    with_changed_tensors(model, is_adapted)
}

/// Whether [`with_merged_adapter`] changes a tensor.
#[must_use]
pub fn is_adapted(tensor: &str) -> bool {
    tensor.ends_with(".attn_q.weight") || tensor.ends_with(".attn_v.weight")
}

/// A model in `Q8_0`, in F32.
///
/// # Panics
/// When the model is not what it says.
#[must_use]
pub fn requantised(model: &[u8]) -> Vec<u8> {
    let all_f32 = Value::U32(0);
    rewrite(
        model,
        |key| (key == "general.file_type").then(|| all_f32.clone()),
        |tensor, data| {
            let data = match tensor.tensor_type().name() {
                "Q8_0" => data.chunks_exact(Q8_0_BYTES).flat_map(weights).collect(),
                _ => data.to_vec(),
            };
            (TensorType::from_name("F32").expect("a type"), data)
        },
    )
}

/// How many bytes of the new blob are in no chunk of the old ones: what must be fetched.
#[must_use]
pub fn bytes_to_fetch(old: &[&ChunkMap], new: &ChunkMap) -> u64 {
    let held: HashSet<ChunkHash> = old
        .iter()
        .flat_map(|map| map.chunks().map(|(_, hash)| hash))
        .collect();
    new.chunks()
        .filter(|(_, hash)| !held.contains(hash))
        .map(|(range, _)| range.end - range.start)
        .sum()
}

/// The model written anew, with other values for some metadata and other tensors.
fn rewrite(
    model: &[u8],
    value: impl Fn(&str) -> Option<Value>,
    tensor: impl Fn(&TensorInfo, &[u8]) -> (TensorType, Vec<u8>),
) -> Vec<u8> {
    let header = Header::parse(model, Some(model.len() as u64)).expect("a GGUF file");
    let mut builder = GgufBuilder::new();
    for (key, old) in header.metadata().iter() {
        builder = builder.kv(key, value(key).unwrap_or_else(|| old.clone()));
    }
    let mut contents = Vec::new();
    for row in header.tensors() {
        let start = place(header.data_offset() + row.offset());
        let data = &model[start..start + place(row.bytes())];
        let (kind, data) = tensor(row, data);
        builder = builder.tensor(row.name(), row.dimensions(), kind.name());
        contents.push(data);
    }
    let mut file = builder.build();
    let header = Header::parse(&file, None).expect("a header that was just written");
    for (row, data) in header.tensors().iter().zip(contents) {
        let start = place(header.data_offset() + row.offset());
        file[start..start + data.len()].copy_from_slice(&data);
    }
    file
}

/// The weights of a block of `Q8_0`, as bytes of F32.
fn weights(block: &[u8]) -> Vec<u8> {
    let scale = half(u16::from_le_bytes([block[0], block[1]]));
    block[2..]
        .iter()
        .flat_map(|weight| (scale * f32::from(weight.cast_signed())).to_le_bytes())
        .collect()
}

/// A number of half precision, of those that scales have: no infinity.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    let fraction = f32::from(bits & 0x3ff) / 1024.0;
    match i32::from(bits >> 10 & 0x1f) {
        0 => sign * fraction * 2_f32.powi(-14),
        exponent => sign * (1.0 + fraction) * 2_f32.powi(exponent - 15),
    }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).expect("a place in memory")
}

#[cfg(test)]
mod tests {
    use artifact::ChunkMap;
    use artifact::gguf::{Header, check};

    use super::{
        bytes_to_fetch, hay_tiny, is_adapted, place, requantised, wide_model, with_changed_tensors,
        with_merged_adapter, with_template,
    };
    use crate::upstream::chunk_map_of;

    fn header(model: &[u8]) -> Header {
        let header = Header::parse(model, Some(model.len() as u64)).unwrap();
        assert!(check(&header).is_ok());
        header
    }

    /// What a node that has `old` fetches of `new`.
    fn fetched(old: &[u8], new: &[u8]) -> u64 {
        bytes_to_fetch(&[&chunk_map_of(old)], &chunk_map_of(new))
    }

    /// Bytes of the chunks of `new` that hold a byte of a tensor of which this is true.
    fn touched(map: &ChunkMap, model: &[u8], is_changed: impl Fn(&str) -> bool) -> u64 {
        let header = header(model);
        let mut chunks: Vec<usize> = Vec::new();
        for tensor in header.tensors() {
            if is_changed(tensor.name()) {
                let start = header.data_offset() + tensor.offset();
                let last = map.chunk_of(start + tensor.bytes() - 1);
                chunks.extend(map.chunk_of(start)..=last);
            }
        }
        chunks.sort_unstable();
        chunks.dedup();
        let bytes = chunks.iter().map(|chunk| map.range(*chunk));
        bytes.map(|range| range.end - range.start).sum()
    }

    #[test]
    fn the_bundled_model_written_anew_is_the_bundled_model() {
        let model = hay_tiny();
        let template = header(&model).chat_template().unwrap().to_owned();
        assert_eq!(with_template(&model, &template), model);
        assert_eq!(fetched(&model, &model), 0);
        assert_eq!(fetched(&wide_model(1, 1), &model), model.len() as u64);
    }

    #[test]
    fn another_chat_template_costs_the_header() {
        for (model, most) in [(hay_tiny(), 60_000), (wide_model(3, 1), 2000)] {
            let new = with_template(&model, "{{ messages }} and then some");
            let data = header(&new).data_offset();
            let cost = fetched(&model, &new);
            assert_eq!(
                header(&new).chat_template(),
                Some("{{ messages }} and then some")
            );
            assert!((1..=data).contains(&cost), "{cost} of {data}");
            assert!(cost < most && cost * 20 < new.len() as u64, "{cost}");
        }
    }

    #[test]
    fn changed_tensors_cost_the_chunks_that_they_are_in_and_nothing_else() {
        for model in [hay_tiny(), wide_model(3, 2)] {
            for name in [
                "token_embd.weight",
                "blk.1.ffn_down.weight",
                "blk.2.attn_k.weight",
            ] {
                let new = with_changed_tensors(&model, |tensor| tensor == name);
                let map = chunk_map_of(&new);
                let cost = fetched(&model, &new);
                assert_eq!(cost, touched(&map, &new, |tensor| tensor == name), "{name}");
                assert!(cost * 4 < new.len() as u64, "{name}: {cost}");
            }
        }
    }

    #[test]
    fn a_merged_adapter_costs_the_tensors_that_it_is_on() {
        for (model, percent) in [(hay_tiny(), 70), (wide_model(3, 3), 20)] {
            let new = with_merged_adapter(&model);
            let cost = fetched(&model, &new);
            assert_eq!(cost, touched(&chunk_map_of(&new), &new, is_adapted));
            let most = new.len() as u64 * percent / 100;
            assert!(cost < most, "{cost} of {}", new.len());
        }
        // Where tensors are large, not a byte more than them is fetched.
        let new = with_merged_adapter(&wide_model(3, 3));
        let adapted: u64 = (header(&new).tensors().iter())
            .filter(|tensor| is_adapted(tensor.name()))
            .map(|tensor| tensor.bytes())
            .sum();
        assert_eq!(touched(&chunk_map_of(&new), &new, is_adapted), adapted);
    }

    #[test]
    fn another_quantisation_is_another_model() {
        let model = hay_tiny();
        let new = requantised(&model);
        assert_eq!(header(&new).quantisation(), Some("F32"));
        let tensor = header(&new).tensors()[0].clone();
        assert_eq!((tensor.tensor_type().name(), tensor.offset()), ("F32", 0));
        // Real weights: small numbers, and not all the same.
        let start = place(header(&new).data_offset());
        let weights: Vec<f32> = new[start..start + 4096]
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect();
        assert!(weights.iter().all(|weight| weight.abs() < 10.0));
        assert!(weights.iter().any(|weight| *weight != weights[0]));
        // The whole of it, but for what of the header did not change.
        let cost = fetched(&model, &new);
        assert!(
            new.len() as u64 - cost < header(&new).data_offset(),
            "{cost}"
        );
    }
}
