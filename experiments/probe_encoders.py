"""What frozen audio encoders hear in real recordings: a line on their frames, event-based F1 on held-out recordings.

    python experiments/probe_encoders.py ../sounds whisper=checkpoints/real_whisper random=checkpoints/real_random

Soundscapes are mixed from a sound bank; each seed holds other recordings out (`data.bank.split_seed`). Every clip goes
once through an encoder without its projector; a linear layer learns from the training clips which classes are active
in a frame of 0.04 s; weight decay, threshold and smoothing are chosen on the validation clips, and events are scored on
the test clips. No decoder takes part, so encoders alone are compared, within minutes. The last line of the output is
JSON, with what each encoder has over the first one named (paired bootstrap over clips).
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
from timepro.metrics.bootstrap import bootstrap_interval, micro_f1, paired_bootstrap
from timepro.metrics.event_based import EventReference

RATE = 25.0  # frames a second
THRESHOLDS, WIDTHS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7), (1, 5, 9, 13)
STEPS, LEARNING_RATE, DECAYS = 300, 0.02, (0.01, 0.3, 3.0)


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


def trained_line(frames: Tensor, targets: Tensor, seed: int, decay: float = 0.01) -> nn.Module:
    """Logistic regression of (N, width) frames on (N, L) targets, over standardised frames."""
    torch.manual_seed(seed)
    mean, spread = frames.mean(0), frames.std(0) + 1e-6
    line = nn.Linear(frames.shape[1], targets.shape[1])
    optimiser = torch.optim.AdamW(line.parameters(), lr=LEARNING_RATE, weight_decay=decay)
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


def probe(
    checkpoint: Path, parts: dict[str, list[Clip]], labels: Sequence[str], seed: int
) -> tuple[dict[str, Any], np.ndarray]:
    """Event-based F1 of an encoder's frames on the test clips, and (N, 3) what it counts in each."""
    begun = time.process_time()
    frames = {part: frames_of(checkpoint, clips) for part, clips in parts.items()}
    targets = {part: targets_of(parts[part], frames[part], labels) for part in parts}
    best: tuple[float, float, float, int, nn.Module] | None = None
    for decay in DECAYS:
        line = trained_line(torch.cat(frames["training"]), torch.cat(targets["training"]), seed, decay)
        said = probabilities(line, frames["validation"])
        for threshold in THRESHOLDS:
            for width in WIDTHS:
                counts = counts_of(parts["validation"], said, labels, threshold, width)
                score = float(micro_f1(counts.sum(axis=0)))
                if best is None or score > best[0]:
                    best = (score, decay, threshold, width, line)
    assert best is not None
    _, decay, threshold, width, line = best
    said = probabilities(line, frames["test"])
    counts = counts_of(parts["test"], said, labels, threshold, width)
    score, interval = bootstrap_interval(counts)
    active, told = torch.cat(targets["test"]).numpy() > 0.5, np.concatenate(said) > threshold
    found = {
        "eb_f1_micro": round(score, 4),
        "interval": [round(value, 4) for value in interval],
        "frame_f1": round(2 * float((active & told).sum()) / max(float(active.sum() + told.sum()), 1.0), 4),
        "decay": decay,
        "threshold": threshold,
        "smoothing_frames": width,
        "cpu_seconds": round(time.process_time() - begun, 1),
    }
    return found, counts


def probabilities(line: nn.Module, frames: Sequence[Tensor]) -> list[np.ndarray]:
    """(F, L) a clip: how likely each class is active in each frame."""
    with torch.no_grad():
        return [torch.sigmoid(line(one)).numpy() for one in frames]


def over_first(rows: Sequence[tuple[dict[str, Any], np.ndarray]]) -> list[dict[str, Any]]:
    """What each encoder's event-based F1 has over the first one's, over the clips of all seeds."""
    names = list(dict.fromkeys(row["encoder"] for row, _ in rows))
    all_counts = {name: np.concatenate([c for row, c in rows if row["encoder"] == name]) for name in names}
    found = []
    for name in names[1:]:
        gain, interval = paired_bootstrap(all_counts[names[0]], all_counts[name])
        found.append({"encoder": name, "over": names[0], "eb_f1_micro": round(gain, 4),
                      "interval": [round(value, 4) for value in interval]})  # fmt: skip
    return found


def main() -> int:
    """Probe every encoder on every seed's recordings; prints a line each, and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bank", type=Path, metavar="SOUNDBANK")
    parser.add_argument("checkpoints", nargs="+", metavar="NAME=CHECKPOINT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clips", type=int, nargs=3, default=[250, 48, 128], help="of training, validation and test")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[tuple[dict[str, Any], np.ndarray]] = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            bank = require_sound(open_bank(options.bank, BankConfig(split_seed=seed)))
            parts = {}
            for part, count in zip(PARTS, options.clips, strict=True):
                sounds = BankSounds(bank, part)
                parts[part] = read_manifest(write_split(folder, part, count, seed, SoundscapeConfig(), sounds=sounds))
            for name, checkpoint in (text.split("=", 1) for text in options.checkpoints):
                found, counts = probe(Path(checkpoint), parts, bank.layout.labels, seed)
                rows.append(({"encoder": name, "seed": seed} | found, counts))
                print(rows[-1][0], file=sys.stderr, flush=True)
    results, gains = [row for row, _ in rows], over_first(rows)
    print(json.dumps({"experiment": "probe_encoders", "clips": options.clips, "results": results, "gains": gains}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
