"""An image's tree, changed offline: by the real systemctl, on trees of a few files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict
from unittest import mock

import pytest

from cc_kvmhost import cli, files, host, offline, tuned
from cc_kvmhost import config as configuration
from cc_kvmhost.errors import KvmhostError
from cc_kvmhost.systemd import unit_files

PRESET = "etc/systemd/system-preset/70-kvmhost.preset"
UNIT = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
SOCKET = "[Socket]\nListenStream=/run/x\n[Install]\nWantedBy=sockets.target\n"
DAEMONS = ("virtqemud", "virtnetworkd", "virtstoraged", "virtnodedevd", "virtsecretd", "virtproxyd")
#: EL 9's rules: the modular daemons, and nothing else.
EL9_PRESET = "enable virtqemud.service\nenable virtproxyd.socket\nenable tuned.service\ndisable *\n"


#: For processes that import this file.
ENVIRONMENT = dict(os.environ, PYTHONPATH=os.path.dirname(os.path.abspath(__file__)))
#: Runs the command with something to happen in the middle, in a process group of its own.
INTERRUPTED = """
import os, sys
from cc_kvmhost import cli, offline, tuned
from cc_kvmhost.systemd import unit_files
root, step = sys.argv[1:]
happen = {happen}
real = unit_files.change_tree
def change_tree(root, verb, units):
    real(root, verb, units)
    if verb == step:
        happen()
unit_files.change_tree = change_tree
for module, name, at in ((tuned, "write", "profile"), (offline, "_write_preset", "preset")):
    def replaced(*words, real=getattr(module, name), at=at):
        found = real(*words)
        if step == at:
            happen()
        return found
    setattr(module, name, replaced)
sys.exit(cli.main(["apply", "--root", root]))
"""
#: Copies a tree to a file system on which nothing can be written, and applies there.
FULL = """
import shutil, subprocess, sys
from pathlib import Path
import test_offline
from cc_kvmhost import offline
tree, options = Path(sys.argv[1]), sys.argv[2]
place = tree.with_name("place")
place.mkdir()
if options == "bind,ro":
    subprocess.check_call(["mount", "--bind", str(tree), str(place)])
    subprocess.check_call(["mount", "-o", "remount,bind,ro", str(place)])
    root = place
else:
    subprocess.check_call(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)])
    root = place / "root"
    shutil.copytree(str(tree), str(root), symlinks=True)
    try:
        for number in range(1000):
            (place / str(number)).write_bytes(b"x" * 4096)
    except OSError:
        pass
before = test_offline.content(root)
report = offline.apply({}, str(root))
print(*report.errors)
print(report.result + ",", "as before" if test_offline.content(root) == before else "changed")
"""


STOPPING = (signal.SIGINT, signal.SIGHUP)


def interrupted(tree: Path, step: str, happen: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(happen=happen), str(tree), step],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        start_new_session=True,
        # A background job, and nohup, hand on signals that are ignored.
        preexec_fn=lambda: [signal.signal(each, signal.SIG_DFL) for each in STOPPING],
    )


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_tree(root: Path) -> None:
    """The tree of an EL 9 image as EL's presets leave it."""
    system = root / "usr/lib/systemd/system"
    write(root / "usr/lib/os-release", 'ID="centos"\nVERSION_ID="9"\nPRETTY_NAME="An EL 9"\n')
    for name in (*DAEMONS, "libvirtd"):
        # libvirtd's and virtqemud's take virtlogd and virtlockd along.
        also = "Also=virtlogd.socket\nAlso=virtlockd.socket\n"
        write(
            system / (name + ".service"), UNIT + (also if name[-5:] in ("virtd", "qemud") else "")
        )
    for name in (*DAEMONS, "libvirtd", "virtlogd", "virtlockd", "cockpit"):
        write(system / (name + ".socket"), SOCKET)
    for name in ("tuned.service", "each@.service"):
        write(system / name, UNIT)
    write(root / "usr/lib/tuned/profiles/virtual-host/tuned.conf", "[main]\n")
    write(root / "usr/lib/systemd/system-preset/90-default.preset", EL9_PRESET)
    write(root / "etc/tuned/active_profile", "balanced\n")
    systemctl(root, "preset-all")


def systemctl(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["systemctl", "--root=" + str(root), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        universal_newlines=True,
    )
    return done.stdout


def content(root: Path) -> Dict[str, str]:
    """Everything that is in a tree: directories, links and files."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = "-> " + os.readlink(str(path))
        else:
            found[name] = "directory" if path.is_dir() else path.read_text()
    return found


def states(root: Path) -> Dict[str, str]:
    rows = systemctl(root, "list-unit-files", "--no-legend", "--full").splitlines()
    return {row.split()[0]: row.split()[1] for row in rows}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    make_tree(tmp_path / "root")
    return tmp_path / "root"


def apply(tree: Path, section: Any = None, expected: str = "ok") -> Any:
    report = offline.apply({} if section is None else section, str(tree))
    assert report.result == expected, report.errors
    return report


class TestApply:
    def test_does_what_was_planned(self, tree: Path) -> None:
        planned = offline.preview({}, str(tree))
        report = apply(tree)
        assert report.changed == planned.changed + ("write /" + PRESET,)
        assert (report.mode, report.reason) == (planned.mode, planned.reason)
        assert report.units == planned.units
        assert report.tuned == {"before": "balanced", "after": "virtual-host"}
        now = states(tree)
        assert {name: s["after"]["file_state"] for name, s in report.units.items()} == {
            name: now[name] for name in report.units
        }
        assert now["libvirtd.service"] == now["virtlogd.socket"] == "enabled"
        assert now["virtqemud.service"] == now["virtproxyd.socket"] == "masked"
        assert tuned.read(str(tree)) == tuned.Profile("virtual-host", True)

    def test_labels_are_those_of_the_paths_that_the_image_has(self, tree: Path) -> None:
        with mock.patch.object(files, "has_selinux", return_value=True), mock.patch.object(
            files, "label_of_policy", return_value=""
        ) as label:
            apply(tree)
        asked = {call[0][0] for call in label.call_args_list}
        assert asked == {"/" + PRESET, *tuned.FILES}

    def test_everybody_may_read_what_it_makes_whatever_the_umask(self, tree: Path) -> None:
        shutil.rmtree(str(tree / "etc/systemd"))
        old = os.umask(0o077)
        try:
            apply(tree)
        finally:
            os.umask(old)
        made = [path for path in (tree / "etc").rglob("*") if not path.is_symlink()]
        assert tree / PRESET in made
        for path in made:
            assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path

    def test_a_second_time_changes_nothing(self, tree: Path) -> None:
        apply(tree)
        before = content(tree)
        assert apply(tree).changed == ()
        assert content(tree) == before

    def test_another_section_takes_over(self, tree: Path) -> None:
        apply(tree)
        assert apply(tree, {"libvirt": {"mode": "modular"}}).mode == "modular"
        now = states(tree)
        assert now["virtqemud.socket"] == now["virtlogd.socket"] == "enabled"
        assert now["libvirtd.service"] == "masked"
        systemctl(tree, "preset-all")
        assert states(tree) == now

    def test_units_asked_for(self, tree: Path) -> None:
        apply(tree, {"units": ["cockpit.socket", "each@one.service"]})
        wants = tree / "etc/systemd/system/multi-user.target.wants"
        assert states(tree)["cockpit.socket"] == "enabled"
        assert os.path.lexists(str(wants / "each@one.service"))

    def test_tuned_left_alone(self, tree: Path) -> None:
        apply(tree, {"tuned": {"enabled": False}})
        assert tuned.read(str(tree)).name == "balanced"


class TestPresets:
    @pytest.mark.parametrize("section", [{}, {"libvirt": {"mode": "modular", "autostart": False}}])
    def test_lead_to_the_same_state(self, tree: Path, section: Any) -> None:
        asked = dict(section, units=["cockpit.socket", "each@one.service"])
        apply(tree, asked)
        before = content(tree)
        systemctl(tree, "preset-all")
        assert content(tree) == before
        assert apply(tree, asked).changed == ()

    def test_without_ours_they_do_not(self, tree: Path) -> None:
        apply(tree)
        (tree / PRESET).unlink()
        systemctl(tree, "preset-all")
        assert offline.preview({}, str(tree)).changed

    @pytest.mark.parametrize("mode", ["monolithic", "modular"])
    def test_a_newer_libvirt_brings_further_units(self, tree: Path, mode: str) -> None:
        """Its package presets what was not there before: what is not the mode's own stays away."""
        section = {"libvirt": {"mode": mode}}
        apply(tree, section)
        system = tree / "usr/lib/systemd/system"
        further = ["virtinterfaced.service", "virtnwfilterd.service", "libvirtd-tcp.socket"]
        further += [f"virt{name}d.socket" for name in ("interface", "nwfilter")]
        for name in further:
            write(system / name, SOCKET if name.endswith("socket") else UNIT)
        rules = tree / "usr/lib/systemd/system-preset/90-default.preset"
        rules.write_text("enable virtinterfaced.socket\nenable virtnwfilterd.socket\n" + EL9_PRESET)
        systemctl(tree, "preset", *further)
        now = states(tree)
        if mode == "monolithic":
            assert {now[name] for name in further if name.startswith("virt")} == {"masked"}
            assert now["libvirtd-tcp.socket"] == "disabled"
        else:
            assert now["virtinterfaced.socket"] == now["virtnwfilterd.socket"] == "enabled"
            assert now["libvirtd-tcp.socket"] == "masked"
        assert apply(tree, section).result == "ok"

    def test_from_nothing(self, tree: Path) -> None:
        """A first boot that finds /etc without links."""
        apply(tree)
        before = states(tree)
        for directory in ("multi-user.target.wants", "sockets.target.wants"):
            shutil.rmtree(str(tree / "etc/systemd/system" / directory))
        systemctl(tree, "preset-all")
        assert states(tree) == before


class TestFailure:
    """The tree is as before, to the last empty directory."""

    def test_a_wrong_section(self, tree: Path) -> None:
        before = content(tree)
        report = apply(tree, {"libvirt": {"mode": "modulr"}}, "failed")
        assert "kvmhost.libvirt.mode" in report.errors[0] and report.mode is None
        assert content(tree) == before

    def test_what_is_missing(self, tree: Path) -> None:
        before = content(tree)
        report = apply(tree, {"units": ["no.service", "no@x.service"]}, "failed")
        assert [error.split(":")[1] for error in report.errors] == [" no.service", " no@x.service"]
        assert report.mode == "monolithic"
        assert content(tree) == before

    @pytest.mark.parametrize("step", ["mask", "profile", "preset", "verify"])
    @pytest.mark.parametrize("bare", [False, True], ids=["presets", "no /etc/systemd"])
    def test_in_the_middle(
        self, tree: Path, step: str, bare: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if bare:
            shutil.rmtree(str(tree / "etc/systemd"))
        else:
            (tree / "etc/systemd/system/virtlogd.service").symlink_to("/root/linked.service")
        before = content(tree)
        if step == "mask":
            real = unit_files.change_tree

            def fail(root: str, verb: str, units: Any) -> None:
                real(root, "mast" if verb == "mask" else verb, units)

            monkeypatch.setattr(unit_files, "change_tree", fail)
        elif step == "verify":
            monkeypatch.setattr(unit_files, "change_tree", lambda *_: None)
        else:
            name = tuned.FILES[1] if step == "profile" else offline.PRESET
            (tree / (name.lstrip("/") + ".kvmhost-tmp")).mkdir(parents=True)
            before = content(tree)
        report = apply(tree, {"tuned": {"profile": "virtual-host"}}, "failed")
        assert report.errors and report.mode == "monolithic"
        assert content(tree) == before

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    @pytest.mark.parametrize("step", ["mask", "profile"])
    def test_stopped(self, tree: Path, step: str, number: signal.Signals) -> None:
        """By a signal, in a process of its own; a second one does not stop the way back."""
        before = content(tree)
        done = interrupted(tree, step, f"lambda: (os.kill(0, {int(number)}), os.kill(0, 15))")
        assert done.returncode == 1
        assert f"stopped by {number.name}" in done.stderr
        assert content(tree) == before

    @pytest.mark.parametrize("step", ["disable", "mask", "profile", "preset"])
    def test_killed(self, tree: Path, step: str, tmp_path: Path) -> None:
        """Nothing can undo that: running it again finishes what was begun."""
        whole = tmp_path / "whole"
        shutil.copytree(str(tree), str(whole), symlinks=True)
        apply(whole)
        before = content(tree)
        assert interrupted(tree, step, "lambda: os.kill(os.getpid(), 9)").returncode == -9
        assert content(tree) != before or step == "disable"
        apply(tree)
        assert content(tree) == content(whole)

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")
    @pytest.mark.parametrize("options", ["bind,ro", "size=256k", "nr_inodes=160"])
    def test_nothing_can_be_written(self, tree: Path, options: str) -> None:
        """A tree that is read-only; a file system that is full, of content or of files."""
        done = subprocess.run(
            ["unshare", "--mount", sys.executable, "-c", FULL, str(tree), options],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
        )
        if "unshare" in done.stdout:
            pytest.skip(done.stdout)
        assert done.stdout.splitlines()[-1] == "failed, as before", done.stdout

    def test_what_can_not_be_put_back_is_said(
        self, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any) -> None:
            raise OSError("no")

        monkeypatch.setattr(unit_files, "change_tree", refuse)
        monkeypatch.setattr(offline, "put_links_back", refuse)
        errors = apply(tree, None, "failed").errors
        assert errors[0] == "no"
        assert errors[1] == f"putting things back: no; don't use {tree} as an image"


class TestRefused:
    @pytest.fixture(autouse=True)
    def _nothing_is_changed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def never(*_: Any) -> None:
            raise AssertionError("changed")

        monkeypatch.setattr(unit_files, "change_tree", never)
        monkeypatch.setattr(tuned, "write", never)
        monkeypatch.setattr(offline, "_write_preset", never)

    @pytest.mark.parametrize("root", ["/", "//", "/.", "/usr/..", "/proc/self/root"])
    def test_the_root_that_we_run_in(self, root: str) -> None:
        report = offline.apply({}, root)
        assert report.result == "failed"
        assert "root that this command runs in" in report.errors[0]
        assert "--here" in report.errors[0]

    @pytest.mark.parametrize("here", [False, True])
    def test_the_running_system(self, here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(offline, "_is_booted_here", lambda: True)
        (error,) = offline.apply({}, "/", here).errors
        assert "leave --root and --here out" in error

    @pytest.mark.parametrize("lacking", ["usr", "usr/lib/os-release"])
    def test_no_image(self, tree: Path, lacking: str) -> None:
        (tree / lacking).rename(tree / "elsewhere")
        (error,) = offline.apply({}, str(tree)).errors
        assert "not the tree of an image" in error

    def test_no_such_directory(self, tmp_path: Path) -> None:
        (error,) = offline.apply({}, str(tmp_path / "absent")).errors
        assert "not the tree of an image" in error


class TestLinks:
    """An absolute link in a tree leads to the tree's files, never to this machine's."""

    @pytest.mark.parametrize("place", ["etc/tuned", "etc/tuned/active_profile"])
    def test_tuneds_are_followed_inside(self, tree: Path, tmp_path: Path, place: str) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        inside = tree / str(outside).lstrip("/")
        inside.mkdir(parents=True)
        (tree / place).rename(inside / "moved")
        (tree / place).symlink_to(str(outside / "moved"))
        apply(tree)
        assert list(outside.iterdir()) == []
        assert tuned.read(str(tree)).name == "virtual-host"
        assert apply(tree).changed == ()

    @pytest.mark.parametrize("place", ["", "/systemd", "/systemd/system/multi-user.target.wants"])
    def test_systemctl_would_follow_them_out(self, tree: Path, tmp_path: Path, place: str) -> None:
        outside = tmp_path / "outside"
        shutil.move(str(tree / "etc") + place, str(outside))
        Path(str(tree / "etc") + place).symlink_to(str(outside))
        before = content(outside)
        (error,) = apply(tree, None, "failed").errors
        assert f"etc{place} leads out of it" in error
        assert content(outside) == before

    @pytest.mark.parametrize("place", ["usr/lib", "usr/lib/systemd/system"])
    def test_unit_files_of_elsewhere_are_not_the_images(
        self, tree: Path, tmp_path: Path, place: str
    ) -> None:
        shutil.move(str(tree / place), str(tmp_path / "outside"))
        (tree / place).symlink_to(str(tmp_path / "outside"))
        before = content(tree)
        (error,) = apply(tree, None, "failed").errors
        assert f"{place} leads out of it" in error
        assert content(tree) == before
        with pytest.raises(KvmhostError, match=f"{place} leads out of it"):
            offline.preview({}, str(tree))

    def test_a_relative_link_stays_inside(self, tree: Path) -> None:
        (tree / "etc/systemd").rename(tree / "usr/systemd")
        (tree / "etc/systemd").symlink_to("../usr/systemd")
        apply(tree)
        assert states(tree)["libvirtd.service"] == "enabled"


class TestCommand:
    def test_report(self, tree: Path, tmp_path: Path, capsys: Any) -> None:
        section = tmp_path / "section"
        section.write_text("#cloud-config\nkvmhost: {libvirt: {mode: modular}}\n")
        assert cli.main(["apply", "--root", str(tree), "--json", str(section)]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["result"], report["mode"]) == ("ok", "modular")
        assert cli.main(["apply", "--root", str(tree), str(section)]) == 0
        out = capsys.readouterr().out
        assert "changes  none" in out and "report.json" not in out

    def test_refused(self, capsys: Any) -> None:
        assert cli.main(["apply", "--root", "/"]) == 1
        assert "--here" in capsys.readouterr().err

    def test_one_tree(self, tree: Path, capsys: Any) -> None:
        with pytest.raises(SystemExit) as caught:
            cli.main(["apply", "--root", str(tree), "--here"])
        assert caught.value.code == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="every other test here runs without root then")
def test_needs_no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = configuration.load_schema()  # the checkout may be readable by root alone
    monkeypatch.setattr(configuration, "load_schema", lambda: schema)
    configuration.parse({})
    host.read_system("/")
    with tempfile.TemporaryDirectory() as name:
        make_tree(Path(name))
        for path in [Path(name), *Path(name).rglob("*")]:
            os.lchown(str(path), 65534, 65534)
        os.setegid(65534)
        os.seteuid(65534)
        try:
            report = offline.apply({}, name)
        finally:
            os.seteuid(0)
            os.setegid(0)
        assert report.result == "ok", report.errors
        assert states(Path(name))["libvirtd.service"] == "enabled"
        assert (Path(name) / PRESET).stat().st_uid == 65534
