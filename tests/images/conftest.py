"""Tests of images/ use the throwaway roots of tests/hosts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "hosts"))
