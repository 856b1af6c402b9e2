"""Clotho-Moment: Clotho's recordings laid over a minute of a city walk, and when.

    ROOT/clotho_moment_{train,val,test}_release.jsonl, or ROOT/text/{train,valid,test}.jsonl
        {"qid": "32694", "query": caption, "duration": 60, "vid": "Singapore_0.0_60.0",
         "relevant_windows": [[41.1, 48.1]], "fg_dB": 0.74}
    ROOT/wav/*hz/{train,valid,test}/, ROOT/audio/{train,val,test}/, ROOT/{train,val,test}/ or ROOT/audio/    VID.wav

A recording is a clip with one query a line, and longer than the 30 s that the published encoders hear at once. Sources:
arxiv.org/abs/2409.15672; the label files are those of github.com/line/lighthouse, `data/clotho_moment/`, or what the
data set's generator writes to `text/` and `wav/` (github.com/h-munakata/Lighthouse-Wrapper-for-Audio-Moment-Retrieval);
the other audio folders are this project's reading.
"""

from __future__ import annotations

from pathlib import Path

from timepro.data.formats import moments
from timepro.data.formats.base import Layout


def find(root: Path) -> Layout:
    """The splits below a root. Raises ValueError where the layout is another."""
    return moments.find(root, ["clotho_moment_{split}_release.jsonl", "text/{split}.jsonl"])
