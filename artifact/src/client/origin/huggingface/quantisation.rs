//! Which files of a repository are the model that a tag means: the rules of llama.cpp's `-hf`
//! (`common/download.cpp`), so that one name gives one model whoever resolves it.

/// What is tried for `latest`, before the first GGUF file there is.
const DEFAULTS: [&str; 2] = ["Q4_K_M", "Q8_0"];
/// Most parts of one split model that are believed.
const MAX_PARTS: u32 = 1000;

/// The files of one model: positions in the list that was searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// The GGUF file, or all parts of a split one in order.
    pub(super) weights: Vec<usize>,
    /// The vision projector that goes with it.
    pub(super) projector: Option<usize>,
}

/// Why a tag means no model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoChoice {
    /// No file matches.
    NoMatch,
    /// A split model of which a part is missing.
    MissingPart { path: String, parts: u32 },
}

/// A file name of llama.cpp's taken apart: `<prefix>-<tag>[-00001-of-00003].gguf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name<'a> {
    /// Everything before the number of the part and the ending.
    stem: &'a str,
    part: u32,
    parts: u32,
}

impl<'a> Name<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let whole = strip_gguf(path)?;
        let split = || {
            let (rest, parts) = whole.rsplit_once("-of-")?;
            let (stem, part) = rest.rsplit_once('-')?;
            Some((stem, number(part)?, number(parts)?))
        };
        let (stem, part, parts) = split().unwrap_or((whole, 1, 1));
        Some(Self { stem, part, parts })
    }

    /// The last word, which names the quantisation: `Q4_K_M` of `Llama-3.2-1B-Q4_K_M`.
    fn tag(&self) -> &'a str {
        let file = self.stem.rsplit('/').next().unwrap_or(self.stem);
        let word = file.rsplit(['-', '.']).next().unwrap_or_default();
        let is_word = word.len() < file.len()
            && !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_word { word } else { "" }
    }

    /// Bits of the quantisation, as far as its first number says.
    fn bits(&self) -> i64 {
        let digits = self.tag().trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = digits
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(digits.len());
        digits[..end.min(6)].parse().unwrap_or(0)
    }
}

/// Whether a tag reads like the name of a quantisation, so that it is looked for among the files
/// before the revisions.
pub(super) fn reads_like_one(tag: &str) -> bool {
    let upper = tag.to_ascii_uppercase();
    let word = upper.strip_prefix("UD-").unwrap_or(&upper);
    let after = |prefix: &str| {
        word.strip_prefix(prefix)
            .is_some_and(|rest| rest.bytes().next().is_some_and(|b| b.is_ascii_digit()))
    };
    ["Q", "IQ", "TQ", "F", "BF", "FP", "MXFP", "NVFP"]
        .iter()
        .any(|prefix| after(prefix))
}

/// The model that `tag` means among the files at these paths; `latest` means the usual one.
pub(super) fn choose(paths: &[&str], tag: &str) -> Result<Choice, NoChoice> {
    let first_of = |wanted: &dyn Fn(&str) -> bool| {
        paths
            .iter()
            .position(|path| is_model(path) && is_first_part(path) && wanted(path))
    };
    let main = if tag == "latest" {
        DEFAULTS
            .iter()
            .find_map(|tag| first_of(&|path| mentions(path, tag)))
            .or_else(|| first_of(&|_| true))
    } else {
        first_of(&|path| mentions(path, tag))
    };
    let main = main.ok_or(NoChoice::NoMatch)?;
    Ok(Choice {
        weights: parts_of(paths, main)?,
        projector: projector_of(paths, paths[main]),
    })
}

/// The names of the quantisations that a repository has, each once, in the order of its files.
pub(super) fn names<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for path in paths.into_iter().filter(|path| is_model(path)) {
        let tag = Name::of(path).map_or("", |name| name.tag());
        if reads_like_one(tag) && !names.contains(&tag) {
            names.push(tag);
        }
    }
    names
}

/// Whether a file holds the weights of a model, not something beside them.
fn is_model(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    strip_gguf(file).is_some() && !file.contains("mmproj") && !file.contains("imatrix")
}

fn is_first_part(path: &str) -> bool {
    Name::of(path).is_some_and(|name| name.parts <= 1 || name.part == 1)
}

/// Whether the path holds the tag, whatever its case, with a `.` or a `-` behind it.
fn mentions(path: &str, tag: &str) -> bool {
    let (path, tag) = (path.to_ascii_lowercase(), tag.to_ascii_lowercase());
    path.match_indices(&tag)
        .any(|(at, _)| matches!(path.as_bytes().get(at + tag.len()), Some(b'.' | b'-')))
}

/// The parts of the split file that begins at `main`, in order; itself if it is not split.
fn parts_of(paths: &[&str], main: usize) -> Result<Vec<usize>, NoChoice> {
    let Some(first) = Name::of(paths[main]).filter(|name| name.parts > 1) else {
        return Ok(vec![main]);
    };
    let missing = || NoChoice::MissingPart {
        path: paths[main].to_owned(),
        parts: first.parts,
    };
    if first.parts > MAX_PARTS {
        return Err(missing());
    }
    let find = |part| {
        paths.iter().position(|path| {
            Name::of(path).is_some_and(|name| {
                name.part == part && name.parts == first.parts && name.stem == first.stem
            })
        })
    };
    (1..=first.parts)
        .map(|part| find(part).ok_or_else(missing))
        .collect()
}

/// The projector nearest to the model: in its folder or the deepest one above it, and of those the
/// one whose bits are closest to the model's.
fn projector_of(paths: &[&str], model: &str) -> Option<usize> {
    let bits = |path| Name::of(path).map_or(0, |name| name.bits());
    let folder = |path: &str| {
        path.rsplit_once('/')
            .map_or("", |(folder, _)| folder)
            .to_owned()
    };
    let home = folder(model);
    let is_above = |other: &str| {
        other.is_empty()
            || home
                .strip_prefix(other)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let depth = |folder: &str| folder.split('/').filter(|part| !part.is_empty()).count();
    paths
        .iter()
        .enumerate()
        .filter(|(_, path)| path.contains("mmproj") && strip_gguf(path).is_some())
        .filter(|(_, path)| is_above(&folder(path)))
        // Of equals the first one, as llama.cpp does: `min_by_key` keeps it.
        .min_by_key(|(_, path)| {
            let distance = bits(path).abs_diff(bits(model));
            (std::cmp::Reverse(depth(&folder(path))), distance)
        })
        .map(|(at, _)| at)
}

fn strip_gguf(path: &str) -> Option<&str> {
    path.strip_suffix(".gguf")
}

/// Exactly five digits.
fn number(text: &str) -> Option<u32> {
    (text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]
mod tests {
    use crate::client::origin::huggingface::quantisation::{
        NoChoice, choose, names, reads_like_one,
    };

    /// The shape of a repository by one of the usual quantisers: all in one folder.
    const FLAT: [&str; 9] = [
        ".gitattributes",
        "Llama-3.2-1B-Instruct-IQ3_M.gguf",
        "Llama-3.2-1B-Instruct-Q3_K_L.gguf",
        "Llama-3.2-1B-Instruct-Q4_K_M.gguf",
        "Llama-3.2-1B-Instruct-Q4_K_S.gguf",
        "Llama-3.2-1B-Instruct-Q8_0.gguf",
        "Llama-3.2-1B-Instruct-f16.gguf",
        "Llama-3.2-1B-Instruct.imatrix.gguf",
        "README.md",
    ];
    /// Another one: large models split into a folder for each quantisation, projectors on top.
    const FOLDERS: [&str; 12] = [
        "BF16/Qwen3-VL-235B-BF16-00001-of-00002.gguf",
        "BF16/Qwen3-VL-235B-BF16-00002-of-00002.gguf",
        "Q4_K_M/Qwen3-VL-235B-Q4_K_M-00001-of-00003.gguf",
        "Q4_K_M/Qwen3-VL-235B-Q4_K_M-00003-of-00003.gguf",
        "Q4_K_M/Qwen3-VL-235B-Q4_K_M-00002-of-00003.gguf",
        "UD-Q4_K_XL/Qwen3-VL-235B-UD-Q4_K_XL-00001-of-00002.gguf",
        "UD-Q4_K_XL/Qwen3-VL-235B-UD-Q4_K_XL-00002-of-00002.gguf",
        "Q5_K_M/Qwen3-VL-235B-Q5_K_M-00001-of-00002.gguf",
        "config.json",
        "mmproj-BF16.gguf",
        "mmproj-F32.gguf",
        "mmproj-Q8_0.gguf",
    ];

    fn chosen<'a>(paths: &[&'a str], tag: &str) -> Vec<&'a str> {
        let choice = choose(paths, tag).unwrap();
        let all = choice.weights.iter().chain(&choice.projector);
        all.map(|at| paths[*at]).collect()
    }

    #[test]
    fn a_tag_is_a_quantisation_whatever_its_case() {
        let q8 = ["Llama-3.2-1B-Instruct-Q8_0.gguf"];
        assert_eq!(chosen(&FLAT, "Q8_0"), q8);
        assert_eq!(chosen(&FLAT, "q8_0"), q8);
        assert_eq!(chosen(&FLAT, "F16"), ["Llama-3.2-1B-Instruct-f16.gguf"]);
        assert_eq!(
            chosen(&FLAT, "Q4_K_S"),
            ["Llama-3.2-1B-Instruct-Q4_K_S.gguf"]
        );
        // `Q4_K` is not followed by a dot or a hyphen anywhere.
        assert_eq!(choose(&FLAT, "Q4_K"), Err(NoChoice::NoMatch));
        assert_eq!(choose(&FLAT, "imatrix"), Err(NoChoice::NoMatch));
    }

    #[test]
    fn without_a_tag_it_is_the_usual_one_and_else_the_first() {
        assert_eq!(
            chosen(&FLAT, "latest"),
            ["Llama-3.2-1B-Instruct-Q4_K_M.gguf"]
        );
        assert_eq!(chosen(&FLAT[5..], "latest"), [FLAT[5]]);
        assert_eq!(
            chosen(&["a-Q2_K.gguf", "b-f16.gguf"], "latest"),
            ["a-Q2_K.gguf"]
        );
        assert_eq!(choose(&["README.md"], "latest"), Err(NoChoice::NoMatch));
    }

    #[test]
    fn a_split_model_comes_whole_in_order_with_its_projector() {
        assert_eq!(
            chosen(&FOLDERS, "q4_k_m"),
            [FOLDERS[2], FOLDERS[4], FOLDERS[3], "mmproj-Q8_0.gguf"]
        );
        assert_eq!(
            chosen(&FOLDERS, "UD-Q4_K_XL"),
            [FOLDERS[5], FOLDERS[6], "mmproj-Q8_0.gguf"]
        );
        assert_eq!(
            chosen(&FOLDERS, "bf16"),
            [FOLDERS[0], FOLDERS[1], "mmproj-BF16.gguf"]
        );
        assert_eq!(
            choose(&FOLDERS, "Q5_K_M"),
            Err(NoChoice::MissingPart {
                path: FOLDERS[7].to_owned(),
                parts: 2
            })
        );
    }

    #[test]
    fn a_projector_is_taken_from_the_models_own_folder_first_and_never_from_a_strangers() {
        let paths = [
            "large/model-Q4_0.gguf",
            "large/mmproj-F16.gguf",
            "largest/mmproj-Q4_0.gguf",
            "mmproj-Q4_0.gguf",
        ];
        assert_eq!(chosen(&paths, "Q4_0"), [paths[0], paths[1]]);
        assert_eq!(chosen(&[paths[0], paths[2]], "Q4_0"), [paths[0]]);
    }

    #[test]
    fn the_quantisations_of_a_repository_are_named_once() {
        assert_eq!(names(FOLDERS), ["BF16", "Q4_K_M", "Q4_K_XL", "Q5_K_M"]);
        assert_eq!(
            names(FLAT),
            ["IQ3_M", "Q3_K_L", "Q4_K_M", "Q4_K_S", "Q8_0", "f16"]
        );
    }

    #[test]
    fn a_quantisation_reads_like_one() {
        for tag in [
            "Q4_K_M",
            "iq2_xxs",
            "UD-Q4_K_XL",
            "bf16",
            "F16",
            "MXFP4",
            "tq1_0",
        ] {
            assert!(reads_like_one(tag), "{tag}");
        }
        for tag in [
            "main",
            "latest",
            "fix-tokenizer",
            "v1.0",
            "quantised",
            "feature1",
        ] {
            assert!(!reads_like_one(tag), "{tag}");
        }
    }
}
