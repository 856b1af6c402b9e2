"""Features of clips on disk, shared by all processes of a node and by all runs: found by the clip's content.

    clips/ab/KEY.safetensors    the features of a content under some settings
    files/cd/KEY -> ../../clips/ab/KEY.safetensors    of a file as it lies there, so that a look-up does not read it

A file counts as unchanged while its path, inode, size and times are. Entries appear whole or not at all and may vanish
at any time; one that is missing or damaged is made anew. What cannot be written is a warning, never a failure.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from timepro.log_mel import ClipFeatures

FEATURES_VARIABLE = "TIMEPRO_FEATURE_CACHE"  # a `CachePlace` as JSON, in a worker's environment
_LEAST_FREE = 1 << 30  # bytes of the disk that are left to others, checkpoints above all
_REGIONS = 16  # each of them has its share of the room and is swept alone
_STEPS = 64  # of a region's share: so much a process writes between two sweeps of it
_USED_S = 60.0  # a use is noted again after so long
_SETTLED_S = 2.0  # a file changed so lately may change again without another time stamp
_ABANDONED_S = 3600.0  # what a writer left behind half-written
_PART = ".part"


@dataclass(frozen=True)
class CachePlace:
    """Where features are kept, and how many GB at most: the least recently used go first."""

    folder: str
    gigabytes: float

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_environment(cls) -> CachePlace | None:
        """What the launcher has put into this process's environment, if anything."""
        text = os.environ.get(FEATURES_VARIABLE, "")
        return cls(**json.loads(text)) if text else None


class FeatureCache:
    """The features of clips under one set of settings.

    Args:
        settings: names everything but the clip that the features depend on.
    """

    def __init__(self, place: CachePlace, settings: str) -> None:
        self._folder, self._settings = Path(place.folder), settings
        self._share = int(place.gigabytes * 1e9) // _REGIONS
        self._written: dict[str, int] = {}  # bytes by region since its last sweep
        self._writes = True

    def get(self, path: Path, make: Callable[[], ClipFeatures]) -> ClipFeatures:
        """The features of a file, kept or made. Raises what `make` raises."""
        try:
            state = _state(path)
            name = self._place("files", state)
            if (found := _load(name)) is not None:
                return found
            entry = self._place("clips", _content(path)).with_suffix(".safetensors")
        except OSError:
            return make()  # which says what is wrong with the file
        kept = _load(entry)
        found = kept if kept is not None else make()
        with contextlib.suppress(OSError):
            if _state(path) == state:  # else nobody knows which content was read
                self._keep(entry, found if kept is None else None, name, _settled(path))
        return found

    def _place(self, kind: str, what: str) -> Path:
        key = hashlib.sha256(f"{self._settings}\n{what}".encode()).hexdigest()[:40]
        return self._folder / kind / key[:2] / key[2:]

    def _keep(self, entry: Path, made: ClipFeatures | None, name: Path, settled: bool) -> None:
        """Write an entry, where it was made just now, and the name that leads to it."""
        if not self._writes:
            return
        try:
            if made is not None and not self._store(entry, _packed(made)):
                return
            if settled:
                name.parent.mkdir(parents=True, exist_ok=True)
                beside = _unique(name)
                beside.symlink_to(os.path.relpath(entry, name.parent))
                os.replace(beside, name)
        except OSError as error:
            self._stop_writing(str(error))

    def _store(self, entry: Path, content: bytes) -> bool:
        """Write an entry; False where it is larger than a region may be."""
        if len(content) > self._share:
            return False
        entry.parent.mkdir(parents=True, exist_ok=True)
        disk = os.statvfs(entry.parent)
        if disk.f_bavail * disk.f_frsize < _LEAST_FREE + len(content):
            self._stop_writing(f"its disk has less than {_LEAST_FREE / 2**30:.0f} GiB left")
            return False
        self._make_room(entry.parent.name[0], len(content))
        beside = _unique(entry)
        try:
            with open(beside, "xb") as out:  # not synchronised: what a crash damages is made anew
                out.write(content)
            os.replace(beside, entry)
        finally:
            beside.unlink(missing_ok=True)  # there only where writing has failed
        return True

    def _stop_writing(self, why: str) -> None:
        self._writes = False
        warnings.warn(
            f"no more features of clips are kept in {self._folder}: {why}. They are computed instead; make room, or "
            "set data.feature_cache.folder to another disk",
            RuntimeWarning,
            stacklevel=2,
        )

    def _make_room(self, region: str, size: int) -> None:
        """Sweep a region before this process's first entry there, and whenever it has written a step since."""
        step = self._share // _STEPS
        self._written[region] = self._written.get(region, step) + size
        if self._written[region] > step:
            self._written[region] = size
            self._sweep(region, self._share - max(step, size))

    def _sweep(self, region: str, room: int) -> None:
        """Remove the least recently used entries of a region until `room` bytes are left, and names of what is gone."""
        entries, now, total = [], time.time(), 0
        for file in _files(self._folder / "clips", region):
            with contextlib.suppress(FileNotFoundError):  # swept by another process
                status = file.stat(follow_symlinks=False)
                if file.name.endswith(_PART) and now - status.st_mtime > _ABANDONED_S:
                    os.unlink(file.path)
                    continue
                entries.append((status.st_mtime, status.st_size, file.path))
                total += status.st_size
        if total <= room:
            return
        for _, size, path in sorted(entries):
            if total <= room:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size
        for file in _files(self._folder / "files", region):
            if not os.path.exists(file.path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(file.path)


def _state(path: Path) -> str:
    """A file as it lies there: whatever is done to its content changes this."""
    s = os.stat(path)
    return f"{os.path.abspath(path)}\n{s.st_ino} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}"


def _settled(path: Path) -> bool:
    """Whether another change of the file would show in its times."""
    s = os.stat(path)
    return time.time() - max(s.st_mtime, s.st_ctime) > _SETTLED_S


def _content(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _packed(features: ClipFeatures) -> bytes:
    from safetensors.numpy import save

    samples = np.array([features.samples], np.int64)
    return save({"mel": features.mel, "samples": samples, "check": _check(features.mel, samples)})


def _load(path: Path) -> ClipFeatures | None:
    """An entry's features; None where it is not there, or damaged. Notes that it was used."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        with open(path, "rb") as file:
            content = file.read()
            if time.time() - os.fstat(file.fileno()).st_mtime > _USED_S:
                with contextlib.suppress(OSError):  # a folder that others own
                    os.utime(file.fileno())
        tensors = load(content)
        mel, samples, check = tensors["mel"], tensors["samples"], tensors["check"]
    except (OSError, SafetensorError, KeyError):
        return None
    return ClipFeatures(mel, int(samples[0])) if np.array_equal(check, _check(mel, samples)) else None


def _check(mel: np.ndarray, samples: np.ndarray) -> np.ndarray:
    return np.array([zlib.crc32(np.ascontiguousarray(mel).data, zlib.crc32(samples.data))], np.uint32)


def _unique(path: Path) -> Path:
    """A name beside a file's that no other writer takes."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{_PART}")


def _files(folder: Path, region: str) -> Iterator[os.DirEntry[str]]:
    """The files of a region: its sixteen folders."""
    for digit in "0123456789abcdef":
        with contextlib.suppress(FileNotFoundError), os.scandir(folder / f"{region}{digit}") as found:
            yield from found
