"""Real cloud-inits, from Debian's packages, run by this Python against a tree of their own.

cloud-init is not on PyPI. Nothing of it is copied into the project: each package is downloaded
once, by mmdebstrap (which checks its signature), and cached.
"""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

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


def cache():
    """Beside the roots of the throwaway hosts: $KVMHOST_CACHE or the user's cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("KVMHOST_CACHE") or Path(home) / "cc_kvmhost").absolute()


def package(version):
    """The files of a cloud-init package, never to be written to."""
    tree = cache() / "cloud-init" / version
    if not tree.is_dir():
        tree.parent.mkdir(parents=True, exist_ok=True)
        with (tree.parent / (version + ".lock")).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not tree.is_dir():
                _fetch(version, tree)
    return tree


def _fetch(version, tree):
    download = (
        'cd "$1" && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG'
        " apt-get -oAPT::Sandbox::User=root download --quiet=2 cloud-init"
        " && mv cloud-init_*.deb cloud-init.deb"
    )
    with tempfile.TemporaryDirectory(dir=str(tree.parent)) as work:
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=custom", "--format=null"]
            # sid's index expires after a week; a machine's clock or a mirror may be off by more.
            + ["--aptopt=Acquire::Check-Valid-Until false"]
            + [f"--customize-hook={download}", f"--customize-hook=copy-out /cloud-init.deb {work}"]
            + [SUITES[version], "/dev/null"],
            check=True,
        )
        subprocess.run(["dpkg-deb", "-x", "cloud-init.deb", "tree"], cwd=work, check=True)
        Path(work, "tree").rename(tree)


def root(version, path):
    """A tree to work on: what registration reads of a cloud-init, and this module."""
    for name in ("etc/cloud", f"{PACKAGES}/cloudinit/config/schemas"):
        source = package(version) / name
        if source.is_dir():
            shutil.copytree(str(source), str(path / name), symlinks=True)
    (path / PACKAGES / "cc_kvmhost").mkdir(parents=True)
    return path


def whole_root(version, path):
    """A tree to work on with all of cloud-init, for CloudInit and run."""
    shutil.copytree(str(package(version)), str(path), symlinks=True)
    (path / PACKAGES / "cc_kvmhost").mkdir()
    return path


def python(jsonschema):
    """A Python that has what cloud-init's schema code imports, with one version of jsonschema.

    The distribution's own: the tests themselves may be run by one too old for a cloud-init.
    """
    path = cache() / "jsonschema" / jsonschema
    if not (path / "made").exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / (jsonschema + ".lock")).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (path / "made").exists():
                subprocess.run(["/usr/bin/python3", "-m", "venv", "--clear", str(path)], check=True)
                subprocess.run(
                    [str(path / "bin/python"), "-m", "pip", "install", "--quiet"]
                    # jsonschema 3 asks pkg_resources for its version.
                    + ["--disable-pip-version-check", "setuptools<80"]
                    + [
                        f"jsonschema=={jsonschema}",
                        "PyYAML",
                        "requests",
                        "jinja2",
                        "configobj",
                        "jsonpatch",
                    ],
                    check=True,
                )
                (path / "made").touch()
    return [str(path / "bin/python"), "-W", "ignore"]


def environment(tree):
    """What makes that Python import a tree's cloud-init."""
    return dict(os.environ, PYTHONPATH=str(tree / PACKAGES))


def run(tree, *arguments, jsonschema="4.19.2"):
    """`cloud-init ARGUMENTS` of a tree, its status and output; only for commands that read."""
    done = subprocess.run(
        [*python(jsonschema), "-m", "cloudinit.cmd.main", *arguments],
        env=environment(tree),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    return done.returncode, done.stdout


class CloudInit:
    """A tree's cloud-init, loaded once and asked often."""

    def __init__(self, tree, jsonschema="4.19.2"):
        self._process = subprocess.Popen(
            [*python(jsonschema), "-c", DRIVER],
            env=environment(tree),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def _ask(self, name, *arguments):
        self._process.stdin.write(json.dumps([name, arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def rejects(self, config):
        """Why cloud-init's validation rejects a cloud-config; None: it is accepted."""
        return self._ask("accepts", config)

    def valid(self, section, schema):
        """What its jsonschema says of a section."""
        return self._ask("valid", section, schema)

    def module_list(self, tree, stage="cloud_final_modules"):
        """A stage's modules as cloud-init reads them."""
        return self._ask("merged", str(tree / "etc/cloud/cloud.cfg"))[stage]

    def close(self):
        self._process.stdin.close()
        self._process.wait()
