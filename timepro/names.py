"""Names: of runs and trials, which are folders too, and which known name an unknown one may mean."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

CARD, MODEL_CARD = "timepro.json", "README.md"  # in a checkpoint's folder: what it is (`timepro.card`)
_LONGEST = 100  # characters of a trial's name: a folder takes 255 bytes, a run on W&B 128
_LONGEST_PART = 200  # of a run's: what writes beside a run's folder adds an ending
_PLAIN = re.compile(r"[A-Za-z0-9_.=,+-]+")
_KEPT = "cache"  # in the folder of runs: stages that several runs share


def check_run_name(name: str) -> None:
    """Refuse a name that is not a folder below the folder of runs.

    Raises:
        ValueError: with the reason.
    """
    parts = name.split("/")
    wrong = ""
    if not name:
        wrong = "it is empty"
    elif any(part in ("", ".", "..") for part in parts):
        wrong = "it leads out of the folder of runs, or has an empty part"
    elif any(not char.isprintable() for char in name):
        wrong = "it holds a character that cannot be printed"
    elif any(part.startswith("-") or part != part.strip() for part in parts):
        wrong = "a part of it begins with '-', or begins or ends with a space"
    elif any(len(part.encode()) > _LONGEST_PART for part in parts):
        wrong = f"a part of it is longer than {_LONGEST_PART} bytes"
    elif parts[0] == _KEPT:
        wrong = f"the folder {_KEPT}/ keeps stages that several runs share"
    if wrong:
        raise ValueError(f"name={name!r} cannot name a run's folder: {wrong}; write, for example, name=my_run")


def folder_name(words: Sequence[str]) -> str:
    """One folder's name for `key=value` words in any order, another one for other words.

    `/` becomes `--`. Where the words are too long, or hold characters that are awkward in a folder's name, the name is
    shortened to what can be read, and a digest of the words tells it from others.
    """
    pairs = sorted(words)
    whole = ",".join(pairs)
    name = whole.replace("/", "--")
    if len(name) <= _LONGEST and _PLAIN.fullmatch(name) and name.replace("--", "/") == whole and name[0] not in ".-":
        return name
    # The last part of a key is what a reader looks for: learning_rate of grpo.optimiser.learning_rate.
    short = [re.sub(r"^[^=]*\.", "", pair) for pair in pairs]
    text = re.sub(r"[^A-Za-z0-9_.=,+-]+", "_", ",".join(short).replace("/", "--")).strip("_.-")
    return f"{text[: _LONGEST - 9]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def require_run(run: Path) -> None:
    """Refuse what is not a folder.

    Raises:
        ValueError: naming runs beside it with near names.
    """
    if run.is_dir():
        return
    beside = run.parent if run.parent.is_dir() else Path("runs")
    known = sorted(p.name for p in beside.iterdir() if (p / "config.yaml").is_file()) if beside.is_dir() else []
    where = f"; {beside} has {', '.join(known[:12])}{' ...' if len(known) > 12 else ''}" if known else ""
    raise ValueError(f"{run} is not a folder{near(run.name, known)}{where}; name a run's folder, runs/NAME")


def first_of(names: Sequence[str], most: int = 3) -> str:
    """The first of several names: `a, b, c and 17 more`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def near(name: str, known: Iterable[str]) -> str:
    """` (did you mean X or Y?)`, or nothing where no known name is like this one."""
    matches = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""
