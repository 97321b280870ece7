//! Every dialect from every other.
#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::dialect::{
    Derived, Dialect, Document, Inexpressible, ModelFacts, Parts, Role, Source, derive,
    file_name_of, modelpack_manifest, role_of, texts_of, weights_of,
};
use crate::digest::Digest;
use crate::gguf::Header;
use crate::gguf::builder::GgufBuilder;
use crate::manifest::{Descriptor, Manifest};
use crate::media_type::{self, docker_model, hayloft, modelpack, ollama};

const JINJA: &str = "{% for m in messages %}<|im_start|>{{ m.role }}<|im_end|>{% endfor %}";
const MODELFILE: &str = "FROM ./tiny.gguf\nTEMPLATE {{ .Prompt }}\nSYSTEM Be brief.\n\
    PARAMETER temperature 0.5\nPARAMETER num_ctx 4096\nMESSAGE user Hello\nLICENSE MIT\n";

fn weights() -> Vec<u8> {
    GgufBuilder::tiny_llama("Tiny")
        .kv("tokenizer.chat_template", JINJA)
        .build()
}

/// A model that is kept in memory.
struct Model {
    manifest: Manifest,
    blobs: BTreeMap<Digest, Vec<u8>>,
}

impl Model {
    fn modelpack(files: &[(&'static str, &str, Vec<u8>)]) -> Self {
        let mut blobs = BTreeMap::new();
        let layers: Vec<_> = files
            .iter()
            .map(|(media_type, name, bytes)| {
                blobs.insert(Digest::sha256(bytes), bytes.clone());
                layer(media_type, Some(name), bytes)
            })
            .collect();
        let (config, manifest) =
            modelpack_manifest(&layers, &ModelFacts::default(), &BTreeMap::new());
        blobs.insert(config.digest, config.bytes);
        Self {
            manifest: Manifest::parse(manifest.bytes, None).unwrap(),
            blobs,
        }
    }

    /// The bundled kind: weights alone, or with a Modelfile.
    fn plain(modelfile: Option<&str>) -> Self {
        let mut files = vec![(modelpack::WEIGHT_RAW, "tiny.gguf", weights())];
        files.extend(modelfile.map(|text| {
            let media_type = modelpack::WEIGHT_CONFIG_RAW;
            (media_type, "Modelfile", text.as_bytes().to_vec())
        }));
        Self::modelpack(&files)
    }

    fn parts(&self) -> Parts {
        let read = |layer: &Descriptor| {
            let bytes = self.blobs.get(&layer.digest)?;
            Some((layer.digest, bytes.clone()))
        };
        let weights = weights_of(&self.manifest).and_then(|layer| self.blobs.get(&layer.digest));
        Parts {
            texts: texts_of(&self.manifest).filter_map(read).collect(),
            header: weights.and_then(|bytes| Header::parse(bytes, None).ok()),
        }
    }

    fn derive(&self, dialect: Dialect) -> Result<Derived, Inexpressible> {
        let source = Source {
            manifest: &self.manifest,
            digest: self.manifest.digest(),
            parts: &self.parts(),
        };
        derive(source, dialect)
    }

    /// The same model in another dialect.
    fn turned(&self, dialect: Dialect) -> Self {
        let derived = self.derive(dialect).unwrap();
        let mut blobs = self.blobs.clone();
        let new = derived.documents.into_iter();
        blobs.extend(new.map(|document| (document.digest, document.bytes)));
        let manifest = Manifest::parse(derived.manifest.bytes, None).unwrap();
        assert_eq!(Dialect::of(&manifest), dialect);
        let all_there = manifest
            .blobs()
            .all(|blob| blobs.contains_key(&blob.digest));
        assert!(all_there, "{manifest:?}");
        Self { manifest, blobs }
    }

    fn text(&self, role: Role) -> Option<String> {
        let mut layers = self.manifest.layers().iter();
        let layer = layers.find(|layer| role_of(layer) == role)?;
        String::from_utf8(self.blobs[&layer.digest].clone()).ok()
    }

    fn config(&self) -> Value {
        let config = self.manifest.config().unwrap();
        serde_json::from_slice(&self.blobs[&config.digest]).unwrap()
    }
}

fn layer(media_type: &str, name: Option<&str>, bytes: &[u8]) -> Descriptor {
    let annotations = name.map(|name| (modelpack::FILEPATH.to_owned(), name.to_owned()));
    Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::sha256(bytes),
        size: bytes.len() as u64,
        artifact_type: None,
        annotations: annotations.into_iter().collect(),
        is_foreign: false,
    }
}

#[test]
fn the_same_source_gives_the_same_bytes_and_the_same_weights() {
    let model = Model::plain(Some(MODELFILE));
    let weights = Digest::sha256(&weights());
    for dialect in [Dialect::Ollama, Dialect::Docker] {
        let derived = model.derive(dialect).unwrap();
        assert_eq!(derived, model.derive(dialect).unwrap());
        let turned = model.turned(dialect);
        assert_eq!(weights_of(&turned.manifest).unwrap().digest, weights);
    }
}

#[test]
fn a_modelfile_becomes_the_layers_of_ollama_and_back() {
    let model = Model::plain(Some(MODELFILE)).turned(Dialect::Ollama);
    assert_eq!(model.text(Role::Template).unwrap(), "{{ .Prompt }}");
    assert_eq!(model.text(Role::System).unwrap(), "Be brief.");
    let params: Value = serde_json::from_str(&model.text(Role::Params).unwrap()).unwrap();
    assert_eq!(params, json!({ "temperature": 0.5, "num_ctx": 4096 }));
    let messages: Value = serde_json::from_str(&model.text(Role::Messages).unwrap()).unwrap();
    assert_eq!(messages, json!([{ "role": "user", "content": "Hello" }]));
    assert_eq!(model.text(Role::License).unwrap(), "MIT");

    let back = model.turned(Dialect::ModelPack);
    let modelfile = back.text(Role::Modelfile).unwrap();
    for line in [
        "FROM ./model.gguf",
        "TEMPLATE {{ .Prompt }}",
        "SYSTEM Be brief.",
        "PARAMETER temperature 0.5",
        "MESSAGE user Hello",
    ] {
        assert!(modelfile.contains(line), "{line}: {modelfile}");
    }
    assert_eq!(back.text(Role::License).unwrap(), "MIT");
    assert_eq!(back.config()["config"]["architecture"], "llama");
}

#[test]
fn a_model_without_a_template_gets_that_of_its_chat_format() {
    let model = Model::plain(None).turned(Dialect::Ollama);
    assert!(model.text(Role::Template).unwrap().contains("<|im_start|>"));
    assert!(model.text(Role::Params).unwrap().contains("<|im_end|>"));
    // What it says is what the weights say already: nothing is written that nobody wrote.
    let docker = Model::plain(None).turned(Dialect::Docker);
    assert_eq!(docker.text(Role::ChatTemplate), None);
}

#[test]
fn docker_gets_its_config_and_a_reference_back() {
    let source = Model::plain(Some(MODELFILE));
    let model = source.turned(Dialect::Docker);
    let config = model.config();
    assert_eq!(config["config"]["format"], "gguf");
    assert_eq!(config["config"]["architecture"], "llama");
    assert_eq!(config["config"]["context_size"], 4096);
    assert_eq!(config["config"]["gguf"]["general.name"], "Tiny");
    let layers = model.manifest.layers();
    let types: Vec<_> = layers
        .iter()
        .map(|layer| layer.media_type.as_str())
        .collect();
    assert_eq!(types, [docker_model::GGUF, docker_model::LICENSE]);
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
    assert_eq!(
        config["rootfs"],
        json!({ "type": "rootfs", "diff_ids": diff_ids })
    );
    let subject = model.manifest.subject().unwrap();
    assert_eq!(subject.digest, source.manifest.digest());
    let from = &model.manifest.annotations()[hayloft::DERIVED_FROM];
    assert_eq!(*from, source.manifest.digest().to_string());
    assert_eq!(model.manifest.media_type(), media_type::OCI_MANIFEST);
}

#[test]
fn what_docker_says_is_carried_on() {
    let jinja = JINJA.as_bytes().to_vec();
    let source = Model::modelpack(&[
        (docker_model::GGUF, "a.gguf", weights()),
        (docker_model::MMPROJ, "b.gguf", b"projector".to_vec()),
        (docker_model::TEMPLATE, "t", jinja.clone()),
        (docker_model::LICENSE, "l", b"MIT".to_vec()),
    ]);
    let model = source.turned(Dialect::Ollama);
    let roles: Vec<_> = model.manifest.layers().iter().map(role_of).collect();
    let wanted = [
        Role::Model,
        Role::Projector,
        Role::Template,
        Role::Params,
        Role::License,
    ];
    assert_eq!(roles, wanted);
    assert_eq!(model.config()["model_families"], json!(["llama", "clip"]));
    let docker = source.turned(Dialect::Docker);
    assert_eq!(docker.text(Role::ChatTemplate).unwrap(), JINJA);
    let back = model.turned(Dialect::ModelPack);
    let modelfile = back.text(Role::Modelfile).unwrap();
    assert!(modelfile.contains("FROM ./mmproj.gguf"), "{modelfile}");
}

#[test]
fn parts_of_a_split_file_are_carried_where_there_is_a_place_for_them() {
    let source = Model::modelpack(&[
        (modelpack::WEIGHT_RAW, "x-00001-of-00002.gguf", weights()),
        (
            modelpack::WEIGHT_RAW,
            "x-00002-of-00002.gguf",
            b"2".to_vec(),
        ),
    ]);
    let refused = source.derive(Dialect::Ollama).unwrap_err();
    assert_eq!(refused, Inexpressible::Split { parts: 2 });
    let docker = source.turned(Dialect::Docker);
    let digests = |model: &Model| {
        let layers = model.manifest.layers().iter();
        layers.map(|layer| layer.digest).collect::<Vec<_>>()
    };
    assert_eq!(digests(&docker), digests(&source));
    let back = docker.turned(Dialect::ModelPack);
    let layers = back.manifest.layers().iter();
    let names: Vec<_> = layers.filter_map(file_name_of).collect();
    assert_eq!(names, ["x-00001-of-00002.gguf", "x-00002-of-00002.gguf"]);
}

#[test]
fn archives_are_no_weights() {
    let tar = "application/vnd.cncf.model.weight.v1.tar";
    let source = Model::modelpack(&[(tar, "model.tar", b"tar".to_vec())]);
    for dialect in [Dialect::Ollama, Dialect::Docker] {
        let refused = source.derive(dialect).unwrap_err();
        assert_eq!(refused, Inexpressible::NoWeights);
    }
}

#[test]
fn a_text_that_cannot_be_read_is_not_dropped_in_silence() {
    let mut model = Model::plain(Some(MODELFILE)).turned(Dialect::Ollama);
    let system = Digest::sha256(b"Be brief.");
    model.blobs.remove(&system);
    let refused = model.derive(Dialect::ModelPack).unwrap_err();
    let wanted = Inexpressible::Unreadable {
        role: Role::System,
        digest: system,
    };
    assert_eq!(refused, wanted);
}

#[test]
fn ollamas_own_names_survive() {
    let config = json!({
        "model_family": "qwen3", "model_type": "8B", "file_type": "Q4_K_M",
        "renderer": "qwen3-coder", "parser": "qwen3-coder",
    });
    let config = config.to_string().into_bytes();
    let bytes = weights();
    let text = |descriptor: &Descriptor| {
        json!({
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::DOCKER_MANIFEST,
        "config": text(&layer(ollama::CONFIG, None, &config)),
        "layers": [text(&layer(ollama::MODEL, None, &bytes))],
    });
    let model = Model {
        manifest: Manifest::parse(manifest.to_string().into_bytes(), None).unwrap(),
        blobs: [config, bytes]
            .map(|bytes| (Digest::sha256(&bytes), bytes))
            .into(),
    };
    let packed = model.turned(Dialect::ModelPack);
    let modelfile = packed.text(Role::Modelfile).unwrap();
    assert!(modelfile.contains("RENDERER qwen3-coder"), "{modelfile}");
    let again = packed.turned(Dialect::Ollama);
    assert_eq!(again.config()["parser"], "qwen3-coder");
}

#[test]
fn documents_name_their_own_bytes() {
    let derived = Model::plain(Some(MODELFILE))
        .derive(Dialect::Ollama)
        .unwrap();
    let is_named = |document: &Document| Digest::sha256(&document.bytes) == document.digest;
    assert!(derived.documents.iter().all(is_named));
    assert!(is_named(&derived.manifest));
}
