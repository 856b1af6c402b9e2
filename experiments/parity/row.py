"""One row of the parity matrix: a tiny checkpoint, a worker, a learner, and transformers as the judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from grid import BATCHES, HEADS, LAYOUTS, WEIGHTS
from torch import Tensor

from reference_models import load_reference, reference_logits
from rollout.client import AnswerGroup, Prompt, RolloutPool, Sampling
from rollout.settings import WorkerConfig
from timepro.data.sounds import SOUNDS
from timepro.features import Processor
from timepro.tasks.samples import tokenizer_texts
from timepro.tiny.build import build_tiny_checkpoint
from timepro.tiny.config import TinyModelConfig
from trainer.launcher.workers import WorkerSet
from trainer.learner import distributed
from trainer.learner.learner import Learner
from trainer.learner.losses import cross_entropy_sum
from trainer.learner.rows import AnswerTokens, Row
from trainer.learner.sender import WeightSender
from trainer.settings.batch import BatchConfig
from trainer.settings.lora import LoraConfig
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.sync import SyncConfig
from trainer.settings.zero import ZeroConfig

QUESTIONS = ("Detect the sound events with their start and end times.", "When does this sound occur: siren?")
SECONDS = (2.4, 1.04)  # of the two clips


@dataclass
class Side:
    """What answers and what judges: a worker's pool, and the clips."""

    pool: RolloutPool
    processor: Processor
    clips: list[Path]
    dtype: str
    base: Path  # the checkpoint that the worker has loaded

    def cell(self, checkpoint: Path, n_clips: int) -> dict[str, Any]:
        """Differences over one batch of `n_clips`, `checkpoint` holding the weights that the worker has now."""
        model, base = (
            load_reference(self.processor.family.name, folder).to(getattr(torch, self.dtype))
            for folder in (checkpoint, self.base)
        )
        sampled, greedy = self.answers(n_clips, 4, 1.0), self.answers(n_clips, 1, 0.0)
        differences, identical, moved = [], True, 0.0
        for number in range(n_clips):
            features, prompt = self.features(number), self.prompt(number)
            for group in (sampled[number], greedy[number]):
                identical &= group.prompt_token_ids == prompt
                for answer in group.answers:
                    expected = self.logprobs(model, features, prompt, answer.token_ids)
                    tokens = torch.tensor(answer.token_ids)[:, None]
                    own = expected.gather(-1, tokens)[:, 0]
                    differences += (own - torch.tensor(answer.logprobs)).abs().tolist()
                    before = self.logprobs(base, features, prompt, answer.token_ids).gather(-1, tokens)[:, 0]
                    moved = max(moved, (own - before).abs().max().item())
                    if group is greedy[number] and self.dtype == "float32":
                        identical &= expected.argmax(-1).tolist() == answer.token_ids
        values = np.array(differences)
        return {
            "tokens": len(values), "max": float(values.max()), "mean": float(values.mean()),
            "p99": float(np.quantile(values, 0.99)), "identical": bool(identical), "moved": moved,
        }  # fmt: skip

    def answers(self, n_clips: int, n: int, temperature: float) -> list[AnswerGroup]:
        """The worker's answers, all prompts asked for at the same time."""
        prompts = [
            Prompt(str(i), self.processor.prompt_ids(QUESTIONS[i]), clip, seed=i)
            for i, clip in enumerate(self.clips[:n_clips])
        ]
        return self.pool.generate(prompts, Sampling(n, temperature, 24, (self.processor.eos_token_id,)))

    def features(self, number: int) -> Tensor:
        return self.processor.features(self.clips[number])

    def prompt(self, number: int) -> list[int]:
        """The prompt's ids as the learner expands them."""
        family = self.processor.family
        n_frames = family.audio_frames(self.features(number).shape[-1] - family.mel_margin)
        return self.processor.expanded_prompt(QUESTIONS[number], n_frames)

    def logprobs(self, model: Any, features: Tensor, prompt: list[int], answer: list[int]) -> Tensor:
        """(T, V) of transformers' own forward pass, under the bans."""
        features = features.to(getattr(torch, self.dtype))
        audio = self.processor.audio_token_id
        logits = reference_logits(self.processor.family.name, model, features, prompt + answer, audio, len(prompt))
        logits = logits[len(prompt) - 1 : -1].float()
        logits[:, list(self.processor.layout.banned_token_ids)] = -torch.inf
        return logits.log_softmax(-1)


def run_row(family: str, layout: str, head: str, dtype: str, folder: str) -> dict[str, dict[str, Any]]:
    """All cells of a row, by "weights, batch"."""
    torch.manual_seed(0)
    work = Path(folder)
    checkpoint = work / "checkpoint"
    texts = tokenizer_texts() + [text for sound in SOUNDS.values() for text in (sound.spoken, *sound.captions)]
    tiny = TinyModelConfig(family=family, tie_word_embeddings=HEADS[head], **LAYOUTS[layout])
    build_tiny_checkpoint(checkpoint, tiny, SOUNDS, texts)
    store = distributed.join_alone()
    clips = write_clips(work)
    found: dict[str, dict[str, Any]] = {}
    # A worker takes whole weights or adapters, as it was started.
    for lora, columns in ((LoraConfig(), WEIGHTS[:2]), (LoraConfig(rank=4, alpha=16.0), WEIGHTS[2:])):
        workers = WorkerSet(
            WorkerConfig(dtype=dtype, threads=1), checkpoint, [work], work / "logs", adapters=lora.shape
        )
        try:
            workers.wait()
            pool = RolloutPool(workers.urls, workers.token)
            try:
                side = Side(pool, Processor(checkpoint), clips, dtype, checkpoint)
                found |= cells(side, checkpoint, workers, lora, columns)
            finally:
                pool.close()
        finally:
            workers.end()
    del store
    return found


def cells(
    side: Side, checkpoint: Path, workers: WorkerSet, lora: LoraConfig, columns: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Some of the row's cells, from left to right: every column's weights replace those of the one before."""
    found = {}
    for weights in columns:
        source = checkpoint
        if weights != "base":
            source = checkpoint.parent / weights
            train_and_send(side, checkpoint, lora, 1 if lora.rank else 3, workers, source)
        for n_clips, batch in enumerate(BATCHES, 1):
            found[f"{weights}, {batch}"] = side.cell(source, n_clips)
    return found


def train_and_send(
    side: Side, checkpoint: Path, lora: LoraConfig, updates: int, workers: WorkerSet, export: Path
) -> None:
    """A learner that starts from the checkpoint, updates and sends its weights so often, and exports the last."""
    rate = 1e-2 if lora.rank else 1e-3  # more, and the model is certain of one answer
    optimiser = OptimiserConfig(learning_rate=rate, warmup_steps=0)
    learner = Learner(checkpoint, optimiser, ZeroConfig(dtype=side.dtype), BatchConfig(), lora)
    learner.start()
    sender = WeightSender(learner.engine, workers.urls, workers.token, SyncConfig(transport="gloo"), own_gpus=False)
    try:
        sender.connect()
        for version in range(updates):
            frames = learner.frames(side.clips)
            answers = [AnswerTokens(side.processor.answer_ids("none"), supervised=True)]
            rows = [Row(side.prompt(i), f, answers) for i, f in enumerate(frames)]
            learner.update(
                rows, lambda logprobs, _, micro: (cross_entropy_sum(logprobs, micro.weights) / 8, {}), 1.0, rate
            )
            sender.deliver(version)
    finally:
        sender.close()
    learner.export(export)


def write_clips(folder: Path) -> list[Path]:
    """Two clips of noise with a rising tone."""
    rng, paths = np.random.default_rng(0), []
    for i, seconds in enumerate(SECONDS):
        time = np.arange(round(seconds * 16000)) / 16000
        wave = 0.05 * rng.normal(size=len(time)) + 0.3 * np.sin(2 * np.pi * (300 + 200 * time) * time)
        paths.append(folder / f"clip{i}.wav")
        soundfile.write(paths[-1], wave.astype(np.float32), 16000)
    return paths
