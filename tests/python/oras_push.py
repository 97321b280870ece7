"""Pushes a file with the oras client.

Usage: oras_push.py HOST:PORT/NAME:TAG FILE
"""

import sys

import oras.client

target, file = sys.argv[1:]
client = oras.client.OrasClient(hostname=target.split("/")[0], insecure=True)
client.push(target=target, files=[file], disable_path_validation=True)
