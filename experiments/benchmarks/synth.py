"""Clips a second that the synthesiser makes on one core, before writing.

    taskset -c 0 python experiments/benchmarks/synth.py

Compared with, in the same run: encoding the same clips as FLAC, the next thing that happens to them.
"""

from __future__ import annotations

import argparse
import io
import json
import time

import numpy as np
import soundfile
import torch

from timepro.data.sounds import SAMPLE_RATE
from timepro.data.soundscape import SoundscapeConfig
from timepro.data.synth import augment, soundscape

TARGET = 300.0


def main() -> None:
    """Print one JSON line: benchmark, figures, targets, holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=600)
    clips = parser.parse_args().clips
    torch.set_num_threads(1)
    config = SoundscapeConfig()
    rng = np.random.default_rng(0)
    for seed in range(20):  # first calls build tables
        augment(soundscape(config, seed)[0], config, rng)
    begun = time.perf_counter()
    waves = [augment(soundscape(config, seed)[0], config, rng) for seed in range(clips)]
    synthesis = time.perf_counter() - begun
    begun = time.perf_counter()
    for wave in waves:
        soundfile.write(io.BytesIO(), wave, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    encoding = time.perf_counter() - begun
    figures = {
        "clips_per_second": round(clips / synthesis, 1),
        "flac_clips_per_second": round(clips / encoding, 1),
        "synthesis_over_flac_time": round(synthesis / encoding, 2),
        "audio_seconds_per_second": round(sum(len(w) for w in waves) / SAMPLE_RATE / synthesis, 0),
    }
    holds = figures["clips_per_second"] >= TARGET
    print(
        json.dumps({"benchmark": "synth", "figures": figures, "targets": {"clips_per_second": TARGET}, "holds": holds})
    )


if __name__ == "__main__":
    main()
