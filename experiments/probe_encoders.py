"""What frozen audio encoders hear in real recordings: a line on their frames, event-based F1 on held-out recordings.

    python experiments/probe_encoders.py ../sounds whisper=checkpoints/real_whisper random=checkpoints/real_random

Soundscapes are mixed from a sound bank; each seed holds other recordings out (`data.bank.split_seed`). Every clip goes
once through an encoder without its projector; a linear layer learns from the training clips which classes are active
in a frame of 0.04 s, threshold and smoothing are chosen on the validation clips, and events are scored on the test
clips. No decoder takes part, so the encoder alone is compared, within minutes. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import median_filter
from torch import Tensor, nn

from timepro.data.clips import Clip
from timepro.data.manifest import read_manifest
from timepro.data.soundbank.bank import open_bank, require_sound
from timepro.data.soundbank.mixing import BankSounds
from timepro.data.soundbank.settings import PARTS, BankConfig
from timepro.data.soundscape import SoundscapeConfig
from timepro.data.synth import write_split
from timepro.events import Event
from timepro.features import Processor
from timepro.metrics.bootstrap import bootstrap_interval
from timepro.metrics.event_based import EventReference

RATE = 25.0  # frames a second
THRESHOLDS, WIDTHS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7), (1, 5, 9, 13)
STEPS, LEARNING_RATE = 300, 0.02


def frames_of(checkpoint: Path, clips: Sequence[Clip]) -> list[Tensor]:
    """What the encoder of a checkpoint gives its projector, (F, width) a clip."""
    processor = Processor(checkpoint)
    family = processor.family
    encoder = family.audio_encoder(family.load(checkpoint, torch.float32))
    setattr(encoder, family.projector, nn.Identity())
    with torch.no_grad():
        return [family.encode(encoder, [processor.features(clip.audio)])[0] for clip in clips]


def targets_of(clips: Sequence[Clip], frames: Sequence[Tensor], labels: Sequence[str]) -> list[Tensor]:
    """Which classes are active in each frame, (F, L) zeros and ones a clip."""
    found = []
    for clip, one in zip(clips, frames, strict=True):
        target = torch.zeros(len(one), len(labels))
        for event in clip.events:
            target[round(event.onset * RATE) : round(event.offset * RATE), labels.index(event.label)] = 1.0
        found.append(target)
    return found


def trained_line(frames: Tensor, targets: Tensor, seed: int) -> nn.Module:
    """Logistic regression of (N, width) frames on (N, L) targets, over standardised frames."""
    torch.manual_seed(seed)
    mean, spread = frames.mean(0), frames.std(0) + 1e-6
    line = nn.Linear(frames.shape[1], targets.shape[1])
    optimiser = torch.optim.AdamW(line.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    whitened = (frames - mean) / spread
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * (1 - step / STEPS)
        loss = F.binary_cross_entropy_with_logits(line(whitened), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        line.weight.div_(spread)
        line.bias.sub_(line.weight @ mean)
    return line


def events_of(active: np.ndarray, labels: Sequence[str], width: int) -> list[Event]:
    """Runs of active frames, (F, L) booleans, after a median over `width` frames."""
    found = []
    smooth = median_filter(active.astype(np.uint8), size=(width, 1))
    edges = np.diff(np.pad(smooth, ((1, 1), (0, 0))).astype(np.int8), axis=0)
    for column, label in enumerate(labels):
        starts, ends = np.flatnonzero(edges[:, column] == 1), np.flatnonzero(edges[:, column] == -1)
        found += [Event(a / RATE, b / RATE, label) for a, b in zip(starts, ends, strict=True)]
    return sorted(found)


def counts_of(clips: Sequence[Clip], probabilities: Sequence[np.ndarray], labels: Sequence[str],
              threshold: float, width: int) -> np.ndarray:  # fmt: skip
    """(N, 3): true positives, references and estimates of each clip."""
    rows = []
    for clip, probability in zip(clips, probabilities, strict=True):
        found = events_of(probability > threshold, labels, width)
        rows.append(EventReference(clip.labelled("exact"), tolerance=1e-6).counts(found))
    return np.array(rows, dtype=float)


def probe(checkpoint: Path, parts: dict[str, list[Clip]], labels: Sequence[str], seed: int) -> dict[str, Any]:
    """Event-based F1 of an encoder's frames on the test clips."""
    begun = time.process_time()
    frames = {part: frames_of(checkpoint, clips) for part, clips in parts.items()}
    line = trained_line(
        torch.cat(frames["training"]), torch.cat(targets_of(parts["training"], frames["training"], labels)), seed
    )
    with torch.no_grad():
        said = {part: [torch.sigmoid(line(one)).numpy() for one in frames[part]] for part in ("validation", "test")}

    def f1(part: str, threshold: float, width: int) -> np.ndarray:
        return counts_of(parts[part], said[part], labels, threshold, width)

    def on_validation(choice: tuple[float, int]) -> float:
        return bootstrap_interval(f1("validation", *choice), 1)[0]

    threshold, width = max(((t, w) for t in THRESHOLDS for w in WIDTHS), key=on_validation)
    score, interval = bootstrap_interval(f1("test", threshold, width))
    active = torch.cat(targets_of(parts["test"], frames["test"], labels)).numpy() > 0.5
    told = np.concatenate(said["test"]) > threshold
    hits = float((active & told).sum())
    return {
        "eb_f1_micro": round(score, 4),
        "interval": [round(value, 4) for value in interval],
        "frame_f1": round(2 * hits / max(float(active.sum() + told.sum()), 1.0), 4),
        "threshold": threshold,
        "smoothing_frames": width,
        "cpu_seconds": round(time.process_time() - begun, 1),
    }


def main() -> int:
    """Probe every encoder on every seed's recordings; prints a line each, and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bank", type=Path, metavar="SOUNDBANK")
    parser.add_argument("checkpoints", nargs="+", metavar="NAME=CHECKPOINT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clips", type=int, nargs=3, default=[250, 48, 128], help="of training, validation and test")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            bank = require_sound(open_bank(options.bank, BankConfig(split_seed=seed)))
            parts = {}
            for part, count in zip(PARTS, options.clips, strict=True):
                sounds = BankSounds(bank, part)
                parts[part] = read_manifest(write_split(folder, part, count, seed, SoundscapeConfig(), sounds=sounds))
            for name, checkpoint in (text.split("=", 1) for text in options.checkpoints):
                row = {"encoder": name, "seed": seed} | probe(Path(checkpoint), parts, bank.layout.labels, seed)
                results.append(row)
                print(row, file=sys.stderr, flush=True)
    print(json.dumps({"experiment": "probe_encoders", "clips": options.clips, "results": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
