"""The reasons why KVM can't be used."""

import errno
import os
import stat
from pathlib import Path
from typing import Tuple

import pytest

from cc_kvmhost import kvm


class TestWhyThereIsNoDriver:
    @pytest.mark.parametrize(
        "arch, flags, words",
        [
            ("x86_64", ("hypervisor",), "virtual machine, and its CPU has neither vmx nor svm"),
            ("x86_64", (), "firmware's setup"),
            ("x86_64", ("vmx", "hypervisor"), "'modprobe kvm_intel'"),
            ("x86_64", ("svm",), "'modprobe kvm_amd'"),
            ("aarch64", (), "EL1"),
            ("s390x", (), "no sie"),
            ("s390x", ("sie",), "'modprobe kvm'"),
            ("ppc64le", (), "'modprobe kvm'"),
        ],
    )
    def test_in_words_to_act_on(self, arch: str, flags: Tuple[str, ...], words: str) -> None:
        assert words in kvm._why_no_driver(arch, flags)


class TestOpening:
    @pytest.mark.parametrize(
        "number, words",
        [
            (errno.ENOENT, "there is no /dev/kvm: "),
            (errno.ENODEV, "no driver behind /dev/kvm: "),
            (errno.ENXIO, "no driver behind /dev/kvm: "),
            (errno.EPERM, "/dev/kvm can't be opened: Operation not permitted; a container must"),
            (errno.EIO, "/dev/kvm can't be opened: Input/output error"),
        ],
    )
    def test_words(self, number: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kvm, "_MISC", "/nowhere")
        assert kvm._explain_open(OSError(number, os.strerror(number))).startswith(words)

    @pytest.mark.parametrize("device", ["/dev/null", "/dev/zero", __file__])
    def test_something_else_in_its_place(
        self, device: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kvm, "DEVICE", device)
        assert "is not KVM's device" in kvm.read().reason
        assert not kvm.read().usable

    def test_a_missing_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kvm, "DEVICE", "/nowhere/kvm")
        assert kvm.read().reason.startswith("there is no /dev/kvm")

    @pytest.mark.parametrize("uid, usable", [(0, False), (1000, None)])
    def test_one_that_may_not_be_opened(
        self, uid: int, usable: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What root may do is not known to others."""

        def refuse(*_: object) -> int:
            raise PermissionError(errno.EACCES, "Permission denied", "/dev/kvm")

        monkeypatch.setattr(os, "geteuid", lambda: uid)
        monkeypatch.setattr(os, "open", refuse)
        found = kvm.read()
        assert found.usable is usable
        assert ("only root may look at /dev/kvm" in found.reason) == (usable is None)

    @pytest.mark.parametrize(
        "misc, there", [(" 58 vhost-vsock\n232 kvm\n", True), ("232 kvmi\n200 tun\n", False)]
    )
    def test_a_missing_node_of_a_driver_that_is_there(
        self, misc: str, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "misc").write_text(misc)
        monkeypatch.setattr(kvm, "_MISC", str(tmp_path / "misc"))
        reason = kvm._explain_open(OSError(errno.ENOENT, ""))
        assert reason.startswith("there is no /dev/kvm")
        assert ("although the kernel has KVM" in reason) == there

    def test_another_hypervisor(self) -> None:
        assert "another hypervisor" in kvm._explain_create(OSError(errno.EBUSY, "busy"))


class TestLibvirtsUser:
    USER = kvm.User("qemu", 107, (107, 36))

    @pytest.mark.parametrize(
        "uid, gid, mode, may",
        [
            (0, 0, 0o666, True),
            (0, 36, 0o660, True),
            (0, 36, 0o640, False),
            (0, 5, 0o660, False),
            (0, 5, 0o600, False),
            (107, 5, 0o600, True),
            (107, 5, 0o066, False),
            (0, 36, 0o606, False),
        ],
    )
    def test_by_owner_group_and_mode(self, uid: int, gid: int, mode: int, may: bool) -> None:
        status = os.stat_result((stat.S_IFCHR | mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))
        assert kvm._may(status, self.USER) == may

    def test_the_message_names_device_user_and_a_way(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kvm, "DEVICE", "/etc/shadow")
        reason = kvm._refusal_to(self.USER)
        assert reason.startswith(
            "qemu, the user that libvirt runs QEMU as, may not use /etc/shadow (root:"
        )
        assert "chmod 0666 /etc/shadow" in reason and "udev rule" in reason

    @pytest.mark.parametrize("device, usable", [("/dev/null", True), ("/etc/passwd", None)])
    def test_nobody_may_know_who_it_is(
        self, device: str, usable: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """EL's /etc/libvirt is root's alone. It does not matter for a device that is everybody's."""

        def refuse() -> None:
            raise PermissionError(errno.EACCES, "Permission denied", "/etc/libvirt/qemu.conf")

        monkeypatch.setattr(kvm, "DEVICE", device)
        monkeypatch.setattr(kvm, "_refusal", lambda: "")
        monkeypatch.setattr(kvm, "_qemu_user", refuse)
        assert kvm.read().usable is usable
        assert "/etc/libvirt/qemu.conf" in kvm.read().reason or usable

    def test_root_and_nobody_in_particular_may(self) -> None:
        assert kvm._refusal_to(kvm.User("root", 0, (0,))) == ""
        assert kvm._refusal_to(None) == ""

    @pytest.mark.parametrize(
        "text, settings",
        [
            ('user = "alice"\ngroup="+42"\n', {"user": "alice", "group": "+42"}),
            ('#user = "alice"\n  group = "kvm" # x\n', {"group": "kvm"}),
            ('user_x = "alice"\n', {}),
        ],
    )
    def test_settings(self, text: str, settings: object) -> None:
        assert kvm._settings(text) == settings

    @pytest.mark.parametrize("name, gid", [("+42", 42), ("42", 42), ("root", 0), ("no-such", 7)])
    def test_group(self, name: str, gid: int) -> None:
        assert kvm._gid(name, 7) == gid
