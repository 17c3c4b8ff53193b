"""One throwaway host: an overlay on a cached root, booted with systemd as its PID 1."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import re
import secrets
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

import nspawn
import project
import roots
from nspawn import HarnessError

SEED = "/var/lib/cloud/seed/nocloud"


class UnitState(NamedTuple):
    """A unit as systemd sees it; the words are systemctl's."""

    file_state: str
    active: str
    sub: str


class CommandError(HarnessError):
    """A command on a host failed; the text has its output."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(f"{done.args}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        self.done = done


class Host:
    """A throwaway host; a context manager, nothing of it is left afterwards.

    ``system``: el9 or el10. ``user_data``, ``vendor_data``: text of cloud-init's NoCloud seed. ``os_release``: text
    to replace the system's own. ``files``: further files to write (path to text). ``install``: with cc_kvmhost
    installed and registered, or as the distribution made it. ``layers``: directories to lay over the system's root.
    ``network``: a network namespace's file to boot in, rather than in one of its own without anything.
    ``kvm``: with a /dev/kvm that everybody may use, which this machine must have (has_kvm).
    ``bind``: this machine's device nodes that it gets. ``image``: a tree to boot instead of the system's root, in
    image mode: only /etc and /var can be written.
    ``cmdline``: words of its kernel's command line, as far as its PID 1 and cloud-init look at them.
    """

    def __init__(
        self,
        system: str,
        user_data: str | None = None,
        vendor_data: str | None = None,
        os_release: str | None = None,
        files: Mapping[str, str] | None = None,
        install: bool = True,
        layers: Sequence[Path] = (),
        network: Path | None = None,
        kvm: bool = False,
        bind: Sequence[str] = (),
        image: Path | None = None,
        cmdline: Sequence[str] = (),
    ) -> None:
        self.system = system
        self.name = f"kvmhost-{system}-{secrets.token_hex(3)}"
        self.leader = 0  # pid of the host's PID 1, 0: not running
        self.boot_seconds = 0.0
        self._install = install
        self._layers = layers
        self._network = f"--network-namespace-path={network}" if network else "--private-network"
        self._boots = 0
        self._kvm = kvm
        self._bind = bind
        self._image = image
        self._cmdline = cmdline
        self._files = {
            f"{SEED}/meta-data": f"instance-id: {self.name}\nlocal-hostname: {system}\n",
            f"{SEED}/user-data": user_data if user_data is not None else "#cloud-config\n{}\n",
            **({f"{SEED}/vendor-data": vendor_data} if vendor_data is not None else {}),
            **({"/usr/lib/os-release": os_release} if os_release is not None else {}),
            **(files or {}),
        }
        self._directory = Path()
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

    def __enter__(self) -> Host:
        nspawn.require_machine()
        remove_leftovers()
        installed = [project.layer(self.system)] if self._install else []
        layers = [*installed, *self._layers, self._image or roots.root(self.system)]
        self._directory = _hosts() / self.name
        with nspawn.locked(nspawn.cache() / "locks" / "hosts"):
            self._directory.mkdir()
            self._lock = _try_lock(self._directory)
        try:
            nspawn.mount_overlay(layers, self._directory)
            if self._image:
                nspawn.mount_again(self._directory)
            for path, text in self._files.items():
                self.write(path, text)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, AssertionError):
            print(f"{self.name}: {self._console_tail()}")
            if self.leader:
                print(
                    self.sh("journalctl --boot --priority=warning --no-pager | tail -n 20").stdout
                )
        self.close()

    def enable_nothing(self) -> None:
        """Before ``boot``: disable every unit of libvirt and tuned, as on a machine without presets."""
        listed = self.chroot(
            ["systemctl", "list-unit-files", "--no-legend", "virt*", "libvirt*", "tuned.service"]
        )
        names = [line.split()[0] for line in listed.stdout.splitlines() if "@." not in line]
        self.chroot(["systemctl", "--quiet", "disable", *names])

    def boot(self, timeout: float = 60) -> None:
        """Boot, and wait at most ``timeout`` seconds until every start job, cloud-init's among them, is done.

        :raises HarnessError: it isn't by then; with the console's end.
        """
        start = time.monotonic()
        options = ["--boot", self._network, "--console=read-only"]
        if self._kvm:
            options.append(f"--bind={self._kvm_node()}:/dev/kvm")
        options += [f"--bind={path}" for path in self._bind]
        if self._image:
            tops = (f"--bind={self._directory}/writable/{top}:/{top}" for top in ("etc", "var"))
            options += ["--read-only", *tops]
        argv = [*nspawn.command(self.name, self._root, *options), *self._cmdline]
        if self._boots:
            # btime of /proc/stat moves, as over a machine's reboot: that is how others see that there was one.
            argv = ["unshare", "--time", f"--boottime={self._boots}", *argv]
        self._boots += 1
        with self.console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                argv,
                env=nspawn.environment(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,  # Ctrl-C reaches us alone, and we stop it
            )
        state = "no systemd yet"
        while time.monotonic() - start < timeout:
            if self._nspawn.poll() is not None:
                raise HarnessError(f"{self.name} ended while booting\n{self._console_tail()}")
            if not self.leader:
                self.leader = _leader(self._nspawn.pid)
            else:
                left = max(0.1, timeout - (time.monotonic() - start))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    state = self.run(
                        ["systemctl", "is-system-running", "--wait"], check=False, timeout=left
                    ).stdout
                    state = state.strip()
                if state in ("running", "degraded"):
                    self.boot_seconds = time.monotonic() - start
                    return
            time.sleep(0.02)
        raise HarnessError(
            f"{self.name} is not up after {timeout} s ({state})\n{self._console_tail()}"
        )

    def reboot(self, timeout: float = 60) -> None:
        """Shut down in order and boot the same overlay again, at most ``timeout`` seconds for each."""
        self.run(["systemctl", "reboot"])
        assert self._nspawn
        try:
            self._nspawn.wait(timeout)
        except subprocess.TimeoutExpired:
            raise HarnessError(
                f"{self.name} does not shut down in {timeout} s\n{self._console_tail()}"
            ) from None
        self.stop()
        self.boot(timeout)

    def went_down(self) -> bool:
        """Whether it has shut down by itself, for a reboot or for good; ``stop`` and ``boot`` bring it up again."""
        return self._nspawn is not None and self._nspawn.poll() is not None

    def stop(self) -> None:
        """Stop it as a power cut would; its overlay stays, ``boot`` works again."""
        if self._nspawn:
            if self.leader and self._nspawn.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.leader, 9)  # its PID 1: everything in it ends
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._nspawn.wait(5)
            nspawn.clean_up(self.name)
            self._nspawn.wait()
        self._nspawn = None
        self.leader = 0

    def close(self) -> None:
        """Stop it and remove every trace: processes, cgroups, mounts, files. The context manager does this."""
        if self._lock:
            self.stop()
            nspawn.unmount_overlay(self._directory)
            self._lock.close()
            self._lock = None

    def run(
        self, argv: Sequence[str], check: bool = True, timeout: float = 60, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the running host, as root.

        :raises CommandError: ``check`` and it exits with another status than 0.
        :raises subprocess.TimeoutExpired: after ``timeout`` seconds.
        """
        if not self.leader:
            raise HarnessError(f"{self.name} is not running: boot() comes first, or use chroot()")
        return self._inside(argv, check, timeout, input)

    def follow(self, argv: Sequence[str]) -> str:
        """``run`` for what takes its time: its standard error is shown as it comes, its output returned."""
        return self._inside(argv, True, None, None, stderr=None).stdout

    def sh(
        self, script: str, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """``run`` for a shell script."""
        return self.run(["sh", "-euc", script], check, timeout)

    def python(
        self, code: str, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """``run`` for Python code, by the host's own interpreter."""
        return self.run(["python3", "-c", code], check, timeout)

    def chroot(
        self, argv: Sequence[str], check: bool = True, timeout: float = 60, network: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host while it isn't booted, for example ``systemctl disable``.

        ``network``: with this machine's network.
        """
        if self.leader:
            raise HarnessError(f"{self.name} is running: use run()")
        alone = ("--private-network", "--resolv-conf=off")
        options = ("--resolv-conf=bind-host",) if network else alone
        done = nspawn.run(
            self.name,
            self._root,
            argv,
            *options,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        if check and done.returncode:
            raise CommandError(done)
        return done

    def read(self, path: str) -> str:
        """The text of a file of the host, running or not."""
        return self._inside(["cat", path]).stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the host, running or not; its directories are made."""
        script = 'mkdir -p "${1%/*}" && cat > "$1" && chmod "$2" "$1"'
        self._inside(["sh", "-c", script, "sh", path, f"{mode:o}"], input=text)

    def exists(self, path: str) -> bool:
        """Whether the host has a file or directory ``path``, running or not."""
        return self._inside(["test", "-e", path], check=False).returncode == 0

    def units(self, *patterns: str) -> dict[str, UnitState]:
        """The installed units that match (templates excepted) and their states, as systemctl tells them."""
        listed = self.run(
            ["systemctl", "list-unit-files", "--no-legend", *patterns], check=False
        ).stdout
        names = [line.split()[0] for line in listed.splitlines() if "@." not in line.split()[0]]
        if not names:
            return {}
        properties = ("UnitFileState", "ActiveState", "SubState")
        shown = self.run(
            ["systemctl", "show", f"--property={','.join(('Id', *properties))}", "--", *names]
        ).stdout
        states = [
            dict(line.split("=", 1) for line in block.splitlines()) for block in shown.split("\n\n")
        ]
        return {state["Id"]: UnitState(*(state[name] for name in properties)) for state in states}

    def cloud_init_status(self) -> dict[str, Any]:
        """``cloud-init status``: status, errors, and since 23.4 extended_status, recoverable_errors."""
        status: dict[str, Any] = json.loads(
            self.run(["cloud-init", "status", "--format=json"], check=False).stdout
        )
        return status

    def report(self) -> dict[str, Any]:
        """What the module wrote about its last run."""
        report: dict[str, Any] = json.loads(self.read("/run/kvmhost/report.json"))
        return report

    def _kvm_node(self) -> Path:
        """A device node of its own: this machine's belongs to a group that has another number on the host."""
        node = self._directory / "kvm"
        if not node.exists():
            os.mknod(node, stat.S_IFCHR, os.stat("/dev/kvm").st_rdev)
            node.chmod(0o666)
        return node

    @property
    def console(self) -> Path:
        """The file with all that the host wrote to its console."""
        return self._directory / "console.log"

    @property
    def _root(self) -> Path:
        return self._directory / "root"

    def _inside(
        self,
        argv: Sequence[str],
        check: bool = True,
        timeout: float | None = 60,
        input: str | None = None,
        stderr: int | None = subprocess.PIPE,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host's root: in the running host's namespaces, or on its overlay."""
        # Reading /proc/LEADER/root from here would follow the host's absolute symlinks into our own root.
        namespaces = [
            "nsenter",
            f"--target={self.leader}",
            *["-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"],
            "--",
        ]
        enter = namespaces if self.leader else ["chroot", str(self._root)]
        done = subprocess.run(
            [*enter, *argv],
            env=nspawn.ENVIRONMENT,
            input=input if input is not None else "",
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            raise CommandError(
                subprocess.CompletedProcess(argv, done.returncode, done.stdout, done.stderr)
            )
        return done

    def _console_tail(self, lines: int = 40) -> str:
        if not self.console.exists():
            return "it was never booted"
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.console.read_text(errors="replace"))
        tail = [line for line in text.splitlines() if line.strip()][-lines:]
        return "\n".join([f"the last {len(tail)} lines of its console:", *tail])


def has_kvm() -> bool:
    """Whether this machine has a KVM that makes virtual machines."""
    try:
        with open("/dev/kvm", "r+b", buffering=0) as device:
            os.close(fcntl.ioctl(device, 0xAE01, 0))  # KVM_CREATE_VM
    except OSError:
        return False
    return True


@functools.cache  # once per process is enough
def remove_leftovers() -> None:
    """Remove hosts whose process was killed before it could: those in our directory that nobody holds locked."""
    with nspawn.locked(nspawn.cache() / "locks" / "hosts"):
        for directory in _hosts().iterdir():
            lock = _try_lock(directory)
            if lock:
                nspawn.clean_up(directory.name)
                nspawn.unmount_overlay(directory)
                lock.close()


def _hosts() -> Path:
    path = nspawn.cache() / "hosts"
    path.mkdir(exist_ok=True)
    return path


def _try_lock(directory: Path) -> IO[str] | None:
    """Lock a host's directory for this process's life; None: another process holds it, and is alive."""
    stream = (directory / "lock").open("w")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return None
    return stream


def _leader(pid: int) -> int:
    """The PID 1 of the container that nspawn ``pid`` runs, 0 while there is none."""
    # nspawn's first child only sets things up; the one that becomes PID 1 has its name from exec on.
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
    return 0
