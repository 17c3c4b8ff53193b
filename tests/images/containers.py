"""Container images without a daemon and without a registry: buildah, on storage of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nspawn
from nspawn import HarnessError


class Storage:
    """Where images are. They are layers of the cache's file system, as the hosts' are."""

    def __init__(self) -> None:
        self.directory = nspawn.cache() / "containers"

    def run(self, *argv: str | Path, timeout: float = 300) -> str:
        """Run buildah; returns its standard output. Isolation chroot: a container runtime would need control groups."""
        places = [f"--root={self.directory}/store", f"--runroot={self.directory}/run"]
        done = subprocess.run(
            ["buildah", *places, "--storage-driver=overlay", *argv],
            env={**os.environ, "BUILDAH_ISOLATION": "chroot", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if done.returncode:
            said = (done.stdout + done.stderr)[-20000:]
            raise HarnessError(f"buildah {argv[0]}: exit status {done.returncode}\n{said}")
        return done.stdout

    def images(self) -> list[str]:
        """The names of all images; <none> for one whose name a newer image has taken."""
        return self.run("images", "--format={{.Name}}").split()

    def remove(self, *images: str) -> None:
        for image in set(images) - {"<none>"}:
            self.run("rmi", "--force", image)
        self.run("rmi", "--prune")

    @contextlib.contextmanager
    def tree(self, image: str, become: str = "") -> Iterator[Path]:
        """An image's tree, to look at and to change; what was changed becomes the image ``become``, if given."""
        container = self.run("from", "--pull-never", image).strip()
        try:
            yield Path(self.run("mount", container).strip())
            if become:
                self.run("commit", "--quiet", container, become)
        finally:
            self.run("rm", container)

    def build(self, image: str, base: str, context: Path, **arguments: str) -> str:
        """Build a directory's Containerfile; returns what buildah printed."""
        words = [
            f"--build-arg={name}={value}" for name, value in {"BASE": base, **arguments}.items()
        ]
        return self.run("build", "--pull-never", *words, f"--tag={image}", context)
