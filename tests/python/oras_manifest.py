"""Prints the digest of a manifest, and checks its blobs, as the oras client gets them.

Usage: oras_manifest.py HOST:PORT/REPOSITORY:TAG
"""

import hashlib
import sys

import oras.client

reference = sys.argv[1]
client = oras.client.OrasClient(hostname=reference.split("/")[0], insecure=True)
container = client.get_container(reference)
answer = client.do_request(
    f"{client.prefix}://{container.manifest_url()}",
    "GET",
    headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json, "
             "application/vnd.oci.image.manifest.v1+json"},
)
assert answer.status_code == 200, answer.text
for layer in answer.json()["layers"]:
    blob = client.get_blob(container, layer["digest"]).content
    assert "sha256:" + hashlib.sha256(blob).hexdigest() == layer["digest"], layer
print("sha256:" + hashlib.sha256(answer.content).hexdigest())
