"""Pulls the files of an artifact with the oras client.

Usage: oras_pull.py HOST:PORT/NAME:TAG FOLDER
"""

import sys

import oras.client

target, folder = sys.argv[1:]
client = oras.client.OrasClient(hostname=target.split("/")[0], insecure=True)
print(len(client.pull(target=target, outdir=folder)), "files")
