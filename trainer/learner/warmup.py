"""Frame-wise warm-up of a random audio encoder, for models that are built from nothing.

Published encoders arrive trained on a great deal of audio. The tiny model's is random, and an encoder learns far
faster from a label at every frame than through a decoder, so it first gets a short training of its own with a
throw-away head. It sees the labels of the stage that it belongs to and no others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timepro.events import Event
from timepro.features import Processor
from timepro.progress import ProgressBar
from timepro.tasks import Sample
from trainer.learner import distributed
from trainer.learner.schedule import learning_rate_factor
from trainer.settings.encoder_warmup import EncoderWarmupConfig


def frame_targets(events: Sequence[Event], labels: Sequence[str], n_frames: int, frame_rate: float) -> Tensor:
    """Which class is active, begins or ends at each frame.

    Returns:
        (F, 3 * L) zeros and ones: activity, onsets, offsets of L labels.
    """
    number = {label: i for i, label in enumerate(labels)}
    target = torch.zeros(n_frames, 3, len(labels))
    for event in events:
        first = min(n_frames - 1, round(event.onset * frame_rate))
        end = min(n_frames, max(first + 1, round(event.offset * frame_rate)))
        label = number[event.label]
        target[first:end, 0, label] = 1.0
        target[first, 1, label] = 1.0
        target[end - 1, 2, label] = 1.0
    return target.flatten(1)


class _WithHead(nn.Module):
    """Encoder and throw-away head in one module, so that one wrapper averages both gradients."""

    def __init__(self, encoder: nn.Module, processor: Processor, width: int, n_labels: int) -> None:
        super().__init__()
        self.encoder, self._family = encoder, processor.family
        self.head = nn.Linear(width, 3 * n_labels)
        nn.init.constant_(self.head.bias, -2.0)  # most frames are silent

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.head(torch.cat(self._family.encode(self.encoder, features)))


def warm_up(
    encoder: nn.Module,
    processor: Processor,
    samples: Sequence[Sample],
    config: EncoderWarmupConfig,
    seed: int,
    stop: distributed.StopRequest,
    features: Sequence[Tensor],
) -> int:
    """Train the encoder in place on frame-wise targets, data-parallel over the ranks.

    Args:
        samples: sound-event samples; the `target` times are the labels.
        features: of this rank's share of the samples, `own_share`.

    Returns:
        the signal that ended it early, 0 for none. A warm-up takes a minute or two and is begun anew, not resumed.
    """
    rank, world = distributed.rank(), distributed.world_size()
    labels = sorted({event.label for sample in samples for event in sample.target})
    mine = own_share(samples)
    family = processor.family
    targets = [
        frame_targets(s.target, labels, family.audio_frames(f.shape[-1] - family.mel_margin), family.frame_rate)
        for s, f in zip(mine, features, strict=True)
    ]
    torch.manual_seed(seed)  # the same head on every rank
    encoder.requires_grad_(True).train()
    with torch.no_grad():
        width = processor.family.encode(encoder, [features[0].float()])[0].shape[-1]
    module = nn.parallel.DistributedDataParallel(
        _WithHead(encoder, processor, width, len(labels)).to(distributed.device()), find_unused_parameters=True
    )
    optimiser = torch.optim.AdamW(module.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    weight = torch.ones(3 * len(labels))
    weight[len(labels) :] = config.boundary_weight
    per_rank = max(1, config.clips // world)
    rng = np.random.default_rng([seed, rank])
    with ProgressBar("encoder warm-up", config.steps, "steps", visible=rank == 0) as bar:
        for step in range(config.steps):
            signal = stop.agreed()
            if signal:
                return signal
            factor = learning_rate_factor(step, step / config.steps, 20, 0.1, 0.05)
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * factor
            chosen = rng.integers(len(mine), size=per_rank)
            where = distributed.device()
            logits = module([features[i].float().to(where) for i in chosen])
            wanted = torch.cat([targets[i] for i in chosen]).to(where)
            loss = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight.to(where))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
            bar.advance(note=f"loss {loss.item():.3f}")
    encoder.requires_grad_(False).eval()
    return 0


def own_share(samples: Sequence[Sample]) -> Sequence[Sample]:
    """What this rank warms up on: those that it will mostly be given afterwards, too (`order.share`)."""
    return samples[distributed.rank() :: distributed.world_size()]


def all_features(samples: Sequence[Sample], processor: Processor, visible: bool) -> list[Tensor]:
    """Log-mel features of every clip, in half precision: they are read many times."""
    features = []
    with ProgressBar("reading clips", len(samples), "clips", visible) as bar:
        for sample in samples:
            features.append(processor.features(sample.audio).half())
            bar.advance()
    return features
