"""Files are replaced whole, whoever writes at the same time and whatever was left."""

import os
import threading
from pathlib import Path

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
