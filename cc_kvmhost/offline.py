"""Plans and makes the first boot's changes in an image's tree, where nothing runs.

Programs of the tree are never run: this machine's systemctl changes the tree's links.
"""

import contextlib
import os
import signal
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from . import config as configuration
from . import files, host, plan, tuned
from .errors import KvmhostError
from .plan import Plan
from .report import Report, Steps, of_failure, of_plan, of_run
from .systemd import unit_files
from .systemd.manager import is_running
from .undo import links, problems_of, put_links_back
from .virt.mode import Choice
from .wishes import Wish

#: Presets may be applied after us: mkosi does it, and so does the first boot of an image whose
#: machine-id is "uninitialized". Of all files, in the order of their names, the first rule for a unit
#: wins; EL's own files are named 85- to 99-. Source: systemd.preset(5).
PRESET = "/etc/systemd/system-preset/70-kvmhost.preset"
_PRESET_HEAD = """\
# Written by 'kvmhost apply' for an image's tree: with these rules, presets that are applied later,
# or at the first boot, lead to the same state.
"""
#: What ends a change in the middle, unless it is caught. SIGKILL can't be.
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def preview(section: Any, root: str) -> Report:
    """What the first boot of an image's tree would change on its disk; reads only.

    :raises KvmhostError: the section or the tree is at fault
    """
    steps = Steps()
    with steps.step("validate", "check the kvmhost section"):
        config = configuration.parse(section)
        way_out = _way_out(os.path.abspath(root))
        if way_out:
            raise KvmhostError([f"{root}: {way_out}"])
    with steps.step("inspect", "look at the tree"):
        before = host.read_tree(root, config)
    with steps.step("plan", "choose the mode and what to change"):
        return of_plan(plan.make(config, before), config, before, steps)


def apply(section: Any, root: str, here: bool = False) -> Report:
    """Change an image's tree as its first boot would, or leave it as it was. If the section or the
    tree is at fault, the report says "failed" and has the errors; nothing is raised.

    :param section: the value of the ``kvmhost`` key, unchecked
    :param here: this process runs in the image's root, so that ``root`` is /
    """
    steps = Steps()
    choice: Optional[Choice] = None
    root = os.path.abspath(root)
    try:
        with steps.step("validate", "check the kvmhost section"):
            config = configuration.parse(section)
            _require_image(root, here)
        with steps.step("inspect", "look at the tree"):
            before = host.read_tree(root, config)
        with steps.step("plan", "choose the mode and what to change"):
            chosen = plan.make(config, before)
        choice = Choice(chosen.mode, chosen.reason)
        with _all_or_nothing(root):
            with steps.step("unit-files", "enable, disable and mask units"):
                for verb, units in chosen.unit_file_changes:
                    unit_files.change_tree(root, verb, units)
            with steps.step("profile", "set tuned's profile"):
                if chosen.profile is not None:
                    tuned.write(chosen.profile, root)
            with steps.step("preset", "have presets lead to the same state"):
                written = _write_preset(chosen, root)
            with steps.step("verify", "look at the tree again"):
                after = host.read_tree(root, config)
                left = plan.make_for(choice, config, after).changed
                if left:
                    raise KvmhostError(f"{each}: still to do in {root}" for each in left)
    except (KvmhostError, OSError) as error:
        if isinstance(error, plan.NoPlan):
            choice = error.choice
        problems = problems_of(error)
        if isinstance(error, OSError):
            problems = [f"{root}: {problem}" for problem in problems]
        return of_failure(problems, choice, steps)
    done = of_run(chosen, config, before, after, (), steps)
    return done._replace(changed=done.changed + written)


def _require_image(root: str, here: bool) -> None:
    """Refuse a directory that is no image's tree, and this machine's own root.

    :raises KvmhostError: says what was found
    """
    problem = None
    if not os.path.isdir(files.inside(root, "/usr")) or not host.has_os_release(root):
        problem = "not the tree of an image: no usr directory or no os-release in it"
    elif _way_out(root):
        problem = _way_out(root)
    elif os.path.samestat(os.stat(root), os.stat("/")):
        if _is_booted_here():
            problem = "the system that runs here; leave --root and --here out"
        elif not here:
            problem = (
                "the root that this command runs in; if that is the image's (in a chroot, in a"
                " container build), say --here instead of --root"
            )
    if problem:
        raise KvmhostError([f"{root}: {problem}"])


def _way_out(root: str) -> Optional[str]:
    """A link of the tree on which systemctl would leave it, because it follows links between
    directories as they are on this machine: to write elsewhere, or to read others' unit files."""
    inside = os.path.join(os.path.realpath(root), "")
    for top in (unit_files.ETC, unit_files.RUN) + unit_files.VENDOR:
        parts = top.split("/")
        paths = [root + "/".join(parts[:end]) for end in range(2, len(parts) + 1)]
        for path in paths + [os.path.join(paths[-1], name) for name in _subdirectories(paths[-1])]:
            if not os.path.join(os.path.realpath(path), "").startswith(inside):
                return f"{path} leads out of it; make it a relative link"
    return None


def _subdirectories(path: str) -> List[str]:
    return next(os.walk(path), ("", [], []))[1]


def _is_booted_here() -> bool:
    """True if systemd is PID 1 in this very root. A chroot may have the /run of its host."""
    try:
        return is_running() and os.path.samestat(os.stat("/proc/1/root"), os.stat("/"))
    except OSError:  # this user may not look at PID 1
        return is_running()


def _write_preset(chosen: Plan, root: str) -> Tuple[str, ...]:
    path, content = files.inside(root, PRESET), _preset(chosen.wishes).encode()
    if files.read(path) == content:
        return ()
    files.make_directory(os.path.dirname(path))
    files.replace(path, content, root)
    return (f"write {PRESET}",)


def _preset(wishes: Mapping[str, Wish]) -> str:
    """The wishes as preset rules. Presets can't mask, and they leave masked units alone."""
    rules = []
    instances: Dict[str, List[str]] = {}
    for unit, wish in wishes.items():
        name, at, instance = unit.partition("@")
        if at:
            stem, _, suffix = instance.rpartition(".")
            instances.setdefault(f"{name}@.{suffix}", []).append(stem)
        elif wish.enabled is not None:
            rules.append("{} {}".format("enable" if wish.enabled else "disable", unit))
    # Only units from ``units`` have instances, and those are to be enabled.
    rules += ["enable {} {}".format(unit, " ".join(names)) for unit, names in instances.items()]
    return _PRESET_HEAD + "".join(rule + "\n" for rule in rules)


@contextlib.contextmanager
def _all_or_nothing(root: str) -> Iterator[None]:
    """Put the tree back as it was if the body fails."""
    before = _Tree(root)
    with _stopped_by_exception() as reasons:
        try:
            yield
        except BaseException as error:
            reasons.append("not in the middle of the way back")
            try:
                before.put_back()
            except OSError as another:
                problem = f"putting things back: {another}; don't use {root} as an image"
                raise KvmhostError(problems_of(error) + [problem]) from error
            raise


@contextlib.contextmanager
def _stopped_by_exception() -> Iterator[List[str]]:
    """Signals that would end this process raise a KvmhostError in here, unless there is a reason
    not to in the list."""
    reasons: List[str] = []

    def stop(number: int, _frame: Any) -> None:
        if not reasons:
            reasons.append("one is enough")
            raise KvmhostError([f"stopped by {signal.Signals(number).name}"])

    before = {}
    with contextlib.suppress(ValueError):  # not in the main thread, which alone gets signals
        for number in _STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:  # under nohup
                before[number] = signal.signal(number, stop)
    try:
        yield reasons
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Tree:
    """The state, before apply(), of everything in a tree that apply() may change."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._links = self._read_links()
        paths = [files.inside(root, path) for path in tuned.FILES + (PRESET,)]
        self._files = {path: files.read(path) for path in paths}
        self._directories = set(self._read_directories())

    def put_back(self) -> None:
        put_links_back(self._read_links(), self._links, lambda _path: True)
        for path, content in self._files.items():
            if files.read(path) != content:
                files.restore(path, content)
        for directory in self._read_directories():
            if directory not in self._directories:
                os.rmdir(directory)

    def _read_links(self) -> Dict[str, str]:
        return links(files.inside(self._root, top) for top in (unit_files.ETC, unit_files.RUN))

    def _read_directories(self) -> List[str]:
        """/etc and every directory below it, children first."""
        return [path for path, _, _ in os.walk(files.inside(self._root, "/etc"), topdown=False)]
