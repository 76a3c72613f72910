"""Tells a node where the images of a registry's host name really are, before it starts or while it runs."""

import argparse
import sys
from pathlib import Path
from urllib.parse import urlsplit

from supervisor import Failed


def map_registry(directory, mapping):
    """Makes containerd fetch the images of `HOST=URL`'s host from its URL, and from nowhere else."""
    host, _, url = mapping.partition("=")
    parts = urlsplit(url)
    if not host or "/" in host or parts.scheme not in ("http", "https") or not parts.hostname:
        raise Failed(f"{mapping}: not HOST=http://ADDRESS:PORT")
    if parts.hostname == "localhost" or parts.hostname.startswith("127."):
        raise Failed(
            f"{mapping}: {parts.hostname} is the node itself, which has a network of its own. Serve on all addresses,"
            " or on the READY line's host-ip once the node runs, and use `cluster map-registry` then"
        )
    target = directory / "certs.d" / host
    target.mkdir(parents=True, exist_ok=True)
    (target / "hosts.toml").write_text(f'server = "{url}"\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n')


def main():
    """Maps registries for a node that runs already."""
    parser = argparse.ArgumentParser(prog="cluster map-registry")
    parser.add_argument("--dir", required=True, type=Path)
    parser.add_argument("mapping", nargs="+", metavar="HOST=URL")
    arguments = parser.parse_args()
    try:
        for mapping in arguments.mapping:
            map_registry(arguments.dir, mapping)
    except Failed as failure:
        sys.exit(f"cluster: {failure}")


if __name__ == "__main__":
    main()
