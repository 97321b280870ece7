//! Origins of the three kinds, asked as the mirror and the puller ask them.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use artifact::client::fetch::Mode;
use artifact::client::{
    Answer, Credentials, Error, Found, Known, Origin, RegistryOptions, RetryPolicy, Selector,
    Transport,
};
use artifact::dialect::{Role, role_of};
use artifact::media_type::ollama;
use artifact::{Digest, Manifest};
use bytes::Bytes;
use tests::hub::{Access, Fault, Hub, Storage};
use tests::upstream::{Upstream, noise};

const REPOSITORY: &str = "User/Model-GGUF";

async fn origin(at: &str, repository: &str, credentials: Credentials) -> Origin {
    let options = RegistryOptions {
        plain_http: false,
        credentials,
    };
    let at = at.parse().unwrap();
    Origin::open(&Transport::default(), &at, repository, &options)
        .await
        .unwrap()
}

async fn at_hub(hub: &Hub) -> Origin {
    let at = format!("hf+{}", hub.url());
    origin(&at, &REPOSITORY.to_lowercase(), Credentials::Anonymous).await
}

async fn tag(origin: &Origin, tag: &str) -> Result<Found, Error> {
    match origin
        .manifest(&Selector::Tag(tag.to_owned()), None)
        .await?
    {
        Answer::Found(found) => Ok(*found),
        Answer::Unchanged { .. } => panic!("nothing was known"),
    }
}

/// Every blob of a manifest, from its documents or over the network, checked.
async fn blobs(
    origin: &Origin,
    manifest: &Manifest,
    documents: &[(Digest, Bytes)],
) -> Vec<Vec<u8>> {
    let mut contents = Vec::new();
    for blob in manifest.blobs() {
        let known = documents.iter().find(|(digest, _)| *digest == blob.digest);
        let content = match known {
            Some((_, bytes)) => bytes.to_vec(),
            None => {
                let source = origin.blob(blob, manifest, RetryPolicy::default()).unwrap();
                let half = blob.size / 2;
                let mut content = read(&source, 0..half).await.unwrap();
                content.extend(read(&source, half..blob.size).await.unwrap());
                content
            }
        };
        assert_eq!(Digest::sha256(&content), blob.digest);
        contents.push(content);
    }
    contents
}

async fn read(
    source: &artifact::client::BlobSource,
    range: std::ops::Range<u64>,
) -> Result<Vec<u8>, Error> {
    let mut reader = source.reader(range, Mode::Ranges);
    let mut content = Vec::new();
    while let Some((_, bytes)) = reader.next().await? {
        content.extend_from_slice(&bytes);
    }
    Ok(content)
}

#[tokio::test]
async fn a_quantisation_becomes_a_model_pack_whose_blobs_come_from_the_second_host() {
    let hub = Hub::start().await;
    for part in 1..=3 {
        let path = format!("Q4_K_M/Model-Q4_K_M-0000{part}-of-00003.gguf");
        hub.put_file(REPOSITORY, &path, noise(300_000, part), Storage::Lfs);
    }
    hub.put_file(REPOSITORY, "Model-Q8_0.gguf", noise(9000, 4), Storage::Lfs);
    hub.put_file(REPOSITORY, "mmproj-F16.gguf", noise(5000, 5), Storage::Lfs);
    let commit = hub.put_file(REPOSITORY, "README.md", "# Model", Storage::Git);
    hub.set_page(2);

    let origin = at_hub(&hub).await;
    let found = tag(&origin, "q4_k_m").await.unwrap();
    assert_eq!(found.etag.as_deref(), Some(commit.as_str()));
    let roles: Vec<_> = found.manifest.layers().iter().map(role_of).collect();
    assert_eq!(
        roles,
        [Role::Model, Role::Model, Role::Model, Role::Projector]
    );
    let contents = blobs(&origin, &found.manifest, &found.documents).await;
    for (at, seed) in [(1, 1), (2, 2), (3, 3)] {
        assert_eq!(contents[at], noise(300_000, seed));
    }
    assert_eq!(hub.leaks(), 0);
    // The place behind the redirect is asked directly the second time.
    let resolved = hub
        .requests()
        .iter()
        .filter(|line| line.contains("/resolve/"))
        .count();
    assert_eq!(resolved, 4);

    // The same state gives the same bytes, without a look at the files when it is known.
    assert_eq!(
        tag(&origin, "Q4_K_M").await.unwrap().manifest.raw(),
        found.manifest.raw()
    );
    assert_eq!(tag(&origin, "latest").await.unwrap().digest, found.digest);
    let known = Known {
        digest: found.digest,
        etag: found.etag.clone(),
    };
    let before = hub.requests().len();
    let selector = Selector::Tag("Q4_K_M".to_owned());
    let again = origin.manifest(&selector, Some(&known)).await.unwrap();
    assert!(matches!(again, Answer::Unchanged { .. }));
    let asked = hub.requests().split_off(before);
    assert!(
        asked.iter().all(|line| line.contains("/revision/main")),
        "{asked:?}"
    );

    // A new commit is something new.
    hub.put_file(REPOSITORY, "Model-Q4_K_S.gguf", noise(100, 6), Storage::Lfs);
    let answer = origin.manifest(&selector, Some(&known)).await.unwrap();
    assert!(matches!(answer, Answer::Found(_)));
}

#[tokio::test]
async fn a_revision_is_a_snapshot_of_all_files_the_small_ones_in_hand() {
    let hub = Hub::start().await;
    hub.put_file(
        REPOSITORY,
        "model.safetensors",
        noise(70_000, 1),
        Storage::Lfs,
    );
    hub.put_file(REPOSITORY, "config.json", "{}", Storage::Git);
    hub.branch(REPOSITORY, "v1.0");
    let commit = hub.put_file(REPOSITORY, "LICENSE", "free", Storage::Git);

    let origin = at_hub(&hub).await;
    let main = tag(&origin, "main").await.unwrap();
    assert_eq!(main.manifest.layers().len(), 3);
    blobs(&origin, &main.manifest, &main.documents).await;
    assert_eq!(tag(&origin, &commit).await.unwrap().digest, main.digest);
    assert_eq!(
        tag(&origin, "v1.0").await.unwrap().manifest.layers().len(),
        2
    );
    let none = tag(&origin, "Q4_K_M").await.unwrap_err();
    assert!(
        none.is_absent() && none.to_string().contains("no GGUF"),
        "{none}"
    );

    // From the manifest alone, as after a restart: small files are files too.
    let again = at_hub(&hub).await;
    let layer = main
        .manifest
        .layers()
        .iter()
        .find(|layer| layer.size == 4)
        .unwrap();
    let source = again
        .blob(layer, &main.manifest, RetryPolicy::default())
        .unwrap();
    assert_eq!(read(&source, 0..4).await.unwrap(), b"free");
}

#[tokio::test]
async fn quantisations_and_branches_are_the_tags_and_what_is_missing_is_named() {
    let hub = Hub::start().await;
    hub.put_file(REPOSITORY, "m-Q2_K.gguf", noise(10, 1), Storage::Lfs);
    hub.put_file(REPOSITORY, "m-Q8_0.gguf", noise(10, 2), Storage::Lfs);
    let origin = at_hub(&hub).await;
    assert_eq!(origin.tags(10).await.unwrap(), ["Q2_K", "Q8_0", "main"]);
    assert_eq!(origin.tags(1).await.unwrap(), ["Q2_K"]);
    let error = tag(&origin, "Q4_K_M").await.unwrap_err();
    assert!(error.is_absent());
    assert!(error.to_string().contains("it has Q2_K, Q8_0"), "{error}");
}

#[tokio::test]
async fn a_private_repository_opens_to_its_token_and_a_gated_one_says_what_to_do() {
    let hub = Hub::start().await;
    hub.put_file(REPOSITORY, "m-Q8_0.gguf", noise(5000, 1), Storage::Lfs);
    hub.set_token("hf_geheim");
    hub.set_access(REPOSITORY, Access::Private);
    let error = tag(&at_hub(&hub).await, "Q8_0").await.unwrap_err();
    assert!(
        error.is_refused() && error.to_string().contains("HF_TOKEN"),
        "{error}"
    );

    let at = format!("hf+{}", hub.url());
    let token = Credentials::Token("hf_geheim".to_owned());
    let known = origin(&at, REPOSITORY, token).await;
    let found = tag(&known, "Q8_0").await.unwrap();
    blobs(&known, &found.manifest, &found.documents).await;
    assert_eq!(hub.leaks(), 0, "the token went to another host");

    hub.set_access(REPOSITORY, Access::Gated);
    let stranger = at_hub(&hub).await;
    let found = tag(&stranger, "Q8_0").await.unwrap();
    let layer = &found.manifest.layers()[0];
    let source = stranger
        .blob(layer, &found.manifest, RetryPolicy::default())
        .unwrap();
    let error = read(&source, 0..layer.size).await.unwrap_err();
    assert!(error.to_string().contains("accept its terms"), "{error}");
}

#[tokio::test]
async fn a_signed_url_that_ran_out_is_asked_for_again() {
    let hub = Hub::start().await;
    hub.put_file(REPOSITORY, "m-Q8_0.gguf", noise(5000, 1), Storage::Lfs);
    let origin = at_hub(&hub).await;
    let found = tag(&origin, "Q8_0").await.unwrap();
    let layer = &found.manifest.layers()[0];
    let source = origin
        .blob(layer, &found.manifest, RetryPolicy::default())
        .unwrap();
    read(&source, 0..2000).await.unwrap();
    hub.expire_links();
    assert_eq!(
        read(&source, 2000..5000).await.unwrap(),
        noise(5000, 1)[2000..]
    );
}

#[tokio::test]
async fn the_ollama_library_has_tags_and_nothing_else() {
    let hub = Hub::start().await;
    let weights = Bytes::from(noise(200_000, 1));
    let template = Bytes::from_static(b"{{ .Prompt }}");
    let layers = [
        (ollama::MODEL, weights.clone()),
        (ollama::TEMPLATE, template),
    ];
    let digest = hub.put_model("library/Model", "1b", &layers);
    let at = format!("ollama+{}", hub.url());
    let origin = origin(&at, "Model", Credentials::Anonymous).await;
    let found = tag(&origin, "1b").await.unwrap();
    assert_eq!(found.digest, digest);
    let contents = blobs(&origin, &found.manifest, &found.documents).await;
    assert_eq!(contents[1], weights);
    let known = Known { digest, etag: None };
    let again = origin
        .manifest(&Selector::Tag("1b".to_owned()), Some(&known))
        .await
        .unwrap();
    assert!(matches!(again, Answer::Unchanged { .. }));
    assert!(tag(&origin, "2b").await.unwrap_err().is_absent());
    let by_digest = origin.manifest(&Selector::Digest(digest), None).await;
    assert!(matches!(by_digest, Err(Error::Unsupported { .. })));
    assert!(matches!(
        origin.tags(5).await,
        Err(Error::Unsupported { .. })
    ));
}

#[tokio::test]
async fn a_registry_is_asked_for_what_is_new_by_head_alone() {
    let upstream = Upstream::start().await;
    let reference = upstream.add_model("1", noise(1000, 1));
    let at = format!("oci+http://{}/test", upstream.address());
    let origin = origin(&at, "Model", Credentials::Anonymous).await;
    let found = tag(&origin, "1").await.unwrap();
    blobs(&origin, &found.manifest, &found.documents).await;
    let layer = found.manifest.layers()[0].clone();
    assert_eq!(origin.blob_size(&layer.digest).await.unwrap(), Some(1000));
    let known = Known {
        digest: found.digest,
        etag: None,
    };
    let selector = Selector::Tag("1".to_owned());
    let again = origin.manifest(&selector, Some(&known)).await.unwrap();
    assert!(matches!(again, Answer::Unchanged { .. }), "{reference}");
    upstream.add_model("1", noise(1000, 2));
    let again = origin.manifest(&selector, Some(&known)).await.unwrap();
    assert!(matches!(again, Answer::Found(_)));
    assert!(tag(&origin, "none").await.unwrap_err().is_absent());
}

#[tokio::test]
async fn a_web_page_in_the_place_of_an_answer_is_told_as_such() {
    let hub = Hub::start().await;
    hub.put_file(REPOSITORY, "m-Q8_0.gguf", noise(50, 1), Storage::Lfs);
    hub.set_question_fault(Fault::Page);
    let error = tag(&at_hub(&hub).await, "Q8_0").await.unwrap_err();
    assert!(error.to_string().contains("web page"), "{error}");
    let at = format!("ollama+{}", hub.url());
    let library = origin(&at, "model", Credentials::Anonymous).await;
    let error = tag(&library, "1b").await.unwrap_err();
    assert!(error.to_string().contains("web page"), "{error}");
}

#[tokio::test]
async fn a_token_that_ran_out_leads_to_one_new_handshake() {
    let upstream = Upstream::start().await;
    upstream.require_token("first");
    upstream.add_model("1", noise(1000, 1));
    let at = format!("oci+http://{}/test", upstream.address());
    let origin = origin(&at, "model", Credentials::Anonymous).await;
    let found = tag(&origin, "1").await.unwrap();
    assert_eq!(upstream.counts().tokens, 1);
    upstream.require_token("second");
    blobs(&origin, &found.manifest, &found.documents).await;
    assert_eq!(upstream.counts().tokens, 2);
}
