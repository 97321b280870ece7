//! Weights: what a manifest calls a model is looked at before the manifest is taken, unless it was
//! looked at when it came in.

use std::collections::{BTreeMap, BTreeSet};

use artifact::dialect::{self, Role};
use artifact::gguf::annotations::{ARCHITECTURE, FAULT, KIND, PART};
use artifact::manifest::Descriptor;
use artifact::{Digest, Manifest, Repository};

use super::{Passed, Verdict};
use crate::config::GgufPolicy;
use crate::error::Error;
use crate::service::Registry;
use crate::store::Change;
use crate::store::records::Entry;

/// What came of looking at the weights of a manifest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vetted {
    /// What is to be noted with blobs that were looked at just now.
    noted: Vec<(Digest, BTreeMap<String, String>)>,
    /// What is wrong, where that is let in.
    pub(crate) warnings: Vec<String>,
}

/// A weights layer and what is known of it.
struct Weights<'manifest> {
    layer: &'manifest Descriptor,
    annotations: BTreeMap<String, String>,
}

impl Registry {
    /// Looks at the layers that say they are GGUF files. One that is not in the repository is
    /// passed over: that is for others to say.
    ///
    /// # Errors
    /// [`Error::WeightsRefused`] where bad files are not let in.
    pub(crate) async fn vet_weights(
        &self,
        repository: &Repository,
        manifest: &Manifest,
    ) -> Result<Vetted, Error> {
        let policy = self.gates.policy(repository);
        let mut vetted = Vetted::default();
        if policy == GgufPolicy::Off {
            return Ok(vetted);
        }
        let mut all = Vec::new();
        let mut seen = BTreeSet::new();
        for layer in manifest
            .layers()
            .iter()
            .filter(|layer| dialect::is_gguf(layer))
        {
            if layer.is_foreign || !seen.insert(layer.digest) {
                continue;
            }
            if let Some(annotations) = self.known_of(repository, layer, &mut vetted).await? {
                all.push(Weights { layer, annotations });
            }
        }
        let faults = all.iter().filter_map(fault_of).chain(missing_parts(&all));
        for (digest, reason) in faults {
            if policy == GgufPolicy::Refuse {
                let digest = Box::new(digest);
                return Err(Error::WeightsRefused { digest, reason });
            }
            tracing::warn!(%repository, %digest, reason, "weights that llama.cpp would choke on");
            vetted.warnings.push(format!("{digest}: {reason}"));
        }
        Ok(vetted)
    }

    /// What was noted of a blob, or what its beginning says now.
    async fn known_of(
        &self,
        repository: &Repository,
        layer: &Descriptor,
        vetted: &mut Vetted,
    ) -> Result<Option<BTreeMap<String, String>>, Error> {
        let digest = &layer.digest;
        let Some(record) = self.index.blob(repository, digest).await? else {
            return Ok(None);
        };
        if record.annotations.contains_key(KIND) || record.annotations.contains_key(FAULT) {
            return Ok(Some(record.annotations));
        }
        let found = match self.look_at_blob(digest).await? {
            None => return Ok(None),
            Some(Verdict::Good(facts)) => facts.annotations,
            Some(Verdict::Refused(reason)) => Passed::at_fault(reason).annotations,
            Some(Verdict::NotGguf) => {
                let reason = "it is no GGUF file, though the manifest says so".to_owned();
                Passed::at_fault(reason).annotations
            }
        };
        vetted.noted.push((*digest, found.clone()));
        Ok(Some(found))
    }

    /// The changes that note what was found out. The caller holds the repository.
    pub(crate) async fn noting(
        &self,
        repository: &Repository,
        vetted: &Vetted,
    ) -> Result<Vec<Change>, Error> {
        let mut changes = Vec::new();
        for (digest, annotations) in &vetted.noted {
            let stored = self.index.blob(repository, digest).await?;
            if let Some(mut record) = stored.filter(|stored| stored.annotations != *annotations) {
                record.annotations.clone_from(annotations);
                let entry = Entry::Blob(repository.clone(), *digest, record);
                changes.push(Change::Put(Box::new(entry)));
            }
        }
        Ok(changes)
    }
}

fn fault_of(weights: &Weights<'_>) -> Option<(Digest, String)> {
    let found = &weights.annotations;
    let digest = weights.layer.digest;
    if let Some(reason) = found.get(FAULT) {
        return Some((digest, reason.clone()));
    }
    let is_nameless = found.get(KIND).is_some_and(|kind| kind == "other")
        && !found.contains_key(ARCHITECTURE)
        && dialect::role_of(weights.layer) == Role::Model;
    let reason = "it names no architecture (general.architecture), which llama.cpp needs";
    is_nameless.then(|| (digest, reason.to_owned()))
}

/// Models in several files of which some are not there. Files belong together by their names
/// before `-00001-of-00003.gguf`, or, without names, by how many they are.
fn missing_parts(all: &[Weights<'_>]) -> Vec<(Digest, String)> {
    let mut models: BTreeMap<(String, u32), BTreeMap<u32, Digest>> = BTreeMap::new();
    for weights in all {
        let part = weights.annotations.get(PART);
        let Some((number, count)) = part.and_then(|part| part.split_once('/')) else {
            continue;
        };
        let (Ok(number), Ok(count)) = (number.parse(), count.parse()) else {
            continue;
        };
        let name = dialect::file_name_of(weights.layer).unwrap_or_default();
        let stem = name.rsplit_once("-of-").map_or("", |(stem, _)| stem);
        let stem = stem.rsplit_once('-').map_or("", |(stem, _)| stem);
        let parts = models.entry((stem.to_owned(), count)).or_default();
        parts.insert(number, weights.layer.digest);
    }
    let incomplete = models.into_iter().filter_map(|((_, count), parts)| {
        let missing = (1..=count).find(|number| !parts.contains_key(number))?;
        let digest = parts.into_values().next()?;
        let reason = format!(
            "it is part of a model in {count} files, and the manifest has no part {missing}: push \
             all parts in one manifest"
        );
        Some((digest, reason))
    });
    incomplete.collect()
}
