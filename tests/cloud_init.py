"""Real cloud-inits, from Debian's packages, run by this Python against a tree of their own.

cloud-init is not on PyPI. Nothing of it is copied into the project: each package is downloaded
once, by mmdebstrap (which checks its signature), and cached.
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Tuple

#: The distribution's own: the tests may be run by one that is too old for a cloud-init.
PYTHON = ("/usr/bin/python3", "-s", "-W", "ignore")
PACKAGES = "usr/lib/python3/dist-packages"
SCHEMA = f"{PACKAGES}/cloudinit/config/schemas/schema-cloud-config-v1.json"

#: The suite that has each version; 20.4 is too old to have a schema file.
SUITES = {"20.4": "bullseye", "22.4": "bookworm", "25.1": "trixie", "26.2": "sid"}
#: Each cloud-init with the oldest and the newest jsonschema that it runs with.
PAIRS = (
    ("22.4", "2.6.0"),
    ("22.4", "3.2.0"),
    ("22.4", "4.19.2"),
    ("25.1", "3.2.0"),
    ("25.1", "4.26.0"),
    ("26.2", "4.19.2"),
    ("26.2", "4.26.0"),
)

# Runs inside: answers one JSON line with another. All output of cloud-init's own goes to stderr.
DRIVER = """
import json, sys
answers, sys.stdout = sys.stdout, sys.stderr
from cloudinit.config import schema
from cloudinit import util
from jsonschema import Draft4Validator

def accepts(config):
    "What cloud-init says of a whole cloud-config: null, or why not."
    try:
        schema.validate_cloudconfig_schema(config=config, schema=whole, strict=True)
    except schema.SchemaValidationError as error:
        return str(error)

def valid(section, own):
    "What this jsonschema says of one section."
    return Draft4Validator(own).is_valid(section)

def merged(path):
    "The configuration as cloud-init reads it from cloud.cfg and cloud.cfg.d."
    return util.read_conf_with_confd(path)

whole = schema.get_schema()
for line in sys.stdin:
    name, arguments = json.loads(line)
    print(json.dumps(globals()[name](*arguments)), file=answers, flush=True)
"""


def cache() -> Path:
    """Beside the roots of the throwaway hosts: $KVMHOST_CACHE or the user's cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("KVMHOST_CACHE") or Path(home) / "cc_kvmhost").absolute()


def package(version: str) -> Path:
    """The files of a cloud-init package, never to be written to."""
    return _fetched(version) / "tree"


def deb(version: str) -> Path:
    """The package itself."""
    return _fetched(version) / "cloud-init.deb"


def _fetched(version: str) -> Path:
    directory = cache() / "cloud-inits" / version
    with _made(directory) as work:
        if work:
            download = (
                'cd "$1" && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG'
                " apt-get -oAPT::Sandbox::User=root download --quiet=2 cloud-init"
                " && mv cloud-init_*.deb cloud-init.deb"
            )
            subprocess.run(
                ["mmdebstrap", "--quiet", "--variant=custom", "--format=null"]
                # sid's index expires after a week; a machine's clock or a mirror may be off by more.
                + ["--aptopt=Acquire::Check-Valid-Until false"]
                + [f"--customize-hook={download}"]
                + [f"--customize-hook=copy-out /cloud-init.deb {work}"]
                + [SUITES[version], "/dev/null"],
                check=True,
            )
            subprocess.run(["dpkg-deb", "-x", "cloud-init.deb", "tree"], cwd=str(work), check=True)
    return directory


@contextlib.contextmanager
def _made(directory: Path) -> Iterator[Optional[Path]]:
    """A directory of the cache to fill, if it is not there; whole or not at all, by one process."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{directory}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if directory.is_dir():
            yield None
            return
        work = Path(f"{directory}.new")
        shutil.rmtree(str(work), ignore_errors=True)
        work.mkdir()
        yield work
        work.rename(directory)


def root(version: str, path: Path) -> Path:
    """A tree to work on: what registration reads of a cloud-init, and this module."""
    for name in ("etc/cloud", f"{PACKAGES}/cloudinit/config/schemas"):
        source = package(version) / name
        if source.is_dir():
            shutil.copytree(str(source), str(path / name), symlinks=True)
    (path / PACKAGES / "cc_kvmhost").mkdir(parents=True)
    return path


def whole_root(version: str, path: Path) -> Path:
    """A tree to work on with all of cloud-init, for CloudInit and run."""
    shutil.copytree(str(package(version)), str(path), symlinks=True)
    (path / PACKAGES / "cc_kvmhost").mkdir()
    return path


def run(tree: Path, *arguments: str, jsonschema: str = "4.19.2") -> Tuple[int, str]:
    """`cloud-init ARGUMENTS` of a tree, its status and output; only for commands that read."""
    done = subprocess.run(
        [*PYTHON, "-m", "cloudinit.cmd.main", *arguments],
        env=_environment(tree, jsonschema),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    return done.returncode, done.stdout


def _environment(tree: Path, jsonschema: str) -> Dict[str, str]:
    """What makes PYTHON import a tree's cloud-init, with one version of jsonschema."""
    libraries = cache() / "cloud-inits" / f"jsonschema-{jsonschema}"
    with _made(libraries) as work:
        if work:
            # jsonschema 3 asks pkg_resources, which comes with setuptools, for its version.
            names = [f"jsonschema=={jsonschema}", "setuptools<80", "PyYAML", "requests"]
            names += ["jinja2", "configobj", "jsonpatch"]
            with tempfile.TemporaryDirectory() as venv:
                subprocess.run([PYTHON[0], "-m", "venv", venv], check=True)
                pip = [f"{venv}/bin/python", "-m", "pip", "--disable-pip-version-check"]
                install = [*pip, "install", "--quiet", "--target", str(work), *names]
                subprocess.run(install, check=True)
    return dict(os.environ, PYTHONPATH=f"{libraries}:{tree / PACKAGES}")


class CloudInit:
    """A tree's cloud-init, loaded once and asked often."""

    def __init__(self, tree: Path, jsonschema: str = "4.19.2") -> None:
        self._process = subprocess.Popen(
            [*PYTHON, "-c", DRIVER],
            env=_environment(tree, jsonschema),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def _ask(self, name: str, *arguments: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([name, arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def rejects(self, config: Any) -> Optional[str]:
        """Why cloud-init's validation rejects a cloud-config; None: it is accepted."""
        reason: Optional[str] = self._ask("accepts", config)
        return reason

    def valid(self, section: Any, schema: Any) -> bool:
        """What its jsonschema says of a section."""
        return bool(self._ask("valid", section, schema))

    def module_list(self, tree: Path, stage: str = "cloud_final_modules") -> Any:
        """A stage's modules as cloud-init reads them."""
        return self._ask("merged", str(tree / "etc/cloud/cloud.cfg"))[stage]

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
