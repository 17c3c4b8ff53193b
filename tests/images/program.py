"""images/build and images/verify as modules: programs without a suffix are not found by import."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from typing import Any

import el


def build() -> Any:
    return _load("build")


def verify() -> Any:
    return _load("verify")


def _load(name: str) -> Any:
    loader = importlib.machinery.SourceFileLoader(name, str(el.CHECKOUT / "images" / name))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    loader.exec_module(module)
    return module
