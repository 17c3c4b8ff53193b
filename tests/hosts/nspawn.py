"""Root directories, overlays and systemd-nspawn, with or without systemd as this machine's PID 1."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

# No variable of this machine's environment reaches a host, such as pyenv's, pip's or a proxy's.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}


class HarnessError(Exception):
    """A host can't be built, booted or used; the text says why and what to do."""


def require_machine() -> None:
    """Check that this machine can run throwaway hosts.

    :raises HarnessError: not root, or a program is missing; names what to do.
    """
    if os.geteuid() != 0:
        raise HarnessError(
            "throwaway hosts need root (mounts, containers): the same command with sudo"
        )
    missing = [
        tool for tool in ("systemd-nspawn", "mmdebstrap", "nsenter") if not shutil.which(tool)
    ]
    if missing:
        raise HarnessError(
            f"not installed: {', '.join(missing)}; make setup installs what is needed"
        )


def cache() -> Path:
    """Where roots, packages and running hosts live: $KVMHOST_CACHE or the user's cache directory.

    Not in the checkout (hundreds of MB) and not in /tmp (a tmpfs on many machines: overlays there are memory).
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(os.environ.get("KVMHOST_CACHE") or Path(home) / "cc_kvmhost").absolute()
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file ``path`` locked against other processes; waits for them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _booted() -> bool:
    """Whether systemd is this machine's PID 1 (as sd_booted(3) decides it)."""
    return Path("/run/systemd/system").is_dir()


def _cgroups(name: str) -> list[Path]:
    """The cgroup directories of the container ``name``, in each hierarchy that systemd looks at."""
    mounts = Path("/sys/fs/cgroup")
    if _booted():
        unified = mounts if (mounts / "cgroup.procs").exists() else mounts / "unified"
        return [unified / "system.slice" / f"{name}.scope"]
    # "Hybrid" machines have cgroup v2 at unified, and v1's name=systemd beside it.
    hybrid = [mounts / part / name for part in ("unified", "systemd") if (mounts / part).is_dir()]
    return hybrid or [mounts / name]


def scope(name: str) -> list[str]:
    """The words in front of a command that put it into a cgroup of its own, as the same process.

    nspawn makes cgroups for its payload below the one it runs in; each container needs its own.
    """
    if _booted():  # cgroups belong to systemd: ask it for one, delegated
        scope = ["systemd-run", "--quiet", "--collect", "--scope", "--slice=system.slice"]
        return [*scope, f"--unit={name}", "--property=Delegate=yes", "--"]
    enter = " && ".join(
        f"mkdir -p {group} && echo $$ > {group}/cgroup.procs" for group in _cgroups(name)
    )
    return ["sh", "-c", f'{enter} && exec "$@"', "sh"]


def command(name: str, root: Path, *options: str) -> list[str]:
    """The command that runs systemd-nspawn as container ``name`` in ``root``, in a cgroup of its own.

    ``clean_up`` belongs after it.
    """
    nspawn = ["systemd-nspawn", "--quiet", f"--directory={root}", f"--machine={name}"]
    # The cgroup is ours (--keep-unit), and machined need not run here (--register=no).
    return [*scope(name), *nspawn, "--register=no", "--keep-unit", *options]


def environment() -> dict[str, str]:
    """The environment to start ``command`` with."""
    # The systemd inside gets cgroup v2 on hybrid machines too.
    return {**ENVIRONMENT, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}


def clean_up(name: str) -> None:
    """Kill whatever is left in the container's cgroups, remove them and nspawn's own traces.

    :raises HarnessError: a process does not go away.
    """
    for group in _cgroups(name):
        deadline = time.monotonic() + 10
        while group.is_dir():
            # Depth first: a cgroup with children can't be removed.
            for part in sorted([group, *group.rglob("*/")], reverse=True):
                with contextlib.suppress(OSError):
                    for pid in (part / "cgroup.procs").read_text().split():
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(int(pid), signal.SIGKILL)
                    part.rmdir()
            if time.monotonic() > deadline:
                raise HarnessError(f"{group} still has processes: look at its cgroup.procs")
            if group.is_dir():
                time.sleep(0.01)
    with contextlib.suppress(FileNotFoundError):  # nspawn leaves it where /run is not a tmpfs
        (Path("/run/systemd/nspawn/propagate") / name).rmdir()


def mount_overlay(layers: Sequence[Path], directory: Path) -> Path:
    """Mount ``layers`` (top first) read-only below a writable layer, all inside ``directory``.

    :returns: the mount point, ``directory``/root; changes land in ``directory``/upper.
    :raises HarnessError: overlayfs refuses.
    """
    for part in ("upper", "work", "root"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    lower = ":".join(map(str, layers))
    options = f"lowerdir={lower},upperdir={directory}/upper,workdir={directory}/work"
    mount = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, str(directory / "root")],
        stderr=subprocess.PIPE,
        text=True,
    )
    if mount.returncode:
        raise HarnessError(
            f"no overlay at {directory}: {mount.stderr.strip()}; "
            "KVMHOST_CACHE must be on a local disk (ext4, xfs, btrfs), not itself an overlay"
        )
    return directory / "root"


def mount_again(directory: Path) -> Path:
    """A second way to the overlay that ``mount_overlay`` mounted, for where nspawn makes the first read-only."""
    (directory / "writable").mkdir()
    subprocess.run(["mount", "--bind", directory / "root", directory / "writable"], check=True)
    return directory / "writable"


def unmount_overlay(directory: Path) -> None:
    """Undo ``mount_overlay`` and ``mount_again``, finished or not, and delete ``directory`` with everything that was
    written there."""
    for path in (directory / "writable", directory / "root"):
        if os.path.ismount(path):
            umount = subprocess.run(["umount", str(path)], stderr=subprocess.DEVNULL)
            if umount.returncode:  # a host that starts this very moment has a copy of our mounts
                subprocess.run(["umount", "--lazy", str(path)], check=True)
    if directory.exists():
        shutil.rmtree(directory)


@contextlib.contextmanager
def overlay(layers: Sequence[Path], directory: Path) -> Iterator[Path]:
    """``mount_overlay`` and ``unmount_overlay`` around a block."""
    try:
        yield mount_overlay(layers, directory)
    finally:
        unmount_overlay(directory)


def run(
    name: str,
    root: Path,
    argv: Sequence[str],
    *options: str,
    timeout: float | None = 60,
    **popen: object,
) -> subprocess.CompletedProcess[str]:
    """Run one command in ``root`` without booting it; its result is returned, whatever it is."""
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command(name, root, "--pipe", *options, "--", *argv),
            env=environment(),
            text=True,
            timeout=timeout,
            start_new_session=True,  # Ctrl-C reaches us alone; clean_up ends the rest
            **popen,  # type: ignore[call-overload]
        )
    finally:
        clean_up(name)
    return done
