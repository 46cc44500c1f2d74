"""`PYTHON_PATH`: where a process that a test starts finds the package under test, and the rest."""

import os
from pathlib import Path

import eventbus

__all__ = ("PYTHON_PATH", "ROOT")

ROOT = Path(__file__).parents[1]
"""The repository."""
PYTHON_PATH = os.pathsep.join((str(Path(eventbus.__file__).parents[1]), str(ROOT)))
"""The compiled package isn't in the repository's root, see ``make test COMPILED=1``."""
