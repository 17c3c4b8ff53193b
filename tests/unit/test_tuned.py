"""tuned's own files, read and written."""

from pathlib import Path
from typing import Optional

import pytest

from cc_kvmhost import tuned

CONF = (
    "[main]\ndefault={}\n[profiles]\npower-saver=powersave\nbalanced=virtual-host\nperformance=p\n"
)


class TestOfPpd:
    @pytest.mark.parametrize(
        "conf, chosen, profile",
        [
            (CONF.format("balanced"), None, "virtual-host"),
            (CONF.format("performance"), None, "p"),
            (CONF.format("performance"), "balanced\n", "virtual-host"),
            (CONF.format("balanced"), "power-saver\n", "powersave"),
            (CONF.format("balanced"), "\n", "virtual-host"),
            (CONF.format("no-such"), None, ""),
            (CONF.format("balanced") + "[battery]\nbalanced=x%\n", None, "virtual-host"),
            (None, "balanced\n", ""),
            ("[main]\n", None, ""),
            ("no section\n", None, ""),
            ("\ufeff\0", None, ""),
        ],
    )
    def test_what_it_sets(
        self, conf: Optional[str], chosen: Optional[str], profile: str, tmp_path: Path
    ) -> None:
        (tmp_path / "etc/tuned").mkdir(parents=True)
        for name, text in (("ppd.conf", conf), ("ppd_base_profile", chosen)):
            if text is not None:
                (tmp_path / "etc/tuned" / name).write_bytes(text.encode())
        assert tuned.of_ppd(str(tmp_path)) == profile
