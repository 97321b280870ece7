//! What a push is made of: the files of a model, each with its place in the manifest.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use artifact::Digest;
use artifact::dialect::ModelFacts;
use artifact::gguf::{self, Header, Kind};
use artifact::manifest::Descriptor;
use artifact::media_type::modelpack;
use artifact::modelfile::{self, Instruction, Modelfile};

/// Largest README or LICENSE that is packed, in bytes.
const MAX_DOCUMENT_BYTES: u64 = 16 * 1024 * 1024;

/// The model that a path holds.
#[derive(Debug)]
pub(crate) struct Package {
    /// The parts, weights first.
    pub(crate) parts: Vec<Part>,
    /// What the header of the weights says.
    pub(crate) facts: ModelFacts,
    /// The same as annotations of the manifest.
    pub(crate) annotations: BTreeMap<String, String>,
}

/// One layer to be.
#[derive(Debug)]
pub(crate) struct Part {
    /// File name in the manifest.
    pub(crate) name: String,
    /// Media type of the layer.
    pub(crate) media_type: &'static str,
    /// Where the bytes come from.
    pub(crate) source: Source,
}

/// Bytes of a [`Part`].
#[derive(Debug)]
pub(crate) enum Source {
    /// A file of this size in bytes: weights, sent as they are read.
    File(PathBuf, u64),
    /// A small text.
    Bytes(Vec<u8>),
}

impl Part {
    /// The descriptor of this part once its digest is known.
    pub(crate) fn descriptor(&self, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: self.media_type.to_owned(),
            digest,
            size,
            artifact_type: None,
            annotations: BTreeMap::from([(modelpack::FILEPATH.to_owned(), self.name.clone())]),
            is_foreign: false,
        }
    }
}

impl Package {
    /// Reads a GGUF file, or a folder with a Modelfile. Every GGUF header is checked here, before
    /// a byte is sent.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        if metadata.is_dir() {
            return Self::from_folder(path);
        }
        let weights = Weights::read(path)?;
        Ok(Self {
            facts: weights.facts(),
            annotations: weights.annotations(),
            parts: vec![weights.part],
        })
    }

    fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("Modelfile");
        let bytes = read_bounded(&path, modelfile::MAX_BYTES as u64).with_context(|| {
            format!(
                "{} has no Modelfile: name a GGUF file, or add one",
                folder.display()
            )
        })?;
        let modelfile = Modelfile::parse(&bytes).with_context(|| path.display().to_string())?;
        let mut parts = Vec::new();
        let mut model = None;
        let mut instructions = Vec::new();
        for instruction in modelfile.instructions() {
            let (named, rebuilt): (&str, fn(String) -> Instruction) = match instruction {
                Instruction::From(named) => (named, Instruction::From),
                Instruction::Adapter(named) => (named, Instruction::Adapter),
                Instruction::Draft(named) => {
                    bail!("{}: DRAFT {named} is not supported by push", path.display())
                }
                other => {
                    instructions.push(other.clone());
                    continue;
                }
            };
            let is_adapter = matches!(instruction, Instruction::Adapter(_));
            let mut weights = Weights::read(&folder.join(named)).with_context(|| {
                format!(
                    "{} names {named}, which must be a GGUF file",
                    path.display()
                )
            })?;
            weights.part.name = weights.layer_name(is_adapter);
            if model.is_none() && !is_adapter {
                model = Some((weights.facts(), weights.annotations()));
            }
            let part = weights.part;
            // The name in the pushed Modelfile is the one in the manifest, not a path of this machine.
            instructions.push(rebuilt(format!("./{}", part.name)));
            parts.push(part);
        }
        let pushed = Modelfile::from_instructions(instructions)?;
        parts.push(Part {
            name: "Modelfile".to_owned(),
            media_type: modelpack::WEIGHT_CONFIG_RAW,
            source: Source::Bytes(pushed.to_string().into_bytes()),
        });
        parts.extend(documents(folder)?);
        let (facts, annotations) = model.unwrap_or_default();
        Ok(Self {
            parts,
            facts,
            annotations,
        })
    }
}

/// A GGUF file whose header was checked.
#[derive(Debug)]
struct Weights {
    part: Part,
    header: Header,
    kind: Kind,
}

impl Weights {
    fn read(path: &Path) -> Result<Self> {
        let mut file =
            File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            bail!("{} is not a file", path.display());
        }
        let unfit = || format!("{} is not a GGUF file that can be served", path.display());
        let header = Header::read(&mut file, Some(metadata.len())).with_context(unfit)?;
        let kind = gguf::check(&header).with_context(unfit)?;
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .with_context(|| format!("the name of {} is not UTF-8", path.display()))?;
        let part = Part {
            name: name.to_owned(),
            media_type: modelpack::WEIGHT_RAW,
            source: Source::File(path.to_owned(), metadata.len()),
        };
        Ok(Self { part, header, kind })
    }

    fn facts(&self) -> ModelFacts {
        ModelFacts::from(&self.header)
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        gguf::annotations(&self.header, self.kind)
    }

    /// ModelPack has one type for all weights: readers tell projectors and adapters by their names.
    fn layer_name(&self, is_adapter: bool) -> String {
        let name = self.part.name.as_str();
        let marked = |marks: &[&str]| {
            marks
                .iter()
                .any(|mark| name.to_ascii_lowercase().contains(mark))
        };
        if self.kind == Kind::Projector && !marked(&["mmproj"]) {
            format!("mmproj-{name}")
        } else if is_adapter && !marked(&["lora", "adapter"]) {
            format!("adapter-{name}")
        } else {
            name.to_owned()
        }
    }
}

/// README and LICENSE files beside the Modelfile, in the order of their names.
fn documents(folder: &Path) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let upper = name.to_ascii_uppercase();
        if !(upper.starts_with("README") || upper.starts_with("LICENSE"))
            || !entry.file_type()?.is_file()
        {
            continue;
        }
        let bytes = read_bounded(&entry.path(), MAX_DOCUMENT_BYTES)?;
        parts.push(Part {
            name,
            media_type: modelpack::DOC_RAW,
            source: Source::Bytes(bytes),
        });
    }
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(parts)
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    use std::io::Read;
    let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        bail!("{} has more than {limit} bytes", path.display());
    }
    Ok(bytes)
}
