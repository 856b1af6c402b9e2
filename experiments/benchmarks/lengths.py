"""One token a time beside two (second and fraction), on clips as long as those of training and on longer ones.

    OMP_NUM_THREADS=1 python experiments/benchmarks/lengths.py [--styles table factorised]

The shipped small base gets timestamps of either style and the same SFT on soundscapes of 4 to 10 s with exact times;
then it is asked about clips of 10, 15 and 20 s with as many events.

For each length: `nats`, the cross-entropy of a whole right answer (which is the same text in both styles); `eb_f1` of
greedy answers; `near` the share of all reference onsets and offsets that the greedy answer gives within 0.2 s, for the
event of that class that is nearest; `near_beyond` of those behind 10 s alone. One process, one thread, minutes an arm.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from timepro.answers import parse_answer
from timepro.data.soundscape import SoundscapeConfig
from timepro.data.synth import soundscape
from timepro.events import Event
from timepro.features import Processor
from timepro.inference.generation import generated, merged_embeds
from timepro.metrics.event_based import corpus_event_f1
from timepro.tasks import Sample, find_task
from timepro.timestamps import STYLES, vocabulary_of
from timepro.tiny.base import build_on_base
from timepro.tiny.config import TimestampsConfig, TinyModelConfig
from trainer.learner.policy import Policy
from trainer.learner.rows import Row, collate
from trainer.learner.schedule import learning_rate_factor
from trainer.learner.sft import target_row

CLASSES = ["alarm_beep", "siren", "dog_bark", "glass_breaking", "engine", "speech"]  # of the embedded experiments
TRAINED_S, LENGTHS = 10.0, (10.0, 15.0, 20.0)
NEAR_S = 0.2
HOUR_TOKENS = 4000
BATCH, PART = 32, 16  # clips a step, and of them at once
RATE, WARMUP, FLAT, FLOOR, DECAY = 4e-3, 30, 0.2, 0.05, 0.01


@dataclass
class Heard:
    """A clip as the decoder takes it: what is asked and right, and its audio frames (F, H)."""

    sample: Sample
    frames: torch.Tensor


@dataclass
class Arm:
    """A model in training, with one style of timestamps."""

    processor: Processor
    model: Any
    policy: Policy

    def loss(self, rows: Sequence[Row]) -> torch.Tensor:
        """The summed cross-entropy of the answers."""
        batch = collate(rows, self.processor.audio_token_id, self.processor.tokenizer.pad_token_id)
        logprobs, _ = self.policy(batch, 1.0)
        return -logprobs.sum()

    def answers(self, clips: Sequence[Heard]) -> list[list[Event]]:
        """Greedy answers to clips of one length."""
        found: list[list[Event]] = []
        for start in range(0, len(clips), BATCH):
            part = clips[start : start + BATCH]
            prompts = [self.processor.expanded_prompt(clip.sample.question, len(clip.frames)) for clip in part]
            embeds = [
                merged_embeds(self.processor, self.model, ids, c.frames) for ids, c in zip(prompts, part, strict=True)
            ]
            with torch.no_grad():
                ids = generated(self.processor, self.model, torch.cat(embeds), max_tokens=32)
            found += [parse_answer(self.processor.answer_text(one)).events for one in ids]
        return found


def main() -> int:
    """Measure, print a JSON line; 1 where an hour takes too many tokens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--styles", nargs="+", choices=tuple(STYLES), default=list(STYLES))
    parser.add_argument("--steps", type=int, default=250, help="of %(default)s, with 32 clips each")
    parser.add_argument("--clips", type=int, default=2500, help="to train on (%(default)s)")
    parser.add_argument("--test-clips", type=int, default=128, help="of each length (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {"hour_tokens": {s: vocabulary_of(s, 0.04, 3600.0).size for s in STYLES}}
    figures |= {"steps": options.steps, "clips": options.clips, "test_clips": options.test_clips}
    with tempfile.TemporaryDirectory() as folder:
        arms = {style: built(Path(folder) / style, style, options.seed) for style in options.styles}
        processor, model = next(iter(arms.values()))  # their encoders are the same
        train = heard(processor, model, options.clips, 4.0, TRAINED_S, 1_000_000 * (options.seed + 1))
        tests = {
            length: heard(processor, model, options.test_clips, length, length, 900_000_000 + 1000 * round(length))
            for length in LENGTHS
        }
        for style, (processor, model) in arms.items():
            arm = Arm(processor, model, Policy(model, processor.family, processor.layout))
            begun = time.process_time()
            trained(arm, train, options.steps, options.seed)
            cpu = round((time.process_time() - begun) / options.steps, 3)
            by_length = {f"{length:g} s": measured(arm, clips) for length, clips in tests.items()}
            figures[style] = {"cpu_s_a_step": cpu} | by_length
    holds = figures["hour_tokens"]["factorised"] < HOUR_TOKENS
    targets = {"hour_tokens of factorised": HOUR_TOKENS}
    print(json.dumps({"benchmark": "lengths", "figures": figures, "targets": targets, "holds": holds}))
    return 0 if holds else 1


def built(folder: Path, style: str, seed: int) -> tuple[Processor, Any]:
    """The shipped base with timestamps, written to a folder and loaded."""
    config = TinyModelConfig(
        from_scratch=False, answer_style="timestamps", astp_every=5, timestamps=TimestampsConfig(style=style), seed=seed
    )
    build_on_base(folder, config)
    processor = Processor(folder)
    return processor, processor.family.load(folder, torch.float32)


@torch.no_grad()
def heard(processor: Processor, model: Any, n: int, shortest: float, longest: float, seed: int) -> list[Heard]:
    """Soundscapes with exact labels, through the encoder."""
    config = SoundscapeConfig(classes=CLASSES, min_duration=shortest, max_duration=longest)
    encoder, question = processor.family.audio_encoder(model), find_task("sed").question()
    clips = []
    for number in range(n):
        waveform, labelled, _ = soundscape(config, seed + number)
        (frames,) = processor.family.encode(encoder, [processor.features_of(waveform)])
        events = tuple(Event(e.onset, e.offset, e.label) for e in labelled)
        sample = Sample(str(number), "sed", Path(), len(waveform) / 16000, question, events, events)
        clips.append(Heard(sample, frames.clone()))
    return clips


def trained(arm: Arm, clips: Sequence[Heard], steps: int, seed: int) -> None:
    """SFT as the embedded experiments do it, in one process."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(arm.policy.parameter_groups(DECAY), lr=RATE)
    order = rng.permutation(len(clips))
    for step in range(steps):
        if len(order) < BATCH:
            order = rng.permutation(len(clips))
        chosen, order = order[:BATCH], order[BATCH:]
        rows = sorted(
            (target_row(arm.processor, clips[i].sample, clips[i].frames) for i in chosen), key=lambda row: row.length
        )
        count = sum(len(row.answers[0].token_ids) for row in rows)
        optimiser.zero_grad()
        total = 0.0
        for start in range(0, BATCH, PART):
            loss = arm.loss(rows[start : start + PART])
            (loss / count).backward()
            total += loss.item() / count
        torch.nn.utils.clip_grad_norm_(arm.policy.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = RATE * learning_rate_factor(step, step / steps, WARMUP, FLAT, FLOOR)
        optimiser.step()
        if (step + 1) % 50 == 0:
            print(f"{arm.processor.layout.style}: step {step + 1}, loss {total:.3f}", file=sys.stderr, flush=True)


def measured(arm: Arm, clips: Sequence[Heard]) -> dict[str, float]:
    """What the model tells of clips of one length."""
    nats = 0.0
    with torch.no_grad():
        for start in range(0, len(clips), PART):
            rows = [target_row(arm.processor, clip.sample, clip.frames) for clip in clips[start : start + PART]]
            nats += arm.loss(rows).item()
    answers = arm.answers(clips)
    references = [clip.sample.reference for clip in clips]
    near, beyond = [], []
    for reference, answer in zip(references, answers, strict=True):
        for seconds, hit in told(reference, answer):
            near.append(hit)
            if seconds > TRAINED_S:
                beyond.append(hit)
    found = {
        "nats": nats / len(clips),
        "eb_f1": corpus_event_f1(references, answers, tolerance=1e-6).micro.f1,
        "near": float(np.mean(near)),
    } | ({"near_beyond": float(np.mean(beyond))} if beyond else {})
    return {key: round(value, 3) for key, value in found.items()}


def told(reference: Sequence[Event], answer: Sequence[Event]) -> list[tuple[float, bool]]:
    """Each time of the reference, and whether the answer's nearest event of the class has it within 0.2 s."""
    found = []
    for label in sorted({event.label for event in reference}):
        ours, theirs = ([e for e in events if e.label == label] for events in (reference, answer))
        apart = np.array([[abs(a.onset - b.onset) + abs(a.offset - b.offset) for b in theirs] for a in ours])
        pairs = dict(zip(*linear_sum_assignment(apart), strict=True)) if theirs else {}
        for i, event in enumerate(ours):
            other = theirs[pairs[i]] if i in pairs else Event(-1e9, -1e9 + 1, label)
            found.append((event.onset, abs(event.onset - other.onset) <= NEAR_S + 1e-6))
            found.append((event.offset, abs(event.offset - other.offset) <= NEAR_S + 1e-6))
    return found


if __name__ == "__main__":
    sys.exit(main())
