"""Whether a checkpoint on disk is what was written: a checksum a file, and the newest checkpoint that is whole.

Every rank sums a part of the files and notes them in `checksums.RANK.json`; `state.json` comes last and makes the
checkpoint complete. CRC-32 finds what disks and copies do to files; it does not guard against an attacker.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

STATE = "state.json"
_CHUNK = 8 << 20


def note_checksums(folder: Path, rank: int, ranks: int) -> None:
    """Write this rank's part of the checksums; all files of the checkpoint are there by now."""
    sums = {}
    for path in _files(folder)[rank::ranks]:
        sums[path.relative_to(folder).as_posix()] = [path.stat().st_size, _checksum(path)]
    (folder / f"checksums.{rank}.json").write_text(json.dumps(sums), encoding="utf-8")


def damage(folder: Path) -> str:
    """What is wrong with a checkpoint; empty where nothing is."""
    if not (folder / STATE).is_file():
        return f"{STATE} is missing: it was not written to its end"
    noted: dict[str, list[int]] = {}
    for path in sorted(folder.glob("checksums.*.json")):
        try:
            noted |= json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            return f"{path.name} cannot be read"
    if not noted:
        return "it has no checksums"
    for name, (size, checksum) in noted.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes, not {size:,}"
        if _checksum(path) != checksum:
            return f"{name} is not what was written (its checksum differs)"
    return ""


def newest_whole(folder: Path) -> Path | None:
    """The newest `step-*` in a folder that is whole; says which newer ones are not, and why."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        wrong = damage(path)
        if not wrong:
            return path
        print(f"  checkpoint {path} is damaged: {wrong}; taking an older one", file=sys.stderr, flush=True)
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(("checksums.", STATE)))


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value
