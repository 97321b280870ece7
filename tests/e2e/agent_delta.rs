//! New versions of a model on a node that has the one before: pushed to our registry by `hayloft
//! push`, pulled through the agent, and what crossed the network held against the chunk maps.

use std::path::Path;

use artifact::agent_api::{EnsureRequest, PullEvent};
use artifact::client::AgentClient;
use artifact::{CacheLayout, Digest, Reference};
use tests::upstream::chunk_map_of;
use tests::variants::{
    bytes_to_fetch, hay_tiny, requantised, wide_model, with_changed_tensors, with_merged_adapter,
    with_template,
};
use tests::{Server, hayloft, scratch};

/// What the config of a model may take, which is new in every version.
const CONFIG_BYTES: u64 = 2048;

struct Node {
    registry: Server,
    agent: Server,
    folder: tempfile::TempDir,
}

impl Node {
    fn start() -> Self {
        Self {
            registry: Server::registry().start(),
            agent: Server::agent().start(),
            folder: scratch(),
        }
    }

    /// Pushes a version and pulls it: the bytes that were fetched.
    async fn take(&self, tag: &str, model: &[u8]) -> u64 {
        let file = self.folder.path().join(format!("{tag}.gguf"));
        std::fs::write(&file, model).unwrap();
        let name = format!("{}/team/model:{tag}", self.registry.address());
        let _ = hayloft(&["push", file.to_str().unwrap(), &name]).succeeded();
        let client = AgentClient::open(&self.agent.url()).unwrap();
        let request = EnsureRequest {
            reference: Reference::parse(&name).unwrap(),
            plain_http: false,
            name: None,
        };
        let mut came = None;
        client
            .pull(&request, |event| {
                if let PullEvent::Ready { fetched, note, .. } = event {
                    assert_eq!(*note, None);
                    came = Some(*fetched);
                }
            })
            .await
            .unwrap();
        self.assert_right(model);
        came.unwrap()
    }

    fn assert_right(&self, model: &[u8]) {
        let cache: &Path = &self.agent.data().join("cache");
        let blob = CacheLayout::new(cache).blob(&Digest::sha256(model));
        assert!(std::fs::read(blob).unwrap() == model, "other bytes");
    }
}

/// The first version is fetched whole, the second one as its map says; gives the share of it.
async fn second_costs_what_its_map_says(first: &[u8], second: &[u8]) -> f64 {
    let node = Node::start();
    let whole = node.take("1", first).await;
    assert!(whole >= first.len() as u64, "{whole} of {}", first.len());
    let expected = bytes_to_fetch(&[&chunk_map_of(first)], &chunk_map_of(second));
    let fetched = node.take("2", second).await;
    assert!(
        (expected..=expected + CONFIG_BYTES).contains(&fetched),
        "{fetched} bytes were fetched; the maps say {expected}"
    );
    #[expect(clippy::cast_precision_loss, reason = "a share, not a count")]
    let share = fetched as f64 / second.len() as f64;
    share
}

#[tokio::test(flavor = "multi_thread")]
async fn another_chat_template_costs_the_header_s_chunk_and_no_tensor() {
    let share =
        second_costs_what_its_map_says(&hay_tiny(), &with_template(&hay_tiny(), "{{ x }}")).await;
    assert!(share < 0.1, "{share} of the small model");
    let wide = wide_model(4, 1);
    let share = second_costs_what_its_map_says(&wide, &with_template(&wide, "{{ x }}")).await;
    assert!(share < 0.01, "{share} of the larger one");
}

#[tokio::test(flavor = "multi_thread")]
async fn some_tensors_cost_those_tensors_and_a_merged_adapter_what_it_touched() {
    let wide = wide_model(4, 2);
    let changed = with_changed_tensors(&wide, |name| name.starts_with("blk.2."));
    let share = second_costs_what_its_map_says(&wide, &changed).await;
    assert!((0.2..0.3).contains(&share), "{share} for one block of four");
    let merged = with_merged_adapter(&wide);
    let share = second_costs_what_its_map_says(&wide, &merged).await;
    assert!(share < 0.2, "{share} for queries and values");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_quantisation_costs_all_but_what_it_left_as_it_was() {
    let tiny = hay_tiny();
    let share = second_costs_what_its_map_says(&tiny, &requantised(&tiny)).await;
    assert!(share <= 1.01, "{share}");
}
