"""The Python package `huggingface_hub` against a registry's `/hf`, given as `HF_ENDPOINT`.

    python hub_client.py STORY ARGUMENT...

Prints what it found as JSON in its last line; an assertion tells what was not as it must be.
"""

import json
import os
import sys

from huggingface_hub import HfApi, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub import get_hf_file_metadata
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


def fails(call, kind):
    """What `call` fails with, which must be of this kind."""
    try:
        got = call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised, but this came: {got!r}")


def files_below(folder):
    """Every file below a folder with its size."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            found[os.path.relpath(path, folder)] = os.path.getsize(path)
    return found


def look(repo, path):
    """Every reading call that the library has for a repository."""
    api = HfApi()
    info = api.model_info(repo, files_metadata=True)
    tree = {entry.path: entry for entry in api.list_repo_tree(repo, recursive=True)}
    assert sorted(tree) == sorted(api.list_repo_files(repo)), tree
    assert sorted(file.rfilename for file in info.siblings) == sorted(tree)
    assert all(entry.lfs.size == entry.size for entry in tree.values())
    assert all(entry.xet_hash is None for entry in tree.values())
    assert info.last_modified is not None and info.private is False
    metadata = get_hf_file_metadata(hf_hub_url(repo, path))
    assert metadata.commit_hash == info.sha, metadata
    assert metadata.etag == tree[path].lfs.sha256
    assert metadata.size == tree[path].size
    assert metadata.xet_file_data is None
    refs = api.list_repo_refs(repo)
    heads = {branch.name: branch.target_commit for branch in refs.branches}
    assert heads["main"] == info.sha, heads
    assert api.model_info(repo, revision=info.sha).sha == info.sha
    assert [commit.commit_id for commit in api.list_repo_commits(repo)] == [info.sha]
    assert api.repo_exists(repo) and not api.repo_exists("no/such")
    assert api.file_exists(repo, path) and not api.file_exists(repo, "no-such")
    assert [entry.path for entry in api.get_paths_info(repo, [path, "no-such"], expand=True)] == [path]
    assert repo.lower() in [model.id for model in api.list_models(search=repo.split("/")[-1].lower())]
    fails(lambda: api.model_info("no/such"), RepositoryNotFoundError)
    fails(lambda: api.model_info(repo, revision="no-such"), RevisionNotFoundError)
    fails(lambda: hf_hub_download(repo, "no-such"), EntryNotFoundError)
    fails(lambda: hf_hub_download(repo, path, revision="0" * 40), RevisionNotFoundError)
    return {
        "sha": info.sha,
        "files": sorted(tree),
        "gguf": info.gguf,
        "tags": info.tags,
        "branches": sorted(heads),
    }


def download(repo, path):
    """One file, and what it is."""
    return {"path": hf_hub_download(repo, path)}


def snapshot(repo, revision="main"):
    """All files of a revision."""
    folder = snapshot_download(repo, revision=revision)
    return {"folder": folder, "files": files_below(folder)}


def upload(repo, folder):
    """A repository made, filled, changed, and its branches."""
    api = HfApi()
    url = api.create_repo(repo, exist_ok=True)
    assert url.repo_id == repo, url
    api.create_repo(repo, exist_ok=True)
    assert api.list_repo_files(repo) == []
    first = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="first")
    assert len(first.oid) == 40
    assert first.repo_url.repo_id == repo
    again = api.upload_folder(repo_id=repo, folder_path=folder)
    assert again.oid == first.oid, "nothing changed, so nothing was committed"
    second = api.upload_file(
        repo_id=repo, path_in_repo="notes/read me.md", path_or_fileobj=b"of a test\n"
    )
    assert second.oid != first.oid
    names = api.list_repo_files(repo)
    assert "notes/read me.md" in names and "model.gguf" in names, names
    api.upload_file(repo_id=repo, path_in_repo="empty", path_or_fileobj=b"")
    api.delete_file("notes/read me.md", repo_id=repo)
    error = fails(
        lambda: api.upload_file(
            repo_id=repo,
            path_in_repo="late",
            path_or_fileobj=b"x",
            parent_commit=first.oid,
        ),
        HfHubHTTPError,
    )
    assert error.response.status_code == 412, error
    api.create_branch(repo, branch="v2")
    api.upload_file(repo_id=repo, path_in_repo="new", path_or_fileobj=b"of v2", revision="v2")
    api.create_tag(repo, tag="v1", revision="main")
    names = api.list_repo_files(repo)
    assert "new" not in names and "empty" in names, names
    assert "new" in api.list_repo_files(repo, revision="v2")
    fails(
        lambda: api.upload_file(
            repo_id=repo, path_in_repo="x", path_or_fileobj=b"x", revision="unknown"
        ),
        RevisionNotFoundError,
    )
    api.delete_branch(repo, branch="v2")
    heads = sorted(branch.name for branch in api.list_repo_refs(repo).branches)
    return {"files": sorted(names), "branches": heads, "url": str(url)}


def who():
    """Whose token it is."""
    return HfApi().whoami()


def refused(repo):
    """What somebody without the right sees."""
    error = fails(lambda: HfApi().model_info(repo), HfHubHTTPError)
    return {
        "kind": type(error).__name__,
        "status": error.response.status_code,
        "message": error.server_message,
    }


STORIES = [look, download, snapshot, upload, who, refused]

if __name__ == "__main__":
    story = {story.__name__: story for story in STORIES}[sys.argv[1]]
    print(json.dumps(story(*sys.argv[2:])))
