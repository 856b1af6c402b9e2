"""Frame-wise warm-up of a random audio encoder, or of the random projector behind a pretrained one.

Published encoders arrive trained on a great deal of audio. The tiny model's is random, and an encoder learns far
faster from a label at every frame than through a decoder, so it first gets a short training of its own with a
throw-away head. It sees the labels of the stage that it belongs to and no others. In a composed model only the
projector is new: each clip goes through the encoder once, and the projector learns from what is kept of that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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

Encode = Callable[[nn.Module, Sequence[Tensor]], list[Tensor]]  # what is trained, and clips, to their frames


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
    """What is trained and a throw-away head in one module, so that one wrapper averages both gradients."""

    def __init__(self, trained: nn.Module, encode: Encode, width: int, n_labels: int) -> None:
        super().__init__()
        self.trained, self._encode = trained, encode
        self.head = nn.Linear(width, 3 * n_labels)
        nn.init.constant_(self.head.bias, -2.0)  # most frames are silent

    def forward(self, inputs: list[Tensor]) -> Tensor:
        return self.head(torch.cat(self._encode(self.trained, inputs)))


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
    with torch.no_grad():
        width = family.encode(encoder, [features[0].float().to(distributed.device())])[0].shape[-1]
    encode: Encode = family.encode
    trained, inputs = encoder, features
    if config.part == "projector":
        trained, inputs = _before_projector(encoder, processor, features)
        encode = _projected
    trained.requires_grad_(True).train()
    module = nn.parallel.DistributedDataParallel(
        _WithHead(trained, encode, width, len(labels)).to(distributed.device()), find_unused_parameters=True
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
            logits = module([inputs[i].float().to(where) for i in chosen])
            wanted = torch.cat([targets[i] for i in chosen]).to(where)
            loss = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight.to(where))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
            bar.advance(note=f"loss {loss.item():.3f}")
    encoder.requires_grad_(False).eval()
    return 0


def _before_projector(
    encoder: nn.Module, processor: Processor, features: Sequence[Tensor]
) -> tuple[nn.Module, list[Tensor]]:
    """The encoder's projector, and what the encoder gives it of each clip, (F, width) in half precision.

    Raises:
        ValueError: a family that does not name its projector.
    """
    name, family = processor.family.projector, processor.family
    if not name:
        raise ValueError(f"family {family.name} names no projector; set sft.encoder_warmup.part=all, or steps=0")
    projector, states = getattr(encoder, name), []
    setattr(encoder, name, nn.Identity())
    try:
        with torch.no_grad(), ProgressBar("encoding clips", len(features), "clips", distributed.is_first()) as bar:
            for one in features:
                states.append(family.encode(encoder, [one.float().to(distributed.device())])[0].half().cpu())
                bar.advance()
    finally:
        setattr(encoder, name, projector)
    return projector, states


def _projected(projector: nn.Module, states: Sequence[Tensor]) -> list[Tensor]:
    return [projector(state) for state in states]


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
