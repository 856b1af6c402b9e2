"""CASTELLA: captions of moments in recordings of one to five minutes, and when they are.

    ROOT/castella_{train,val,test}_release.jsonl
        {"qid": "VIDEO_1", "query": caption, "duration": seconds, "vid": "VIDEO", "relevant_windows": [[onset, offset]]}
    ROOT/audio/{train,val,test}/, ROOT/{train,val,test}/ or ROOT/audio/    VIDEO.wav

A recording is a clip with one query a line. Times are whole seconds, and a window may end up to a second after its
audio: --trim 1 cuts those. Recordings are longer than the 30 s that the published encoders hear at once. Sources:
arxiv.org/abs/2511.15131; the label files are those of github.com/line/lighthouse, `data/castella/`; that the audio lies
in one of these folders, named after its video, is this project's reading.
"""

from __future__ import annotations

from pathlib import Path

from timepro.data.formats import moments
from timepro.data.formats.base import Layout


def find(root: Path) -> Layout:
    """The splits below a root. Raises ValueError where the layout is another."""
    return moments.find(root, ["castella_{split}_release.jsonl"])
