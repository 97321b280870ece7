"""The Python package `huggingface_hub` on a cache folder that somebody else made, without a network.

    python hub_offline.py REPOSITORY REVISION

HF_HUB_CACHE names the folder. Prints what it found as JSON in its last line; an assertion tells what
was not as it must be.
"""

import json
import os
import sys

from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

assert os.environ["HF_HUB_OFFLINE"] == "1"
cache = os.environ["HF_HUB_CACHE"]


def fails(call):
    try:
        got = call()
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        return
    raise AssertionError(f"this came: {got!r}")


def files_below(folder):
    return sorted(
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, names in os.walk(folder)
        for name in names
    )


def scan():
    """What `hf cache` lists."""
    info = scan_cache_dir()
    assert not info.warnings, info.warnings
    return {
        repo.repo_id: {
            revision.commit_hash: sorted(revision.refs) for revision in repo.revisions
        }
        for repo in info.repos
    }


def look(repo, revision):
    try:
        open(os.path.join(cache, "probe"), "w").close()
    except OSError:
        pass
    else:
        raise AssertionError(f"{cache} can be written to")
    folder = snapshot_download(repo, revision=revision)
    files = files_below(folder)
    for path in files:
        # What transformers asks before and after it has found the commit (`cached_files`).
        found = hf_hub_download(repo, path, revision=revision)
        assert found == os.path.join(folder, path), found
        assert try_to_load_from_cache(repo, path, cache_dir=cache, revision=revision) == found
        commit = os.path.basename(folder)
        assert hf_hub_download(repo, path, revision=commit, local_files_only=True) == found
        assert os.path.getsize(found) > 0
        assert os.path.realpath(found).split(os.sep)[-3:-1] == ["blobs", "sha256"]
    assert try_to_load_from_cache(repo, "no-such-file", revision=revision) is None
    fails(lambda: hf_hub_download(repo, "no-such-file", revision=revision))
    fails(lambda: snapshot_download(repo, revision="no-such-revision"))
    # Several files at once, and folders of templates, are asked for by patterns.
    patterns = ["*.json", "additional_chat_templates/*"]
    assert snapshot_download(repo, revision=revision, allow_patterns=patterns) == folder
    return {"commit": os.path.basename(folder), "files": files, "repos": scan()}


print(json.dumps(look(*sys.argv[1:]) if len(sys.argv) > 1 else scan()))
