//! What the view shows of which models.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use artifact::hub::{Commit, REVISION, SOURCE, commit_of_tags};
use artifact::media_type::{OCI_MANIFEST, modelpack};
use artifact::{Digest, Manifest, Reference};
use serde_json::{Value, json};

use crate::cache::views::huggingface::wanted::{Model, Tree, trees};

fn layer(path: Option<&str>, content: &str) -> Value {
    let mut layer = json!({
        "mediaType": modelpack::WEIGHT_RAW,
        "digest": Digest::sha256(content.as_bytes()),
        "size": content.len(),
    });
    if let Some(path) = path {
        layer["annotations"] = json!({ modelpack::FILEPATH: path });
    }
    layer
}

fn model_with(reference: &str, layers: Vec<Value>, annotations: Value, pulled_at: &str) -> Model {
    let body = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": modelpack::ARTIFACT,
        "config": layer(None, "{}"),
        "layers": layers,
        "annotations": annotations,
    });
    let manifest = Manifest::parse(body.to_string().into_bytes(), None).unwrap();
    Model {
        reference: Reference::parse(reference).unwrap(),
        digest: manifest.digest(),
        manifest,
        pulled_at: pulled_at.to_owned(),
    }
}

fn model(reference: &str, path: Option<&str>, content: &str) -> Model {
    model_with(reference, vec![layer(path, content)], json!({}), "2026")
}

/// A model that came from `Org/Tiny` of Hugging Face.
fn from_hub(reference: &str, commit: &str, files: &[(&str, &str)], pulled_at: &str) -> Model {
    let layers = files.iter().map(|(path, text)| layer(Some(path), text));
    let source = "https://huggingface.co/Org/Tiny";
    let annotations = json!({ SOURCE: source, REVISION: commit });
    model_with(reference, layers.collect(), annotations, pulled_at)
}

fn only(models: &[Model], name: &str) -> Tree {
    let mut trees = trees(models);
    assert_eq!(trees.len(), 1, "{trees:?}");
    trees.remove(name).unwrap()
}

fn refs(tree: &Tree) -> Vec<(&str, &str)> {
    let pairs = tree.refs.iter();
    pairs
        .map(|(name, commit)| (name.as_str(), commit.as_str()))
        .collect()
}

fn paths<'a>(tree: &'a Tree, commit: &str) -> Vec<&'a str> {
    let commit = Commit::parse(commit).unwrap();
    tree.snapshots[&commit].keys().map(String::as_str).collect()
}

#[test]
fn what_came_from_hugging_face_is_there_at_its_commit_on_main() {
    let commit = "a".repeat(40);
    let models = [
        from_hub(
            "hf.co/org/tiny:Q4_K_M",
            &commit,
            &[("q4/m-Q4_K_M.gguf", "4")],
            "1",
        ),
        from_hub("hf.co/org/tiny:Q8_0", &commit, &[("m-Q8_0.gguf", "8")], "2"),
    ];
    let tree = only(&models, "Org/Tiny");
    assert_eq!(refs(&tree), [("main", commit.as_str())]);
    assert_eq!(paths(&tree, &commit), ["m-Q8_0.gguf", "q4/m-Q4_K_M.gguf"]);
    assert_eq!(
        paths(&only(&models[1..], "Org/Tiny"), &commit),
        ["m-Q8_0.gguf"]
    );
}

#[test]
fn of_two_commits_main_is_the_one_that_was_pulled_last_and_a_branch_is_a_branch() {
    let (old, new, other) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
    let whole = [("m.gguf", "v2"), ("config.json", "{}")];
    let tree = only(
        &[
            from_hub(
                "hf.co/org/tiny:Q4_0",
                &new,
                &[("m-Q4_0.gguf", "4")],
                "2026-02",
            ),
            from_hub(
                "hf.co/org/tiny:Q8_0",
                &old,
                &[("m-Q8_0.gguf", "8")],
                "2026-01",
            ),
            from_hub("hf.co/org/tiny:v2", &other, &whole, "2026-03"),
        ],
        "Org/Tiny",
    );
    let expected = [("main", new.as_str()), ("v2", other.as_str())];
    assert_eq!(refs(&tree), expected);
    assert_eq!(tree.snapshots.len(), 3);
}

#[test]
fn tags_of_a_registry_are_branches_and_main_is_what_the_registry_says() {
    let q4 = model("r:5000/deep/team/tiny:q4", Some("m.gguf"), "4");
    let q8 = model("r:5000/deep/team/tiny:q8", Some("m.gguf"), "8");
    let commit = |model: &Model| Commit::of_digest(&model.digest).to_string();
    let tree = only(std::slice::from_ref(&q4), "team/tiny");
    assert_eq!(
        refs(&tree),
        [("main", &*commit(&q4)), ("q4", &*commit(&q4))]
    );
    let pairs = [&q4, &q8].map(|model| (model.reference.tag().unwrap().clone(), model.digest));
    let union = commit_of_tags(&pairs).to_string();
    let tree = only(&[q4.clone(), q8.clone()], "team/tiny");
    assert_eq!(tree.refs["main"].as_str(), union);
    assert_eq!(paths(&tree, &union), ["m-q8.gguf", "m.gguf"]);
    let mut latest = q8.clone();
    latest.reference = Reference::parse("r:5000/deep/team/tiny").unwrap();
    let tree = only(&[q4, q8.clone(), latest], "team/tiny");
    assert_eq!(tree.refs["main"].as_str(), commit(&q8));
}

#[test]
fn a_model_that_is_named_by_its_digest_is_main_where_nothing_has_a_tag() {
    let mut pinned = model("r:5000/team/tiny:x", None, "weights");
    let text = format!("r:5000/team/tiny@{}", pinned.digest);
    pinned.reference = Reference::parse(&text).unwrap();
    let commit = Commit::of_digest(&pinned.digest).to_string();
    let tree = only(&[pinned], "team/tiny");
    assert_eq!(refs(&tree), [("main", commit.as_str())]);
}

#[test]
fn of_two_places_with_one_name_hugging_face_goes_first_and_nothing_is_mixed() {
    let commit = "a".repeat(40);
    let hub = from_hub("hf.co/org/tiny:Q8_0", &commit, &[("m-Q8_0.gguf", "8")], "1");
    let liar = from_hub(
        "a.example/org/tiny:Q8_0",
        &commit,
        &[("evil-Q8_0.gguf", "e")],
        "2",
    );
    let tree = only(&[liar.clone(), hub], "Org/Tiny");
    assert_eq!(paths(&tree, &commit), ["m-Q8_0.gguf"]);
    let (a, b) = ("a.example/org/tiny:1", "b.example/org/tiny:2");
    let tree = only(&[model(b, None, "b"), model(a, None, "a")], "org/tiny");
    assert_eq!(tree.refs.keys().collect::<Vec<_>>(), ["1", "main"]);
    // A claim to be a repository of another name counts for nothing.
    let other = from_hub("a.example/org/other:1", &commit, &[("m.gguf", "x")], "1");
    assert!(trees(&[other]).contains_key("org/other"));
}

#[test]
fn hostile_paths_and_names_are_left_out() {
    let long = format!("{}/m.gguf", "x".repeat(256));
    let layers = [
        "m.gguf",
        "m.gguf/below",
        "a/b",
        "a",
        "../../../etc/passwd",
        &long,
    ]
    .map(|path| layer(Some(path), path));
    let hostile = model_with("r:5000/team/tiny:x", layers.to_vec(), json!({}), "1");
    let commit = Commit::of_digest(&hostile.digest).to_string();
    let tree = only(&[hostile], "team/tiny");
    assert_eq!(paths(&tree, &commit), ["a/b", "m.gguf", "passwd"]);
    assert!(trees(&[model("r:5000/team/a--b:x", None, "w")]).is_empty());
}
