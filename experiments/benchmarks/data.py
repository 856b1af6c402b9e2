"""Clips a second that `timepro data desed` checks and writes on two processes, and lines a second that are read back.

    python experiments/benchmarks/data.py --clips 20000

Compared with, in the same run: decoding clips whole, which is what learning their lengths would cost otherwise; both on
one process and in CPU seconds, since two processes are at the mercy of what else runs. Memory is the peak of the
converting process over the whole run, and how much that is above the run on a quarter of the clips.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from timepro.data.check import Rules
from timepro.data.convert import convert
from timepro.data.manifest import read_manifest

SECONDS, RATE, EVENTS = 10, 16000, 3
TARGETS = {"conversion_over_decoding": 2.0, "read_seconds_for_100k_lines": 15.0, "memory_growth_mib": 50.0}


def make_tree(root: Path, split: str, clips: int) -> list[Path]:
    """A DESED tree with one strong annotation; returns the audio files."""
    audio, metadata = root / "audio" / "train" / split, root / "metadata" / "train"
    audio.mkdir(parents=True)
    metadata.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, SECONDS * RATE) * (np.arange(SECONDS * RATE) % RATE < RATE // 4)
    soundfile.write(root / "clip.flac", noise, RATE, subtype="PCM_16")
    content = (root / "clip.flac").read_bytes()
    paths = [audio / f"{i:06d}.flac" for i in range(clips)]
    with open(metadata / f"{split}.tsv", "w") as table:
        table.write("filename\tonset\toffset\tevent_label\n")
        for path in paths:
            path.write_bytes(content)
            for k in range(EVENTS):
                table.write(f"{path.name}\t{2.5 * k:.3f}\t{2.5 * k + 1.2:.3f}\tDog\n")
    return paths


def peak_mib() -> float:
    """Of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print one JSON line: benchmark, figures, targets, holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=20_000)
    clips = parser.parse_args().clips
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_tree(root, "quarter", clips // 4)
        paths = make_tree(root, "whole", clips)
        convert("desed", root, root / "quarter.jsonl", Rules(), ["train/quarter"], visible=False)
        quarter = peak_mib()
        begun = time.perf_counter()
        report = convert("desed", root, root / "whole.jsonl", Rules(), ["train/whole"], visible=False)
        converting = time.perf_counter() - begun
        whole = peak_mib()
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        begun = time.process_time()
        convert("desed", root, root / "alone.jsonl", Rules(), ["train/quarter"], workers=1, visible=False)
        alone = (time.process_time() - begun) / (clips // 4)
        begun = time.process_time()
        for path in paths[:1000]:
            soundfile.read(path)
        decoding = (time.process_time() - begun) / len(paths[:1000])
        begun = time.perf_counter()
        read = len(read_manifest(root / "whole.jsonl"))
        reading = (time.perf_counter() - begun) / read
    assert report.clips == read == clips
    figures = {
        "clips_per_second": round(clips / converting),
        "converted_per_cpu_second": round(1 / alone),
        "decoded_per_cpu_second": round(1 / decoding),
        "conversion_over_decoding": round(decoding / alone, 2),
        "minutes_for_100k_clips": round(1e5 / clips * converting / 60, 2),
        "read_seconds_for_100k_lines": round(1e5 * reading, 2),
        "peak_mib": round(whole),
        "peak_mib_of_a_worker": round(children),
        "memory_growth_mib": round(whole - quarter),
    }
    ratio, read_s, growth = (figures[key] for key in TARGETS)
    holds = (
        ratio >= TARGETS["conversion_over_decoding"]
        and read_s <= TARGETS["read_seconds_for_100k_lines"]
        and growth <= TARGETS["memory_growth_mib"]
    )
    print(json.dumps({"benchmark": "data", "figures": figures, "targets": TARGETS, "holds": holds}))


if __name__ == "__main__":
    main()
