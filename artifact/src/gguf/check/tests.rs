//! Tests of the check on headers made for the purpose.
#![expect(clippy::unwrap_used, reason = "a test may stop")]

use super::{Kind, Split, Unsound, check, split_of};
use crate::gguf::builder::GgufBuilder;
use crate::gguf::{Header, Value};

fn header(builder: GgufBuilder) -> Header {
    let file = builder.build();
    Header::parse(&file, None).unwrap()
}

fn refused(builder: GgufBuilder) -> Unsound {
    check(&header(builder)).unwrap_err()
}

/// A small model with everything but one number, which is this.
fn with(key: &str, value: Value) -> GgufBuilder {
    GgufBuilder::tiny_llama("t").kv(key, value)
}

/// A model of one layer whose tokenizer is `build`.
fn with_tokenizer(build: impl FnOnce(GgufBuilder) -> GgufBuilder) -> GgufBuilder {
    let start = GgufBuilder::new()
        .kv("general.architecture", "llama")
        .kv("llama.block_count", Value::U32(1))
        .kv("llama.context_length", Value::U32(512))
        .kv("llama.embedding_length", Value::U32(64));
    build(start).tensor("output_norm.weight", &[64], "F32")
}

#[test]
fn files_are_told_apart_by_what_llama_cpp_would_do_with_them() {
    let kind = |builder| check(&header(builder)).unwrap();
    assert_eq!(kind(GgufBuilder::tiny_llama("t")), Kind::Model);
    let vocabulary = GgufBuilder::new()
        .kv("general.architecture", "llama")
        .kv("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &["a"]);
    assert_eq!(kind(vocabulary), Kind::Vocabulary);
    let of_type = |text: &str| GgufBuilder::new().kv("general.type", text);
    assert_eq!(kind(of_type("mmproj")), Kind::Projector);
    assert_eq!(kind(of_type("adapter")), Kind::Adapter);
    assert_eq!(kind(of_type("imatrix")), Kind::Other);
    let clip = GgufBuilder::new().kv("general.architecture", "clip");
    assert_eq!(kind(clip), Kind::Projector);
    let image_model = GgufBuilder::new()
        .kv("general.architecture", "flux")
        .tensor("img_in.weight", &[64], "F32");
    assert_eq!(kind(image_model), Kind::Other);
    assert_eq!(kind(GgufBuilder::new()), Kind::Other);
}

#[test]
fn parts_of_a_model_in_several_files_say_which_they_are() {
    let part = |number| {
        GgufBuilder::new()
            .kv("split.no", Value::U16(number))
            .kv("split.count", Value::U16(3))
            .kv("split.tensors.count", Value::I32(2))
            .tensor("blk.1.attn_q.weight", &[64], "F32")
    };
    assert_eq!(check(&header(part(1))), Ok(Kind::Part));
    let split = Split {
        number: 2,
        count: 3,
    };
    assert_eq!(split_of(&header(part(2))), Ok(Some(split)));
    assert!(matches!(refused(part(3)), Unsound::Split { .. }));
    let alone = with("split.count", Value::U16(1));
    assert_eq!(split_of(&header(alone)), Ok(None));
    let nameless = with("split.count", Value::U16(3));
    assert!(matches!(refused(nameless), Unsound::Missing { .. }));
    let wide = with("split.count", Value::U32(3));
    assert!(matches!(refused(wide), Unsound::WrongType { .. }));
}

#[test]
fn a_gap_between_tensors_is_refused_as_llama_cpp_does() {
    let number = 0;
    let gap = GgufBuilder::new()
        .raw_tensor(b"a", &[8], number, 0)
        .raw_tensor(b"b", &[8], number, 64);
    let error = refused(gap);
    assert!(
        matches!(error, Unsound::Misplaced { expected: 32, .. }),
        "{error}"
    );
    let swapped = GgufBuilder::new()
        .raw_tensor(b"a", &[8], number, 32)
        .raw_tensor(b"b", &[8], number, 0);
    assert!(matches!(refused(swapped), Unsound::Misplaced { .. }));
}

#[test]
fn numbers_that_llama_cpp_aborts_over_are_refused() {
    for (key, value) in [
        ("llama.attention.head_count", Value::U32(7)),
        ("llama.attention.head_count", Value::U32(1 << 30)),
        ("llama.attention.head_count", Value::I32(4)),
        ("llama.feed_forward_length", Value::U32(0)),
        ("llama.feed_forward_length", Value::U64(64)),
        ("llama.nextn_predict_layers", Value::U32(2)),
        ("llama.expert_count", Value::U32(8)),
        ("llama.expert_used_count", Value::U32(2)),
        ("llama.expert_group_count", Value::U32(1)),
        ("llama.rope.scaling.type", Value::String("twist".to_owned())),
        ("llama.rope.scaling.type", Value::U32(1)),
        ("general.architectures", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::I32(1)),
        ("tokenizer.ggml.add_bos_token", Value::U32(1)),
    ] {
        let outcome = check(&header(with(key, value.clone())));
        let is_known = !key.ends_with("architectures");
        assert_eq!(outcome.is_err(), is_known, "{key} = {value:?}: {outcome:?}");
    }
    let experts = with("llama.expert_count", Value::U32(8))
        .kv("llama.expert_used_count", Value::U32(2))
        .kv("llama.expert_group_count", Value::U32(4))
        .kv("llama.expert_group_used_count", Value::U32(2));
    assert_eq!(check(&header(experts)), Ok(Kind::Model));
}

#[test]
fn numbers_by_layer_have_one_entry_for_each_layer() {
    let bytes = |count: u64| {
        let elements = vec![0_u8; usize::try_from(count).unwrap() * 4];
        [&4_u32.to_le_bytes()[..], &count.to_le_bytes(), &elements].concat()
    };
    let key = b"llama.feed_forward_length";
    let one = GgufBuilder::tiny_llama("t").raw_kv(key, 9, &bytes(1));
    assert_eq!(check(&header(one)), Ok(Kind::Model));
    let two = GgufBuilder::tiny_llama("t").raw_kv(key, 9, &bytes(2));
    assert!(matches!(refused(two), Unsound::Layers { found: 2, .. }));
}

#[test]
fn a_model_without_what_llama_cpp_needs_is_refused() {
    let error = refused(
        GgufBuilder::new()
            .kv("general.architecture", "llama")
            .kv("llama.block_count", Value::U32(1))
            .tensor("output_norm.weight", &[64], "F32"),
    );
    let text = error.to_string();
    assert!(text.contains("llama.context_length"), "{text}");
    let error = refused(with_tokenizer(|builder| builder));
    assert!(error.to_string().contains("tokenizer.ggml.model"));
    let error = refused(GgufBuilder::new().kv("general.architecture", Value::U32(1)));
    assert!(matches!(error, Unsound::WrongType { .. }));
}

#[test]
fn a_tokenizer_that_llama_cpp_chokes_on_is_refused() {
    let spm = |builder: GgufBuilder| builder.kv("tokenizer.ggml.model", "llama");
    let tokens = "tokenizer.ggml.tokens";
    let unmerged = with_tokenizer(|builder| {
        builder
            .kv("tokenizer.ggml.model", "gpt2")
            .strings(tokens, &["a"])
    });
    assert!(refused(unmerged).to_string().contains("merges"));
    let twice = with_tokenizer(|builder| spm(builder).strings(tokens, &["a", "", "", "a"]));
    let error = refused(twice);
    let expected = "tokens 0 and 3 are both \"a\"";
    assert!(error.to_string().contains(expected), "{error}");
    let short = [&5_u32.to_le_bytes()[..], &1_u64.to_le_bytes(), &[0; 4]].concat();
    let short = with_tokenizer(|builder| {
        spm(builder)
            .strings(tokens, &["a", "b"])
            .raw_kv(b"tokenizer.ggml.token_type", 9, &short)
    });
    assert!(matches!(refused(short), Unsound::TooShort { .. }));
    let wide = with_tokenizer(|builder| {
        spm(builder)
            .strings(tokens, &["a"])
            .tensor("token_embd.weight", &[64, 2], "F32")
    });
    assert!(matches!(refused(wide), Unsound::Embeddings { .. }));
    let none = with_tokenizer(|builder| builder.kv("tokenizer.ggml.model", "none"));
    assert_eq!(check(&header(none)), Ok(Kind::Model));
}
