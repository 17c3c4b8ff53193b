"""Debian's packages as a layer on a host's root, installed once and cached: what a few tests want and most do not."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import nspawn
import roots
from nspawn import HarnessError

INSTALL = """\
export DEBIAN_FRONTEND=noninteractive
apt-get --quiet update
apt-get --quiet --yes --no-install-recommends install "$@"
apt-get clean
find /var/lib/apt/lists -type f -delete
: > /etc/machine-id
"""


def layer(system: str, *names: str) -> Path:
    """The directory to stack on the root of ``system``: these packages.

    :raises HarnessError: they can't be installed; with the end of apt's output.
    """
    root = roots.root(system)
    recipe = hashlib.sha256(" ".join([INSTALL, *names]).encode()).hexdigest()[:12]
    key = f"{root.parent.name}-packages-{recipe}"
    directory = nspawn.cache() / "layers" / key
    with nspawn.locked(nspawn.cache() / "locks" / "packages"):
        if not directory.is_dir():
            work = directory.with_suffix(".building")
            nspawn.unmount_overlay(work)  # what a killed build left
            with nspawn.overlay([root], work) as merged:
                done = nspawn.run(
                    f"kvmhost-packages-{system}",
                    merged,
                    ["sh", "-euc", INSTALL, "sh", *names],
                    "--resolv-conf=bind-host",
                    timeout=300,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                )
                if done.returncode:
                    raise HarnessError(
                        f"no {', '.join(names)} on {system}:\n{(done.stdout + done.stderr)[-2000:]}"
                    )
                (work / "upper").rename(directory)
    return directory
