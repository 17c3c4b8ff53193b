"""tuned: which profiles there are, which one is set, and how to set it.

Source: tuned's D-Bus interface com.redhat.tuned.control, its files in /etc/tuned, and tuned-ppd's
(tuned/ppd/controller.py).
"""

import os
from typing import Any, List, NamedTuple

from . import files
from .systemd.manager import Manager

SERVICE = "tuned.service"
#: Offers the D-Bus interface of power-profiles-daemon on top of tuned; desktops and Cockpit start it.
PPD = "tuned-ppd.service"
PACKAGE = "tuned"

_BUS = ("com.redhat.tuned", "/Tuned", "com.redhat.tuned.control")
_PROFILE_DIRS = ("etc/tuned/profiles", "etc/tuned", "usr/lib/tuned/profiles", "usr/lib/tuned")
PPD_CONF = "/etc/tuned/ppd.conf"
#: Which of the three that desktops know was chosen last: "power-saver", "balanced", "performance".
_PPD_CHOSEN = "/etc/tuned/ppd_base_profile"
#: Where tuned keeps the profile that is set and who chose it ("manual", "auto").
FILES = ("/etc/tuned/active_profile", "/etc/tuned/profile_mode")


class Profile(NamedTuple):
    """The profile that is set. ``manual``: somebody chose it; otherwise tuned recommended it."""

    name: str
    manual: bool


def profiles(root: str = "/") -> List[str]:
    names = set()
    for directory in _PROFILE_DIRS:
        path = os.path.join(root, directory)
        if os.path.isdir(path):
            names |= {
                name
                for name in os.listdir(path)
                if os.path.isfile(os.path.join(path, name, "tuned.conf"))
            }
    return sorted(names)


def read(root: str = "/") -> Profile:
    """Read the profile from tuned's own files, which tuned keeps up to date while it runs."""
    name, mode = (_first_line(files.inside(root, path)) for path in FILES)
    return Profile(name, mode == "manual")


def of_ppd(root: str = "/") -> str:
    """The profile that tuned-ppd sets when it starts; "" if its files don't say."""
    import configparser

    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        parser.read_string((files.read(files.inside(root, PPD_CONF)) or b"").decode())
    except (configparser.Error, ValueError):  # it does not start with these
        return ""
    default = parser.get("main", "default", fallback="")
    chosen = _first_line(files.inside(root, _PPD_CHOSEN)) or default
    return parser.get("profiles", chosen, fallback="")


def ask(manager: Manager) -> Profile:
    """Ask the running daemon for the profile: its files lag behind, since it writes them last."""
    mode, _error = _call(manager, "profile_mode")
    return Profile(_call(manager, "active_profile").decode(), mode == b"manual")


def write(name: str, root: str = "/") -> None:
    """Set the profile while tuned does not run: tuned reads these files when it starts."""
    for path, text in zip(FILES, (name, "manual")):
        files.replace(files.inside(root, path), text.encode() + b"\n", root)


def switch(manager: Manager, profile: Profile) -> str:
    """Make the running daemon switch; returns its error, "" if there was none."""
    if profile.manual:
        done, error = _call(manager, "switch_profile", profile.name)
    else:
        done, error = _call(manager, "auto_profile")
    return "" if done else error.decode()


def _call(manager: Manager, method: str, *strings: str) -> Any:
    return manager.call(*_BUS, method, *strings)


def _first_line(path: str) -> str:
    return (files.read(path) or b"").decode(errors="replace").split("\n", 1)[0].strip()
