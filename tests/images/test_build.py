"""images/build and images/verify: what they refuse, what they leave; and, marked slow, one image for real."""

from __future__ import annotations

import fcntl
import hashlib
import http.server
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import cloudimage
import el
import program

BUILD = el.CHECKOUT / "images/build"
VERIFY = el.CHECKOUT / "images/verify"
VERIFY_CENTOS = el.CHECKOUT / "images/verify-centos"
GUESTFS = {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}


def build(
    *arguments: str | Path, timeout: float = 600, tools: Path | None = None
) -> subprocess.CompletedProcess[str]:
    argv = [BUILD, *arguments]
    path = f"{tools}:{os.environ['PATH']}" if tools else os.environ["PATH"]
    environment = {**os.environ, **GUESTFS, "PATH": path}
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        preexec_fn=heed_interrupts,
    )


def heed_interrupts() -> None:
    """A shell's background job, and so all that it starts, ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


OS_RELEASE = 'ID="centos"\nVERSION_ID="9"\nPRETTY_NAME="CentOS Stream 9"\n'


def disk(path: Path, os_release: str = OS_RELEASE) -> Path:
    """A disk with its checksum beside it, in CentOS' form; of its system there is the name alone."""
    root = path.with_name(f"{path.name}.root")
    for directory in ("etc", "bin", "usr"):
        (root / directory).mkdir(parents=True)
    (root / "etc/os-release").write_text(os_release)
    (root / "etc/fstab").write_text("")  # what libguestfs tells a root by
    raw = path.with_suffix(".raw")
    subprocess.run(["truncate", "--size=8M", raw], check=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, raw], check=True)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, path], check=True)
    shutil.rmtree(root)
    raw.unlink()
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    beside(path).write_text(f"# {path.name}: 1 bytes\nSHA256 ({path.name}) = {checksum}\n")
    return path


def beside(path: Path) -> Path:
    """The file with a disk's checksum."""
    return path.with_name(f"{path.name}.SHA256SUM")


def reading(directory: Path, os_release: str) -> Path:
    """A directory with a virt-cat that has the answer: starting an appliance takes ten seconds."""
    tools = directory / "tools"
    tools.mkdir()
    (directory / "os-release").write_text(os_release)
    (tools / "virt-cat").write_text(f"#!/bin/sh\ncat {directory}/os-release\n")
    (tools / "virt-cat").chmod(0o755)
    return tools


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return disk(tmp_path / "base.qcow2")


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

    def test_no_base(self, tmp_path: Path, package: Path, output: Path) -> None:
        done = build("--base", tmp_path / "none.qcow2", "--package", package, "--output", output)
        assert_refused(done, output, "none.qcow2: no such file")

    def test_no_package(self, base: Path, tmp_path: Path, output: Path) -> None:
        done = build("--base", base, "--package", tmp_path / "none.rpm", "--output", output)
        assert_refused(done, output, "none.rpm: no such file")

    def test_no_section(self, base: Path, package: Path, output: Path) -> None:
        done = build(
            "--base", base, "--package", package, "--output", output, "--bake", "absent.yaml"
        )
        assert_refused(done, output, "--bake absent.yaml: no such file")

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
        """A file system that is too small (32 MiB) is noticed before anything is written."""
        small = tmp_path / "small"
        small.mkdir()
        mount = f"mount -t tmpfs -o size=32M none {small}"
        argv = f"{BUILD} --base {base} --package {package} --output {small}/image.qcow2"
        script = f"{mount} && {argv}; status=$?; ls -A {small} >&2; exit $status"
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True
        )
        assert done.returncode == 1
        assert "0.0 GiB free, a build needs 6 GiB" in done.stderr.splitlines()[-1]


def test_dry_run_prints_every_step_and_does_none(output: Path) -> None:
    done = build("--release", "9", "--dry-run", "--output", output, "--cache", output.parent)
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


def test_a_section_to_bake_is_handed_to_provision(output: Path) -> None:
    words = ("--release", "9", "--dry-run", "--output", output, "--bake", "a section.yaml")
    done = build(*words)
    assert done.returncode == 0, done.stderr
    assert f"'{Path.cwd()}/a section.yaml:/root/kvmhost-image/bake.yaml'" in done.stdout
    assert "--bake /root/kvmhost-image/bake.yaml" in done.stdout


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
    """The base is fetched once, and again only when another one is published; here nothing fits what is in it."""

    def attempt(
        self, url: str, tmp_path: Path, package: Path, output: Path
    ) -> subprocess.CompletedProcess[str]:
        cache, tools = tmp_path / "cache", tmp_path / "tools"
        if not tools.exists():
            reading(tmp_path, "ID=other\n")
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
            tools=tools,
        )

    def test_cached(
        self, served: tuple[str, list[str]], base: Path, package: Path, output: Path, tmp_path: Path
    ) -> None:
        address, asked = served
        for _ in range(2):
            done = self.attempt(f"{address}/base.qcow2", tmp_path, package, output)
            assert_refused(done, output, "no list for it")
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
        argv: list[str | Path] = [BUILD, "--base", f"{served[0]}/base.qcow2"]
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
        assert_refused(done, output, "none.qcow2.SHA256SUM: not there", "CHECKSUM: not there")

    @pytest.mark.parametrize("status", [500, 503])
    def test_not_now(self, package: Path, output: Path, tmp_path: Path, status: int) -> None:
        """A mirror's error does not mean that no checksum is published."""

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_error(status)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{server.server_address[1]}"
            done = self.attempt(f"{address}/base.qcow2", tmp_path, package, output)
            server.shutdown()
        assert_refused(done, output, "base.qcow2.SHA256SUM: HTTP Error", str(status), "try again")
        assert "not there" not in done.stderr

    def test_unreachable(self, package: Path, output: Path, tmp_path: Path) -> None:
        done = self.attempt("http://127.0.0.1:9/base.qcow2", tmp_path, package, output)
        assert_refused(done, output, "Connection refused", "is this machine connected?")


class TestChecksum:
    """Which of the published forms are read, and why one is not trusted. The disk itself is looked at later."""

    NAME = "base.qcow2"
    GOOD = hashlib.sha256(b"disk").hexdigest()

    @pytest.mark.parametrize(
        ("file", "text"),
        [
            ("base.qcow2.SHA256SUM", "SHA256 ({name}) = {good}\n"),
            ("base.qcow2.CHECKSUM", "# {name}: 4 bytes\nSHA256 ({name}) = {good}\n"),
            ("CHECKSUM", "# {name}: 4 bytes\nSHA256 ({name}) = {good}\nSHA256 (other) = {bad}\n"),
            ("CHECKSUM", "{good}  {name}\n{bad}  other\n"),
            ("CHECKSUM", "{good} *./{name}\n"),
            ("CHECKSUM", "-----BEGIN PGP SIGNED MESSAGE-----\n\nSHA256 ({name}) = {good}\r\n"),
        ],
    )
    def test_read(self, tmp_path: Path, package: Path, output: Path, file: str, text: str) -> None:
        (tmp_path / self.NAME).write_bytes(b"disk")
        (tmp_path / file).write_text(self.filled(text))
        done = self.build(tmp_path, package, output)
        assert_refused(done, output, "exit status 1 from virt-cat")  # past the checksum

    @pytest.mark.parametrize(
        ("files", "words"),
        [
            ({}, "CHECKSUM: not there"),
            ({"CHECKSUM": ""}, "CHECKSUM: empty"),
            ({"CHECKSUM": "\n"}, "CHECKSUM: empty"),
            ({"CHECKSUM": "SHA256 (other) = {good}\n"}, "CHECKSUM: no SHA-256 of base.qcow2"),
            ({"CHECKSUM": "SHA512 ({name}) = {good}\n"}, "CHECKSUM: no SHA-256 of base.qcow2"),
            (
                {"CHECKSUM": "SHA256 ({name}) = {good}\nSHA256 ({name}) = {bad}\n"},
                "CHECKSUM: 2 different ones of base.qcow2",
            ),
            ({"base.qcow2.SHA256SUM": ""}, "base.qcow2.SHA256SUM: empty"),
        ],
    )
    def test_not_trusted(
        self, tmp_path: Path, package: Path, output: Path, files: dict[str, str], words: str
    ) -> None:
        (tmp_path / self.NAME).write_bytes(b"disk")
        for file, text in files.items():
            (tmp_path / file).write_text(self.filled(text))
        done = self.build(tmp_path, package, output)
        assert_refused(done, output, "no checksum is published", words, "--checksum SHA256")

    def test_plain_http(self, package: Path, output: Path) -> None:
        """It is refused before the host is asked anything."""
        url = "http://mirror.example/base.qcow2"
        done = build("--base", url, "--package", package, "--output", output)
        assert_refused(
            done, output, "somebody on the way can replace", "https", "--checksum SHA256"
        )

    def filled(self, text: str) -> str:
        return text.format(name=self.NAME, good=self.GOOD, bad="0" * 64)

    def build(
        self, tmp_path: Path, package: Path, output: Path
    ) -> subprocess.CompletedProcess[str]:
        return build("--base", tmp_path / self.NAME, "--package", package, "--output", output)


class TestSystem:
    """A base is looked at before anything is built: --dry-run does that, too."""

    RHEL = 'ID="rhel"\nVERSION_ID="9.6"\nPRETTY_NAME="Red Hat Enterprise Linux 9.6"\n'

    def test_refused(self, tmp_path: Path, output: Path) -> None:
        text = 'ID="ol"\nVERSION_ID="9.6"\nPRETTY_NAME="Oracle Linux Server 9.6"\n'
        base = disk(tmp_path / "ol-9.6.qcow2", text)
        done = build("--base", base, "--dry-run", "--output", output)
        words = ("is Oracle Linux Server 9.6 (ol 9)", "no list for it", "el-10, el-9")
        assert_refused(done, output, *words)

    @pytest.mark.parametrize(
        ("os_release", "arguments", "words"),
        [
            ('ID="rhel"\nVERSION_ID="11.0"\n', [], ["is rhel 11 (rhel 11)", "no list for it"]),
            ("", [], ["no list for it"]),
            (OS_RELEASE, ["--release", "10"], ["--release 10, but", "is CentOS Stream 9"]),
            (OS_RELEASE, ["--system", "rocky"], ["--system rocky, but", "is CentOS Stream 9"]),
            (
                RHEL,
                [],
                ["need a subscription", "activation key", "--subscription FILE", "not left"],
            ),
            ('ID=debian\nVERSION_ID="13"\n', [], ["--package FILE is needed"]),
        ],
    )
    def test_does_not_fit(
        self, tmp_path: Path, output: Path, os_release: str, arguments: list[str], words: list[str]
    ) -> None:
        """The base's os-release is given here; the test before reads a real one."""
        done = self.build(tmp_path, os_release, *arguments, "--dry-run", "--output", output)
        assert_refused(done, output, *words)

    def test_subscription(self, tmp_path: Path, output: Path) -> None:
        """The key is in no command line, which a process list shows, and in no file that is copied into the image."""
        (tmp_path / "subscription").write_text("12345 the-key\n")
        subscription = ("--subscription", tmp_path / "subscription")
        done = self.build(tmp_path, self.RHEL, *subscription, "--dry-run", "--output", output)
        assert done.returncode == 0, done.stderr
        assert "--commands-from-file" in done.stdout
        assert "the-key" not in done.stdout

    def test_the_key_is_not_shown(self, tmp_path: Path, package: Path, output: Path) -> None:
        """The real virt-customize prints each command, and prints it again if it fails."""
        done = self.customizing(tmp_path, package, output, 'cat "$file"; cat "$file" >&2; exit 1')
        assert done.returncode == 1
        assert "the-key" not in done.stdout + done.stderr
        assert done.stdout.count("KVMHOST_SUBSCRIPTION='12345 ***' /root/") == 2
        assert list(output.parent.iterdir()) == []

    def test_interrupted_while_registered(
        self, tmp_path: Path, package: Path, output: Path
    ) -> None:
        """Then nothing can unregister the image: the message names the system that stays registered."""
        done = self.customizing(tmp_path, package, output, "kill -INT $PPID; sleep 60")
        assert done.returncode == 1
        assert "kvmhost-image-build may still be in the list of systems" in done.stderr
        assert "interrupted; nothing is left of it" in done.stderr
        assert list(output.parent.iterdir()) == []

    def test_interrupted_without_a_subscription(
        self, tmp_path: Path, package: Path, output: Path
    ) -> None:
        script = "kill -INT $PPID; sleep 60"
        done = self.customizing(tmp_path, package, output, script, os_release=OS_RELEASE)
        assert done.returncode == 1
        assert "kvmhost-image-build" not in done.stderr

    def customizing(
        self,
        tmp_path: Path,
        package: Path,
        output: Path,
        script: str,
        os_release: str = RHEL,
    ) -> subprocess.CompletedProcess[str]:
        """A build with this script as virt-customize; $file has the commands that it is given."""
        tools = reading(tmp_path, os_release)
        customize = tools / "virt-customize"
        find = 'while [ "$1" != --commands-from-file ] && [ $# -gt 0 ]; do shift; done; file=$2'
        customize.write_text(f"#!/bin/sh\n{find}\n{script}\n")
        customize.chmod(0o755)
        arguments: list[str | Path] = ["--base", disk(tmp_path / "base.qcow2")]
        arguments += ["--package", package, "--output", output]
        if os_release == self.RHEL:
            (tmp_path / "subscription").write_text("12345 the-key\n")
            arguments += ["--subscription", tmp_path / "subscription"]
        return build(*arguments, tools=tools)

    def test_without_guestfs_tools(self, tmp_path: Path, output: Path) -> None:
        """A dry run looks into a base, too."""
        base = disk(tmp_path / "base.qcow2")
        tools = tmp_path / "bin"
        tools.mkdir()
        environment = {"PATH": str(tools), "HOME": str(tools)}
        argv: list[str | Path] = ["/usr/bin/python3", BUILD, "--base", base, "--dry-run"]
        done = subprocess.run(
            [*argv, "--output", output], capture_output=True, text=True, env=environment
        )
        assert_refused(done, output, "virt-cat is not installed: it is in guestfs-tools")

    def test_subscription_of_another_form(
        self, tmp_path: Path, package: Path, output: Path
    ) -> None:
        (tmp_path / "subscription").write_text("the-key\n")
        subscription = ("--subscription", tmp_path / "subscription", "--package", package)
        done = self.build(tmp_path, self.RHEL, *subscription, "--output", output)
        assert_refused(done, output, "organization's ID and an activation key; found 1 words")
        assert "the-key" not in done.stderr

    def build(
        self, tmp_path: Path, os_release: str, *arguments: str | Path
    ) -> subprocess.CompletedProcess[str]:
        base = disk(tmp_path / "base.qcow2")
        return build("--base", base, *arguments, tools=reading(tmp_path, os_release))

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ([], "--release is needed, or --base"),
            (["--system", "rhel", "--release", "9"], "customer portal"),
            (["--system", "oracle", "--release", "9"], "invalid choice: 'oracle'"),
        ],
    )
    def test_usage(self, arguments: list[str], words: str) -> None:
        done = build(*arguments)
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr

    @pytest.mark.parametrize(
        ("system", "url"),
        [
            ("centos", "CentOS-Stream-GenericCloud-x86_64-10-latest.x86_64.qcow2"),
            ("almalinux", "AlmaLinux-10-GenericCloud-latest.x86_64.qcow2"),
            ("rocky", "Rocky-10-GenericCloud-Base.latest.x86_64.qcow2"),
        ],
    )
    def test_default_base(self, output: Path, system: str, url: str) -> None:
        """CentOS: the name with EFI; the one without the doubled architecture boots by BIOS alone."""
        done = build("--system", system, "--release", "10", "--dry-run", "--output", output)
        assert (done.returncode, url in done.stdout) == (0, True), done.stderr


class TestLabels:
    """Where the manifest says that an image's SELinux labels come from."""

    @pytest.mark.parametrize(
        ("packages", "files", "words"),
        [
            (["bash-5.1-9.el9"], "etc\n.autorelabel\n", "none: no policy is installed"),
            (["selinux-policy-targeted-38.1.84-1.el9"], "etc\nusr\n", "set in the image"),
            (["selinux-policy-targeted-38.1.84-1.el9"], ".autorelabel\netc\n", "at first boot"),
        ],
    )
    def test_told(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        packages: list[str],
        files: str,
        words: str,
    ) -> None:
        (tmp_path / "files").write_text(files)
        (tmp_path / "virt-ls").write_text(f"#!/bin/sh\ncat {tmp_path}/files\n")
        (tmp_path / "virt-ls").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        assert words in program.build().labels(tmp_path / "image", packages)


@pytest.mark.parametrize(("given", "taken"), [(None, "direct"), ("libvirt", "libvirt")])
def test_backend(tmp_path: Path, output: Path, given: str | None, taken: str) -> None:
    """The backend is direct, since libvirt runs QEMU as another user than root. One in the environment is kept."""
    tools = reading(tmp_path, "")
    (tools / "virt-cat").write_text('#!/bin/sh\necho "backend $LIBGUESTFS_BACKEND" >&2; exit 1\n')
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    environment.pop("LIBGUESTFS_BACKEND", None)
    if given:
        environment["LIBGUESTFS_BACKEND"] = given
    argv: list[str | Path] = [BUILD, "--base", disk(tmp_path / "base.qcow2"), "--dry-run"]
    done = subprocess.run(
        [*argv, "--output", output], capture_output=True, text=True, env=environment
    )
    assert f"backend {taken}\n" in done.stderr


class TestInterrupted:
    def start(self, base: Path, package: Path, output: Path) -> subprocess.Popen[str]:
        """A build that is inside virt-customize."""
        argv: list[str | Path] = [
            BUILD,
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
            preexec_fn=heed_interrupts,
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
        """A killed build can't clean up; the next build of the same output does."""
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


#: What the image's first boot is asked for. Its kernel has a device-mapper, which those of tests/hosts lack.
SECTION = """\
kvmhost:
  libvirt:
    networks:
      - {name: default, mode: nat}
    pools:
      - {name: default, type: dir, path: /var/lib/libvirt/images}
      - {name: vms, type: logical, source: vg_vms}
bootcmd:
  - [cloud-init-per, instance, disk, truncate, --size=64M, /var/disk]
  - [sh, -c, "losetup --find /var/disk"]
  - [cloud-init-per, instance, vg_vms, sh, -c,
     "vgcreate --yes vg_vms $(losetup --noheadings --output=NAME --associated=/var/disk)"]
"""
#: Asked there, too. QEMU's network card has a boot ROM that asks for an address, so a guest needs no system for that.
ASKED = {
    "pools": """#!/bin/sh -eu
virsh pool-list --all
virsh vol-create-as vms disk 8M
[ -b /dev/vg_vms/disk ]
kvmhost apply --json | grep '"changed": ..,'
# A daemon that starts anew finds it active.
systemctl stop virtstoraged.service
virsh pool-list | grep 'vms *active *yes'
virsh pool-destroy vms
[ ! -e /dev/vg_vms/disk ]
virsh pool-start vms
[ -b /dev/vg_vms/disk ]
virsh vol-delete disk vms
# A volume that somebody has activated stays so when a run is taken back.
lvcreate --yes --quiet --size=8M --name=mine vg_vms
virsh pool-destroy vms
virsh pool-undefine vms
lvchange --activate y vg_vms/mine
mkdir /srv/full
mount -t tmpfs -o size=2g,nr_inodes=1 none /srv/full
printf '#cloud-config\nkvmhost: {libvirt: {pools: [%s, %s]}}\n' '{name: vms, type: logical, source: vg_vms}' \
    '{name: last, type: dir, path: /srv/full/pool}' >/root/again.yaml
if kvmhost apply /root/again.yaml 2>/root/errors; then exit 1; fi
cat /root/errors
grep 'it stays active, because stopping it would deactivate logical volumes' /root/errors
[ -b /dev/vg_vms/mine ]
virsh pool-destroy vms
virsh pool-undefine vms
[ ! -e /dev/vg_vms/mine ]
echo all of it
""",
    "address": """#!/bin/sh -eu
virsh net-list --all
virt-install --name address --memory 64 --disk none --pxe --network default --graphics none \
    --osinfo detect=off,require=off --noautoconsole --virt-type qemu
for _ in $(seq 120); do
    if virsh net-dhcp-leases default | grep '192\\.168\\.122\\.'; then exit 0; fi
    sleep 2
done
exit 1
""",
}


@pytest.mark.slow
def test_an_image_for_real(tmp_path: Path, wheel: Path) -> None:
    """Built by virt-customize from a Debian cloud image and booted, both in QEMU without KVM."""
    image = cloudimage.cloud_image()
    output = tmp_path / "image.qcow2"
    checksum = hashlib.sha256(image.read_bytes()).hexdigest()
    before = image.stat().st_mtime_ns
    section = tmp_path / "section.yaml"
    section.write_text("#cloud-config\npassword: secret\nkvmhost: {libvirt: {mode: auto}}\n")
    done = build(
        *(
            "--base",
            image,
            "--checksum",
            checksum,
            "--package",
            wheel,
            "--output",
            output,
            "--no-network",
            "--bake",
            section,
        ),
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert image.stat().st_mtime_ns == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "image.qcow2",
        "image.qcow2.json",
        "image.qcow2.sha256",
        "section.yaml",
    ]
    subprocess.run(
        ["sha256sum", "--check", "--quiet", "image.qcow2.sha256"], cwd=tmp_path, check=True
    )
    manifest = json.loads(Path(f"{output}.json").read_text())
    assert manifest["base"]["sha256"] == checksum
    assert manifest["cc_kvmhost"]["package"] == wheel.name
    assert any(name.startswith("cloud-init_") for name in manifest["packages"])

    assert manifest["system"] == "Debian GNU/Linux 13"
    assert manifest["baked"] == {"libvirt": {"mode": "auto"}}
    assert (manifest["firmware"], manifest["selinux"]) == (["bios"], "none: no policy is installed")

    argv: list[str | Path] = [VERIFY, output, "--timeout", "900", "--json"]
    (tmp_path / "section").write_text(SECTION)
    argv += ["--section", tmp_path / "section"]
    for name, text in ASKED.items():
        (tmp_path / name).write_text(text)
        argv += ["--ask", tmp_path / name]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = json.loads(done.stdout)[output.name]
    report = json.loads(answers["report.json"][1])
    assert (report["result"], report["mode"], report["errors"]) == ("ok", "modular", [])
    # Baked in: all but what only a running libvirt can be told.
    told = re.compile("start |[a-z]+ (network|pool) ")
    assert [each for each in report["changed"] if not told.match(each)] == []
    assert report["networks"]["default"]["after"]["subnet"] == "192.168.122.0/24"
    # Debian's order; its images have the programs of both.
    assert report["networks"]["default"]["after"]["firewall"] == "iptables"
    assert report["pools"]["vms"]["after"]["active"]
    for name in ASKED:
        assert answers[name][0] == 0, answers[name][1]
    # Without KVM a warning says so.
    assert re.search("extended_status: (degraded )?done", answers["cloud-init"][1])
    assert "virtual-host" in answers["tuned"][1]
    assert "QEMU" in answers["virsh"][1]
    assert answers["firmware"][0] != 0
