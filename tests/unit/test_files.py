"""Files are replaced whole, even with several writers, and after a killed one."""

import os
import stat
import threading
from pathlib import Path
from unittest import mock

import pytest

from cc_kvmhost import files


class TestReplace:
    def test_new_and_old(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        old = os.umask(0o077)
        try:
            files.replace(str(path), b"new")
        finally:
            os.umask(old)
        assert (path.read_bytes(), path.stat().st_mode & 0o7777) == (b"new", 0o644)
        path.chmod(0o600)
        files.replace(str(path), b"newer")
        assert (path.read_bytes(), path.stat().st_mode & 0o7777) == (b"newer", 0o600)
        assert os.listdir(str(tmp_path)) == ["file"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may label files")
    def test_an_old_file_keeps_its_label(self, tmp_path: Path) -> None:
        path, label = str(tmp_path / "file"), b"system_u:object_r:tuned_rw_etc_t:s0\0"
        files.replace(path, b"new")
        os.setxattr(path, "security.selinux", label)
        files.replace(path, b"newer")
        assert files.read(path) == b"newer"
        assert os.getxattr(path, "security.selinux") == label

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may label files")
    def test_a_new_file_gets_the_policys(self, tmp_path: Path) -> None:
        """A stub replaces SELinux's library, because no machine of these tests has SELinux."""
        path = str(tmp_path / "file")
        library = mock.Mock()
        library.matchpathcon.return_value = [0, "system_u:object_r:tuned_rw_etc_t:s0"]
        with mock.patch.dict("sys.modules", selinux=library):
            files.replace(path, b"without SELinux")
            assert not library.mock_calls
            os.unlink(path)
            with mock.patch.object(files, "_SELINUX_ON", str(tmp_path)):
                files.replace(path, b"new")
                library.matchpathcon.assert_called_once_with(path, stat.S_IFREG)
                label = os.getxattr(path, "security.selinux")
                assert label == b"system_u:object_r:tuned_rw_etc_t:s0\0"
                os.unlink(path)
                # In an image's tree it is asked for the path that the image has.
                files.replace(path, b"new", str(tmp_path))
                library.matchpathcon.assert_called_with("/file", stat.S_IFREG)
                os.unlink(path)
                library.matchpathcon.side_effect = OSError(2, "no context for it")
                files.replace(path, b"new")
        assert files.read(path) == b"new"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may label files")
    def test_a_label_where_there_are_labels(self, tmp_path: Path) -> None:
        label = "system_u:object_r:virt_image_t:s0"
        files.set_label(str(tmp_path), label)
        assert os.getxattr(str(tmp_path), "security.selinux") == label.encode() + b"\0"
        files.set_label("/proc", label)
        with pytest.raises(FileNotFoundError):
            files.set_label(str(tmp_path / "missing"), label)

    def test_leftovers_are_used_up(self, tmp_path: Path) -> None:
        path, elsewhere = tmp_path / "file", tmp_path / "elsewhere"
        (tmp_path / ("file" + files.TEMPORARY)).write_bytes(b"left by a killed run, and longer")
        files.replace(str(path), b"new")
        assert path.read_bytes() == b"new"
        elsewhere.write_bytes(b"safe")
        (tmp_path / ("file" + files.TEMPORARY)).symlink_to(elsewhere)
        files.replace(str(path), b"newer")
        assert (path.read_bytes(), elsewhere.read_bytes()) == (b"newer", b"safe")
        assert sorted(os.listdir(str(tmp_path))) == ["elsewhere", "file"]

    def test_writers_at_the_same_time_take_turns(self, tmp_path: Path) -> None:
        path = str(tmp_path / "file")
        contents = [bytes([65 + number]) * 100000 for number in range(8)]
        seen = set()

        def write(content: bytes) -> None:
            for _ in range(20):
                files.replace(path, content)
                seen.add(files.read(path))

        threads = [threading.Thread(target=write, args=(content,)) for content in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen <= set(contents)
        assert os.listdir(str(tmp_path)) == ["file"]

    def test_a_failure_leaves_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "directory"
        path.mkdir()
        try:
            files.replace(str(path), b"new")
        except OSError:
            pass
        assert path.is_dir() and os.listdir(str(tmp_path)) == ["directory"]


class TestMakeDirectory:
    def test_everybody_may_read_it_whatever_the_umask(self, tmp_path: Path) -> None:
        old = os.umask(0o077)
        try:
            files.make_directory(str(tmp_path / "a/b"))
            files.make_directory(str(tmp_path / "a/b"))
        finally:
            os.umask(old)
        assert [(tmp_path / d).stat().st_mode & 0o777 for d in ("a", "a/b")] == [0o755, 0o755]
