"""The root file systems that test hosts start from, built once and cached.

Run as a program it builds those it is told, without a name the two of ``make test``; it shows progress.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nspawn
from nspawn import HarnessError

RECIPE = Path(__file__).parent / "recipe"
PACKAGES = [
    "systemd-sysv",
    "dbus",
    "udev",
    "iproute2",
    "procps",
    "polkitd",
    "openssl",
    "libvirt-daemon-system",
    "libvirt-clients",
    "virtinst",
    "qemu-system-x86",
    "qemu-utils",
    "dnsmasq-base",
    "nftables",
    "lvm2",
    "tuned",
    "cloud-init",
    "python3-pystemd",
    "python3-libvirt",
    "python3-jsonschema",
    "python3-distro",
    "python3-yaml",
]
BOOTSTRAP = (
    "--variant=minbase",
    "--aptopt=APT::Install-Recommends false",
    # What no test reads; a third of the size.
    *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("man", "doc", "locale", "info")),
)


@dataclass(frozen=True)
class System:
    """A system that hosts stand for, and the Debian release that stands in for it.

    ``packages``: what it has besides PACKAGES. ``lacks``: what of them it hasn't. ``options``: mmdebstrap's.
    ``finish``: a script of the recipe that mmdebstrap runs at the end, with the root's path. ``modular``: whether
    libvirt's modular daemons are built for it, and EL's presets applied; else it stays as Debian installs it.
    """

    name: str
    suite: str
    packages: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    finish: str = ""
    modular: bool = True


#: The two that every host test runs on.
SYSTEMS = {
    "el9": System("el9", "bookworm"),
    # Split out of libvirt-daemon-system and libvirt-daemon since.
    "el10": System(
        "el10",
        "trixie",
        (
            "libvirt-daemon-driver-interface",
            "libvirt-daemon-driver-storage-logical",
            "libvirt-daemon-lock",
            "libvirt-daemon-log",
        ),
    ),
}
#: The oldest and the newest that the module meets, for make test-more-hosts: mirrors may drop or change them any day.
MORE_SYSTEMS = {
    "el8": System(
        "el8",
        "bullseye",
        ("policykit-1", "python3-lxml", "python3-venv"),
        lacks=("polkitd", "python3-pystemd"),
        finish="finish-el8",
        modular=False,
    ),
    # Whatever Debian is working on.
    "next": System(
        "next",
        "unstable",
        ("libvirt-daemon-lock", "libvirt-daemon-log", "python3-venv"),
        options=('--aptopt=Acquire::Check-Valid-Until "false"',),  # mirrors lag behind
        modular=False,
    ),
}


def root(name: str, say: Callable[[str], None] = print) -> Path:
    """The root directory of the system ``name``; never written to, hosts lay overlays on it.

    Built where the cache has none for this recipe: some minutes, each step told to ``say``. A process that is
    already building it is waited for.
    :raises HarnessError: it can't be built; the log's end and place are in the text.
    """
    system = {**SYSTEMS, **MORE_SYSTEMS}[name]
    directory = nspawn.cache() / "roots" / f"{name}-{_recipe_hash(system)}"
    nspawn.require_machine()
    with nspawn.locked(nspawn.cache() / "locks" / name):
        if not directory.is_dir():
            _remove_unused(directory.parent)
            _Build(system, directory, say).run()
        (directory / "used").touch()
    return directory / "root"


def _remove_unused(directory: Path) -> None:
    """Remove roots that no checkout has used for a week."""
    for stamp in directory.glob("*/used"):
        if time.time() - stamp.stat().st_mtime > 7 * 24 * 3600:
            shutil.rmtree(stamp.parent)


def _recipe_hash(system: System) -> str:
    """Everything a root is made from, in 12 characters."""
    digest = hashlib.sha256(repr((system, PACKAGES, BOOTSTRAP)).encode())
    modular = ("modular", "build-modular-libvirt") if system.modular else ()
    for part in ("common", system.name, "configure", *filter(None, (system.finish,)), *modular):
        for path in sorted([RECIPE / part, *(RECIPE / part).rglob("*")]):
            if path.is_file():
                digest.update(f"{path.relative_to(RECIPE)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


class _Build:
    """One build of one root; the steps in ``run``."""

    def __init__(self, system: System, directory: Path, say: Callable[[str], None]) -> None:
        self.system = system
        self.directory = directory
        self.building = directory.with_name(f"{directory.name}.building")
        self.container = f"kvmhost-build-{system.name}"
        self.log = nspawn.cache() / "logs" / f"{system.name}.log"
        self.say = say
        self.start = time.monotonic()

    def run(self) -> None:
        """Build under another name, and give it its own when it is whole."""
        nspawn.clean_up(self.container)  # what a killed build left
        nspawn.unmount_overlay(self.building / "libvirt")
        nspawn.unmount_overlay(self.building)
        self.building.mkdir(parents=True)
        self.log.parent.mkdir(exist_ok=True)
        self.log.write_text("")
        self._tell(f"building the root ({self.system.suite}), log: {self.log}")
        root = self.building / "root"
        self._bootstrap(root)
        if self.system.modular:
            shutil.copy(self._modular_libvirt(root), root / "modular.deb")
        self._configure(root)
        self.building.rename(self.directory)
        self._tell("root done")

    def _bootstrap(self, root: Path) -> None:
        packages = {*PACKAGES, *self.system.packages}.difference(self.system.lacks)
        hooks = [f"--customize-hook={RECIPE / self.system.finish}"] if self.system.finish else []
        self._step(
            "installing Debian, libvirt, qemu and cloud-init",
            [
                *nspawn.scope(self.container),
                "mmdebstrap",
                *BOOTSTRAP,
                *self.system.options,
                *hooks,
                f"--include={','.join(sorted(packages))}",
                self.system.suite,
                str(root),
            ],
        )

    def _modular_libvirt(self, root: Path) -> Path:
        """The package with the modular daemons for this root's libvirt0, built if the cache has none."""
        status = ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "--show"]
        version = subprocess.check_output(
            [*status, "--showformat=${Version}", "libvirt0"], text=True
        )
        script = RECIPE / "build-modular-libvirt"
        key = hashlib.sha256(script.read_bytes()).hexdigest()[:12]
        package = nspawn.cache() / "packages" / f"libvirt-daemon-modular_{version}_{key}.deb"
        if not package.exists():
            with nspawn.overlay([root], self.building / "libvirt") as merged:
                shutil.copy(script, merged / "root")
                self._step(
                    "building libvirt's modular daemons from Debian's source",
                    self._inside(merged, "--resolv-conf=bind-host", "--", f"/root/{script.name}"),
                )
                package.parent.mkdir(exist_ok=True)
                partial = package.with_suffix(".partial")
                shutil.copy(merged / "build" / "libvirt-daemon-modular.deb", partial)
                partial.rename(package)
        return package

    def _configure(self, root: Path) -> None:
        """Make it a fresh install of the system it stands for, before its first boot."""
        for part in ("common", *(["modular"] if self.system.modular else []), self.system.name):
            if (RECIPE / part).is_dir():
                shutil.copytree(RECIPE / part, root, dirs_exist_ok=True, symlinks=True)
        script = Path(shutil.copy(RECIPE / "configure", root / "root"))
        self._step(
            "making it a fresh install",
            self._inside(root, "--resolv-conf=off", "--", "/root/configure", self.system.name),
        )
        script.unlink()

    def _inside(self, root: Path, *options: str) -> list[str]:
        return nspawn.command(self.container, root, "--pipe", *options)

    def _step(self, what: str, argv: Sequence[str]) -> None:
        """Run one step into the log; say that it goes on every ten seconds."""
        self._tell(f"{what} ...")
        with self.log.open("a") as log:
            log.write(f"# {what}\n")
            log.flush()
            process = subprocess.Popen(
                argv,
                env=nspawn.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                while True:
                    try:
                        process.wait(timeout=10)
                        break
                    except subprocess.TimeoutExpired:
                        self._tell(f"  {self._tail(1)[:90]}")
            finally:
                process.kill()
                process.wait()
                nspawn.clean_up(self.container)
        if process.returncode:
            raise HarnessError(
                f"{self.system.name}: {what}: exit status {process.returncode}; {self.log} ends:\n{self._tail(25)}"
            )

    def _tail(self, lines: int) -> str:
        return "\n".join(self.log.read_text(errors="replace").strip().splitlines()[-lines:])

    def _tell(self, text: str) -> None:
        self.say(f"{self.system.name:5}{time.monotonic() - self.start:4.0f} s  {text}")


def main(names: Sequence[str]) -> int:
    """Build these roots, with progress; 1 if that fails."""
    try:
        for name in names or SYSTEMS:
            print(f"{name}: {root(name, lambda text: print(text, flush=True))}")
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
