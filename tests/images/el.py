"""Roots in which rpm and dnf work as on EL, on stub packages: the tools are Debian's, cloud-init's files are real."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nspawn
import roots
import stubs
from nspawn import HarnessError
from stubs import Stub

CHECKOUT = Path(__file__).parents[2]
# Everything with content is Debian's; the packages that rpm and dnf deal with are stubs.
PACKAGES = "rpm,dnf,systemd,python3-jsonschema,python3-yaml,python3-distro,python3-pystemd"
WITH_PLUGINS = ("bookworm", "trixie")  # bullseye has no dnf-plugins-core
# What the package has from the top of the source tree.
TEXTS = ("LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
CLOUD_CFG = "/etc/cloud/cloud.cfg"
CLOUD_INIT_UNITS = (
    "cloud-config.service",
    "cloud-final.service",
    "cloud-init.service",
    "cloud-init-local.service",
)


@dataclass(frozen=True)
class Release:
    """An EL release and the Debian suite whose rpm, dnf and Python stand in for its own."""

    number: int
    python: str
    interpreter: str
    suite: str

    @property
    def sitelib(self) -> str:
        return f"/usr/lib/python{self.python}/site-packages"

    @property
    def schema(self) -> str:
        return f"{self.sitelib}/cloudinit/config/schemas/schema-cloud-config-v1.json"


RELEASES = {
    # rpm 4.16, dnf 4.5, Python 3.9: EL9 has the same rpm and Python, EL8 rpm 4.14 and Python 3.6.
    8: Release(8, "3.6", "/usr/libexec/platform-python", "bullseye"),
    9: Release(9, "3.9", "/usr/bin/python3", "bullseye"),
    # rpm 4.20, Python 3.13: EL10 has 4.19 and 3.12.
    10: Release(10, "3.12", "/usr/bin/python3", "trixie"),
}


def root(suite: str) -> Path:
    """The root directory with rpm, dnf and Python of ``suite``; never written to, built once."""
    packages = PACKAGES + (",dnf-plugins-core" if suite in WITH_PLUGINS else "")
    directory = (
        nspawn.cache()
        / "rpm-roots"
        / f"{suite}-{hashlib.sha256(packages.encode()).hexdigest()[:12]}"
    )
    with nspawn.locked(nspawn.cache() / "locks" / f"rpm-{suite}"):
        if not directory.is_dir():
            nspawn.require_machine()
            building = directory.with_suffix(".building")
            for stale in directory.parent.glob(f"{suite}*"):  # of other packages, or cut short
                shutil.rmtree(stale)
            building.parent.mkdir(parents=True, exist_ok=True)
            bootstrap = [
                "mmdebstrap",
                "--quiet",
                "--variant=minbase",
                "--aptopt=APT::Install-Recommends false",
            ]
            bootstrap += [
                f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("man", "doc", "locale")
            ]
            done = subprocess.run(
                [*bootstrap, f"--include={packages}", suite, str(building)],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            if done.returncode:
                raise HarnessError(f"no root with rpm and dnf ({suite}):\n{done.stderr[-2000:]}")
            # Debian keeps rpm's database of a Debian system out of the way.
            (building / "etc/rpm").mkdir(exist_ok=True)
            (building / "etc/rpm/macros").write_text("%_dbpath /var/lib/rpm\n")
            local = building / "etc/dnf/plugins/local.conf"
            if local.exists():  # wants createrepo_c in there
                local.write_text("[main]\nenabled = 0\n")
            building.rename(directory)
    return directory


class System:
    """A throwaway root of one release: rpm and dnf run in it, and repositories hold packages for it."""

    def __init__(self, release: Release, root: Path, name: str) -> None:
        self.release = release
        self.root = root
        self._name = name

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the root; stdout and stderr come together, as a terminal shows them."""
        together = [
            "sh",
            "-c",
            'exec "$@" 2>&1',
            "sh",
            *argv,
        ]  # in there: nspawn has a stderr of its own
        options = ("--private-network", "--resolv-conf=off")
        done = nspawn.run(
            self._name,
            self.root,
            together,
            *options,
            timeout=120,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        if check and done.returncode:
            raise HarnessError(
                f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def path(self, path: str) -> Path:
        """Where a file of the root is, as seen from here."""
        return self.root / path.lstrip("/")

    def dnf(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """dnf, without questions."""
        return self.run("dnf", "--assumeyes", *argv, check=check)

    def offer(self, *packages: Path, repository: str = "test", enabled: bool = True) -> None:
        """Make these packages, and only these, a repository that dnf knows."""
        directory = self.path(f"/repositories/{repository}")
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        for package in packages:
            shutil.copy(package, directory)
        subprocess.run(["createrepo_c", "--quiet", str(directory)], check=True)
        place = self.path(f"/etc/yum.repos.d/{repository}.repo")
        place.parent.mkdir(exist_ok=True)
        place.write_text(repo_file(repository, enabled))
        shutil.rmtree(self.path("/var/cache/dnf"), ignore_errors=True)


def repo_file(repository: str, enabled: bool = True) -> str:
    """What /etc/yum.repos.d says about one of our repositories."""
    return f"[{repository}]\nname={repository}\nbaseurl=file:///repositories/{repository}\ngpgcheck=0\nenabled={enabled:d}\n"


@contextlib.contextmanager
def system(number: int, suite: str | None = None) -> Iterator[System]:
    """A throwaway root of the release ``number``, by another Debian ``suite`` than the one nearest to it."""
    release = RELEASES[number]
    directory = nspawn.cache() / "rpm-systems" / f"rpm-el{number}-{secrets.token_hex(3)}"
    with nspawn.overlay([root(suite or release.suite)], directory) as merged:
        yield System(release, merged, directory.name)


def stub(
    output: Path,
    name: str,
    version: str,
    files: Mapping[str, str | bytes] = {},
    config: Sequence[str] = (),
    tags: Sequence[str] = (),
    scripts: str = "",
) -> Path:
    """Build one noarch package of ``files`` (path to content; those in ``config`` as rpm's config files)."""
    return stubs.build(output, [Stub(name, version, files, config, tags, scripts)])[0]


def cloud_init(release: Release, version: str, schema: bytes, cloud_cfg: str) -> Stub:
    """A cloud-init package as EL lays it out, with this schema and this cloud.cfg."""
    files: dict[str, str | bytes] = {
        release.schema: schema,
        f"{release.sitelib}/cloudinit/__init__.py": "",
        CLOUD_CFG: cloud_cfg,
        "/etc/cloud/cloud.cfg.d/README": "",
        "/usr/bin/cloud-init": f"#!{release.interpreter} -s\n",
    }
    for unit in CLOUD_INIT_UNITS:
        files[f"/usr/lib/systemd/system/{unit}"] = (
            "[Service]\nExecStart=true\n[Install]\nWantedBy=cloud-init.target\n"
        )
    # EL's package enables them itself: no preset says anything about them.
    scripts = (
        f"%post\n[ $1 -gt 1 ] || systemctl --root=/ --quiet enable {' '.join(CLOUD_INIT_UNITS)}"
    )
    return Stub("cloud-init", version, files, [CLOUD_CFG], ["Requires: systemd"], scripts)


def python(release: Release) -> Stub:
    """Python of the release: Debian's own interpreter, which also finds what is installed for the release's."""
    files = {"/usr/lib/python3/dist-packages/el.pth": f"{release.sitelib}\n"}
    if release.interpreter != "/usr/bin/python3":
        files[release.interpreter] = '#!/bin/sh\nexec /usr/bin/python3 "$@"\n'
    tags = [
        f"Provides: {what}"
        for what in (f"python(abi) = {release.python}", "/usr/bin/python3", "/bin/sh")
    ]
    return Stub("python3", release.python, files, tags=tags)


def requirements(output: Path, release: Release) -> list[Path]:
    """What our package requires besides cloud-init, without content: Debian's Python modules do the work."""
    names = ("python3-distro", "python3-jsonschema", "python3-pystemd", "python3-pyyaml", "systemd")
    return stubs.build(output / "requirements", [python(release), *map(Stub, names)])


def real_cloud_init() -> tuple[bytes, str]:
    """The schema and the cloud.cfg of a real cloud-init, Debian 13's."""
    debian = roots.root("el10")
    schema = "usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-cloud-config-v1.json"
    return (debian / schema).read_bytes(), (debian / "etc/cloud/cloud.cfg").read_text()


def our_package(output: Path, release: Release, version: str | None = None) -> Path:
    """Our package by images/build-rpm, from this source tree, or from a copy of it with another version."""
    tree = CHECKOUT
    if version:
        tree = output / f"source-{version}"
        tree.mkdir()
        for part in ("cc_kvmhost", "docs", "examples", "schemas", "share", "images"):
            shutil.copytree(CHECKOUT / part, tree / part, symlinks=True)
        for part in TEXTS:
            shutil.copy(CHECKOUT / part, tree)
        spec = tree / "images/rpm/cc_kvmhost.spec"
        spec.write_text(re.sub(r"(?m)^(Version: *).*", rf"\g<1>{version}", spec.read_text()))
    argv = [
        str(tree / "images/build-rpm"),
        "--release",
        str(release.number),
        "--output",
        str(output),
    ]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise HarnessError(done.stderr)
    return Path(done.stdout.strip())
