"""What a sound bank of 100,000 recordings takes: to list, to measure for the first time and again, to mix from.

    python experiments/benchmarks/soundbank.py

Recordings are 0.5 s at 16 kHz in 50 classes, each with content of its own. Compared with, in the same run: decoding
the same files in one process, and the synthesiser's clips. Memory is the peak of this process, which holds the whole
bank, and of the mixing processes.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[2]
sys.path[:] = [str(ROOT), *(p for p in sys.path if Path(p).resolve() != Path(__file__).parent)]

from timepro.data.soundbank.bank import open_bank, require_sound  # noqa: E402
from timepro.data.soundbank.layout import read_layout  # noqa: E402
from timepro.data.soundbank.mixing import BankSounds  # noqa: E402
from timepro.data.soundbank.settings import BankConfig  # noqa: E402
from timepro.data.soundscape import SoundscapeConfig  # noqa: E402
from timepro.data.synth import write_split  # noqa: E402

CLASSES, RATE, WORKERS = 50, 16000, 2
TARGETS = {"list_s": 5.0, "measure_minutes": 5.0, "measured_again_s": 15.0, "mib_here": 600.0, "mib_a_process": 600.0}


def make_bank(folder: Path, files: int) -> list[Path]:
    """Recordings of noise with a silent beginning, no two alike."""
    rng = np.random.default_rng(0)
    sound = np.concatenate([np.zeros(RATE // 8), rng.normal(0, 0.1, RATE * 3 // 8)]).astype(np.float32)
    paths = []
    for number in range(files):
        path = folder / f"class_{number % CLASSES:02}" / f"{number:06}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sound[-8:] = [(number >> bit & 1) * 0.05 for bit in range(0, 24, 3)]
        sound[-16:-8] = [(number >> bit & 7) * 0.01 for bit in range(0, 24, 3)]
        soundfile.write(path, sound, RATE)
        paths.append(path)
    return paths


def seconds(work: Callable[..., Any], *arguments: Any, **more: Any) -> tuple[float, Any]:
    """Wall time of a call, and what it returned."""
    begun = time.perf_counter()
    found = work(*arguments, **more)
    return time.perf_counter() - begun, found


def main() -> int:
    """Measure, print a JSON line; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--clips", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, kept = Path(name), Path(name) / "kept.jsonl"
        paths = make_bank(folder / "bank", options.files)
        list_s, _ = seconds(read_layout, folder / "bank")
        decode_s, _ = seconds(lambda: [soundfile.read(path) for path in paths[:2000]])
        measure_s, bank = seconds(open_bank, folder / "bank", BankConfig(), kept, WORKERS)
        again_s, _ = seconds(open_bank, folder / "bank", BankConfig(), kept, WORKERS)
        sounds = BankSounds(require_sound(bank), "training")
        scape = SoundscapeConfig()
        mix_s, _ = seconds(write_split, folder, "mixed", options.clips, 0, scape, WORKERS, sounds=sounds)
        synth_s, _ = seconds(write_split, folder, "made", options.clips, 0, scape, WORKERS)
        size = kept.stat().st_size
    figures = {
        "files": options.files,
        "list_s": round(list_s, 2),
        "measure_minutes": round(measure_s / 60, 2),
        "measured_a_second": round(options.files / measure_s),
        "decoded_a_second_and_process": round(2000 / decode_s),
        "measured_again_s": round(again_s, 2),
        "kept_mib": round(size / 2**20, 1),
        "mixed_clips_a_second": round(options.clips / mix_s, 1),
        "synthesised_clips_a_second": round(options.clips / synth_s, 1),
        "mib_here": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "mib_a_process": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
    }
    holds = all(figures[key] <= limit for key, limit in TARGETS.items())
    print(json.dumps({"benchmark": "soundbank", "figures": figures, "targets": TARGETS, "holds": holds}))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
