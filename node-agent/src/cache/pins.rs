//! Pins that the desired list has made: told apart from those made by hand by what their file says,
//! so that a model that leaves the list is let go, also when that happens while no agent runs.

use std::io::{Read, Write};

use artifact::Reference;

use crate::cache::folder::Folder;
use crate::cache::{NodeCache, PIN_FILE, temporary_name, views};
use crate::error::Error;

/// What the file of such a pin says. That of a pin by hand is empty.
const BY_LIST: &str = "preload\n";

impl NodeCache {
    /// Pins a model for the list. One that is pinned already stays as it is.
    pub(crate) fn pin_listed(&self, reference: &Reference) -> Result<(), Error> {
        let _changing = self.change_views();
        let folder = views::plain::existing_folder(&self.0.plain, reference)?;
        let folder = folder.ok_or_else(|| Error::NotCached {
            reference: Box::new(reference.clone()),
        })?;
        if folder.stat(PIN_FILE)?.is_some() {
            return Ok(());
        }
        let ingest = self.ingest();
        let temporary = temporary_name();
        // Renamed into place whole: half of it would be a pin by hand.
        ingest
            .open_file(&temporary)?
            .write_all(BY_LIST.as_bytes())
            .map_err(|e| Error::storage("write", &ingest.path().join(&temporary), e))
            .and_then(|()| ingest.rename(&temporary, &folder, PIN_FILE))
            .inspect_err(|_| drop(ingest.remove(&temporary)))?;
        folder.sync()
    }

    /// Unpins the models that the list has pinned, but for `listed`; gives those that it unpinned.
    pub(crate) fn unpin_unlisted(&self, listed: &[Reference]) -> Result<Vec<Reference>, Error> {
        let _changing = self.change_views();
        let mut unpinned = Vec::new();
        for model in self.list()? {
            if !model.pinned || listed.contains(&model.reference) {
                continue;
            }
            if let Some(folder) = views::plain::existing_folder(&self.0.plain, &model.reference)?
                && is_by_list(&folder)?
            {
                folder.remove(PIN_FILE)?;
                folder.sync()?;
                unpinned.push(model.reference);
            }
        }
        Ok(unpinned)
    }
}

fn is_by_list(folder: &Folder) -> Result<bool, Error> {
    let Some(file) = folder.read_file(PIN_FILE)? else {
        return Ok(false);
    };
    let mut text = String::new();
    let read = file.take(64).read_to_string(&mut text);
    Ok(read.is_ok() && text == BY_LIST)
}
