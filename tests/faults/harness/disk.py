"""A disk that loses power: a file system in an image, of which only what was synced is kept."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

import pytest

__all__ = ("Disk",)

SIZE = "2G"
"""Nearly all of it a hole; the server reserves what its streams may hold."""


class Disk:
    """A mounted file system; use it in ``with``.

    What a process has written and not synced is in the memory of this machine alone, and not yet
    in the image: a copy of the image is what a power cut leaves.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._image = folder / "disk.img"
        self._mounted: list[Path] = []
        self.path = folder / "disk"

    def __enter__(self) -> Self:
        """Make and mount it; skips the test where this process may not."""
        if os.geteuid() != 0 or not shutil.which("mkfs.ext4") or not shutil.which("mount"):
            pytest.skip("only root can mount a file system")
        _run("truncate", "-s", SIZE, self._image)
        _run("mkfs.ext4", "-q", self._image)
        try:
            self._mount(self._image, self.path)
        except subprocess.CalledProcessError as exc:
            pytest.skip(f"no file system can be mounted here: {exc.stderr!r}")
        return self

    def __exit__(self, *exc: object) -> None:
        """Unmount all."""
        for path in reversed(self._mounted):
            _run("umount", "-l", path)

    def lose_power(self) -> Path:
        """Return the folder of a disk that holds what was synced by now, and nothing else."""
        copy, path = self._folder / "after.img", self._folder / "after"
        _run("cp", "--sparse=always", self._image, copy)
        self._mount(copy, path)
        return path

    def _mount(self, image: Path, path: Path) -> None:
        path.mkdir()
        _run("mount", "-o", "loop", image, path)
        self._mounted.append(path)


def _run(*command: str | Path) -> None:
    subprocess.run([str(one) for one in command], check=True, capture_output=True)
