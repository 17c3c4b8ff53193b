"""images/build and images/verify: what they refuse, what they leave; and, marked slow, one image for real."""

from __future__ import annotations

import fcntl
import hashlib
import http.server
import json
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import cloudimage
import el

BUILD = el.CHECKOUT / "images/build"
VERIFY = el.CHECKOUT / "images/verify"
VERIFY_CENTOS = el.CHECKOUT / "images/verify-centos"
GUESTFS = {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}


def build(*arguments: str | Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    argv = [BUILD, "--release", "9", *arguments]
    environment = {**os.environ, **GUESTFS}
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, env=environment)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A disk with its checksum beside it, in CentOS' form; nothing is on it."""
    path = tmp_path / "base.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"], check=True)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name("base.qcow2.SHA256SUM").write_text(
        f"# base.qcow2: 1 bytes\nSHA256 (base.qcow2) = {checksum}\n"
    )
    return path


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "cc_kvmhost-0.el9.noarch.rpm"
    path.write_text("not looked at")
    return path


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out/image.qcow2"


def assert_refused(done: subprocess.CompletedProcess[str], output: Path, *texts: str) -> None:
    assert done.returncode == 1, done.stdout
    assert [text for text in texts if text not in done.stderr] == [], done.stderr
    assert "Traceback" not in done.stderr
    assert list(output.parent.iterdir()) == []


class TestRefused:
    def test_checksum_differs(self, base: Path, package: Path, output: Path) -> None:
        base.write_bytes(base.read_bytes() + b"x")
        done = build("--base", base, "--package", package, "--output", output)
        assert_refused(done, output, "its checksum is", "not using it")

    def test_given_checksum_differs(self, base: Path, package: Path, output: Path) -> None:
        done = build(
            "--base", base, "--checksum", "0" * 64, "--package", package, "--output", output
        )
        assert_refused(done, output, "published is 0000")

    def test_no_checksum(self, base: Path, package: Path, output: Path) -> None:
        base.with_name("base.qcow2.SHA256SUM").unlink()
        done = build("--base", base, "--package", package, "--output", output)
        assert_refused(done, output, "no checksum is published for base.qcow2", "--checksum SHA256")

    def test_checksum_of_another_file(self, base: Path, package: Path, output: Path) -> None:
        listed = base.with_name("base.qcow2.SHA256SUM")
        listed.write_text(listed.read_text().replace("(base.qcow2)", "(other.qcow2)"))
        done = build("--base", base, "--package", package, "--output", output)
        assert_refused(done, output, "no checksum is published for base.qcow2")

    def test_no_base(self, tmp_path: Path, package: Path, output: Path) -> None:
        done = build("--base", tmp_path / "none.qcow2", "--package", package, "--output", output)
        assert_refused(done, output, "none.qcow2: no such file")

    def test_no_package(self, base: Path, tmp_path: Path, output: Path) -> None:
        done = build("--base", base, "--package", tmp_path / "none.rpm", "--output", output)
        assert_refused(done, output, "none.rpm: no such file")

    def test_no_directory_for_the_output(self, base: Path, package: Path, tmp_path: Path) -> None:
        done = build(
            "--base", base, "--package", package, "--output", tmp_path / "none/image.qcow2"
        )
        assert (done.returncode, "its directory does not exist" in done.stderr) == (1, True)

    def test_missing_tools_are_all_named(self, base: Path, output: Path) -> None:
        path = output.parent.parent / "bin"
        path.mkdir()
        (path / "python3").symlink_to("/usr/bin/python3")
        environment = {"PATH": str(path), "HOME": str(path)}
        argv: list[str | Path] = [
            "/usr/bin/python3",
            BUILD,
            "--release",
            "9",
            "--base",
            base,
            "--output",
            output,
        ]
        done = subprocess.run(argv, capture_output=True, text=True, env=environment)
        assert_refused(
            done, output, "virt-customize is not installed", "qemu-img is not", "rpmbuild is not"
        )

    @pytest.mark.parametrize("release", ["8", "11", "9-stream"])
    def test_unknown_release(self, release: str) -> None:
        done = subprocess.run([BUILD, "--release", release], capture_output=True, text=True)
        assert done.returncode == 2
        assert f"invalid choice: '{release}'" in done.stderr

    def test_no_room(self, base: Path, package: Path, tmp_path: Path) -> None:
        """A file system of 32 MiB: seen before anything is written."""
        small = tmp_path / "small"
        small.mkdir()
        mount = f"mount -t tmpfs -o size=32M none {small}"
        argv = f"{BUILD} --release 9 --base {base} --package {package} --output {small}/image.qcow2"
        script = f"{mount} && {argv}; status=$?; ls -A {small} >&2; exit $status"
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True
        )
        assert done.returncode == 1
        assert "0.0 GiB free, a build needs 6 GiB" in done.stderr.splitlines()[-1]


def test_dry_run_prints_every_step_and_does_none(output: Path) -> None:
    done = build("--dry-run", "--output", output, "--cache", output.parent)
    assert done.returncode == 0, done.stderr
    for word in (
        "build-rpm",
        "checksum",
        "qemu-img create",
        "virt-customize",
        "virt-sparsify",
        "convert -c",
        ".sha256",
    ):
        assert word in done.stdout
    assert list(output.parent.iterdir()) == []


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server for tmp_path, and the paths asked of it."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, format: str, *arguments: object) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


class TestDownload:
    """The base is fetched once, and again only when another one is published; here it can't be provisioned."""

    def attempt(
        self, url: str, tmp_path: Path, package: Path, output: Path
    ) -> subprocess.CompletedProcess[str]:
        cache = tmp_path / "cache"
        return build(
            "--base",
            url,
            "--cache",
            cache,
            "--package",
            package,
            "--output",
            output,
            "--no-network",
        )

    def test_cached(
        self, served: tuple[str, list[str]], base: Path, package: Path, output: Path, tmp_path: Path
    ) -> None:
        address, asked = served
        for _ in range(2):
            done = self.attempt(f"{address}/base.qcow2", tmp_path, package, output)
            # Nothing is on this disk: virt-customize refuses, and nothing is left.
            assert_refused(done, output, "exit status 1 from virt-customize")
        assert asked.count("/base.qcow2") == 1
        assert [path.name for path in (tmp_path / "cache").iterdir()] == ["base.qcow2"]

    def test_wrong_checksum_is_not_kept(
        self, served: tuple[str, list[str]], base: Path, package: Path, output: Path, tmp_path: Path
    ) -> None:
        base.write_bytes(base.read_bytes() + b"x")
        done = self.attempt(f"{served[0]}/base.qcow2", tmp_path, package, output)
        assert_refused(done, output, "not using it")
        assert list((tmp_path / "cache").iterdir()) == []

    def test_no_room(
        self,
        served: tuple[str, list[str]],
        base: Path,
        package: Path,
        output: Path,
        tmp_path: Path,
    ) -> None:
        """The cache is full in the middle of the download."""
        cache = tmp_path / "cache"
        cache.mkdir()
        size = base.stat().st_size // 2
        argv: list[str | Path] = [BUILD, "--release", "9", "--base", f"{served[0]}/base.qcow2"]
        argv += ["--cache", cache, "--package", package, "--output", output]
        script = f"mount -t tmpfs -o size={size} none {cache} && {shlex.join(map(str, argv))}"
        script += f"; status=$?; ls -A {cache}; exit $status"
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True
        )
        assert_refused(done, output, "base.qcow2.part: No space left on device", "--cache")
        assert not {"base.qcow2", "base.qcow2.part"}.intersection(done.stdout.splitlines())

    def test_not_published(
        self, served: tuple[str, list[str]], package: Path, output: Path, tmp_path: Path
    ) -> None:
        done = self.attempt(f"{served[0]}/none.qcow2", tmp_path, package, output)
        assert_refused(done, output, "no checksum is published for none.qcow2")

    def test_unreachable(self, package: Path, output: Path, tmp_path: Path) -> None:
        done = self.attempt("http://127.0.0.1:9/base.qcow2", tmp_path, package, output)
        assert_refused(done, output, "Connection refused", "is this machine connected?")


class TestInterrupted:
    def start(self, base: Path, package: Path, output: Path) -> subprocess.Popen[str]:
        """A build that is inside virt-customize."""
        argv: list[str | Path] = [
            BUILD,
            "--release",
            "9",
            "--base",
            base,
            "--package",
            package,
            "--output",
            output,
            "--no-network",
        ]
        process = subprocess.Popen(
            argv,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **GUESTFS},
            # A shell's background job, and so all that it starts, ignores SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert process.stdout
        while "provisioning" not in process.stdout.readline():
            assert process.poll() is None
        time.sleep(1)
        return process

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_leaves_nothing(
        self, base: Path, package: Path, output: Path, number: signal.Signals
    ) -> None:
        process = self.start(base, package, output)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 1
        assert "interrupted; nothing is left of it" in errors
        assert list(output.parent.iterdir()) == []

    def test_killed(self, base: Path, package: Path, output: Path) -> None:
        """It can't clean up; the next build of the same output does."""
        process = self.start(base, package, output)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        process.wait()
        for child in children:
            os.killpg(int(child), signal.SIGKILL)
        assert [path.name for path in output.parent.iterdir()] == [".image.qcow2.building"]
        done = build(
            "--base", base, "--checksum", "0" * 64, "--package", package, "--output", output
        )
        assert_refused(done, output)

    def test_two_at_once(self, base: Path, package: Path, output: Path) -> None:
        work = output.with_name(".image.qcow2.building")
        work.mkdir()
        with (work / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = build("--base", base, "--package", package, "--output", output)
        assert done.returncode == 1
        assert "is being built by another process" in done.stderr
        assert work.is_dir()


def test_verify_centos_says_at_once_that_it_needs_a_connection() -> None:
    start = time.monotonic()
    without_network: list[str | Path] = ["unshare", "--net", VERIFY_CENTOS]
    done = subprocess.run(without_network, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == "verify-centos: mirror.stream.centos.org is not reachable"
    assert time.monotonic() - start < 40


@pytest.mark.slow
def test_an_image_for_real(tmp_path: Path, wheel: Path) -> None:
    """Built by virt-customize from a Debian cloud image and booted, both in QEMU without KVM."""
    image = cloudimage.cloud_image()
    output = tmp_path / "image.qcow2"
    checksum = hashlib.sha256(image.disk.read_bytes()).hexdigest()
    before = image.disk.stat().st_mtime_ns
    done = build(
        *(
            "--base",
            image.disk,
            "--checksum",
            checksum,
            "--package",
            wheel,
            "--output",
            output,
            "--no-network",
        ),
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert image.disk.stat().st_mtime_ns == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "image.qcow2",
        "image.qcow2.json",
        "image.qcow2.sha256",
    ]
    subprocess.run(
        ["sha256sum", "--check", "--quiet", "image.qcow2.sha256"], cwd=tmp_path, check=True
    )
    manifest = json.loads(Path(f"{output}.json").read_text())
    assert manifest["base"]["sha256"] == checksum
    assert manifest["cc_kvmhost"]["package"] == wheel.name
    assert any(name.startswith("cloud-init_") for name in manifest["packages"])

    # bookworm's qemu 7.2 and a 6.12 kernel do not agree on cmpxchg16b.
    machine: list[str | Path] = [
        "--cpu",
        "max,-cx16",
        "--kernel",
        image.kernel,
        "--initrd",
        image.initrd,
    ]
    machine += ["--append", "root=/dev/vda rw console=ttyS0"]
    argv: list[str | Path] = [VERIFY, output, *machine, "--timeout", "600", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = json.loads(done.stdout)[output.name]
    report = json.loads(answers["report"][1])
    assert (report["result"], report["mode"], report["errors"]) == ("ok", "modular", [])
    # Without KVM a warning says so.
    assert json.loads(answers["cloud-init"][1])["extended_status"] in ("done", "degraded done")
    assert "virtual-host" in answers["tuned"][1]
    assert "QEMU" in answers["virsh"][1]
