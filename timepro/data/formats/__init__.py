"""Readers of published data sets, one module a format: its docstring describes the layout, `find(root)` reads it."""

from __future__ import annotations

import importlib
from pathlib import Path

from timepro.data.formats.base import Layout

FORMATS = {
    "desed": "DESED: domestic sounds, tab-separated",
    "ftar": "FTAR: questions of grounding and dense captions, JSON",
    "audiogrounding": "AudioGrounding: phrases and when they sound, JSON",
    "castella": "CASTELLA: captions of moments in minutes of audio, JSON lines",
    "clotho-moment": "Clotho-Moment: synthetic minutes of the same kind, JSON lines",
    "audioset-strong": "AudioSet's strong labels, tab-separated",
    "urbansed": "URBAN-SED: synthetic street scenes, JAMS",
}


def layout_text(name: str) -> str:
    """The layout that a format's reader expects, as its module describes it."""
    return importlib.import_module(_module(name)).__doc__ or ""


def find(name: str, root: Path) -> Layout:
    """What a format's reader finds below a root. Raises FileNotFoundError or ValueError, saying what was expected."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; --root is where the data set was unpacked")
    return importlib.import_module(_module(name)).find(root)


def _module(name: str) -> str:
    return f"timepro.data.formats.{name.replace('-', '_')}"
