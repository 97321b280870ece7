"""Pushes two files with the oras client, lists the tag, pulls them back and compares.

Usage: oras_round_trip.py HOST:PORT, run in an empty folder.
"""

import os
import pathlib
import sys

import oras.client

registry = sys.argv[1]
target = f"{registry}/team/files:v1"
files = {"note.txt": b"dry grass\n", "weights.bin": os.urandom(3_000_000)}
for name, content in files.items():
    pathlib.Path(name).write_bytes(content)

client = oras.client.OrasClient(hostname=registry, insecure=True)
response = client.push(target=target, files=list(files), disable_path_validation=True)
assert response.status_code == 201, response.text

tags = client.get_tags(f"{registry}/team/files")
assert tags == ["v1"], tags

pulled = client.pull(target=target, outdir="pulled")
assert len(pulled) == len(files), pulled
for name, content in files.items():
    assert (pathlib.Path("pulled") / name).read_bytes() == content, name
print("the files came back unchanged")
