"""The cells of one checkpoint: a learner, workers, and transformers as the judge."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests
import soundfile
import torch
from grid import ADAPTERS, HEADS, LAYOUTS, VOCABULARIES, WEIGHTS, Cell, Group, Results
from layout_switch import ROUTE
from torch import Tensor

from reference_models import load_reference, reference_logits
from rollout.client import AnswerGroup, Prompt, RolloutPool, Sampling
from rollout.settings import WorkerConfig
from rollout.worker import Worker, worker_command, worker_environment
from timepro.astp import CONFIG_KEY, AstpLayout
from timepro.data.sounds import SOUNDS
from timepro.families import family_of
from timepro.features import Processor
from timepro.system.network import free_port
from timepro.tasks.samples import tokenizer_texts
from timepro.tiny.build import build_tiny_checkpoint
from timepro.tiny.config import TinyModelConfig
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
MAX_TOKENS = 24
TOKEN = "parity"
LORA = LoraConfig(rank=4, alpha=16.0)
START_TIMEOUT_S = 300.0


@dataclass
class Side:
    """One prompt layout: its processor, and clips that no other layout has used, since a worker keeps their prompts."""

    processor: Processor
    clips: list[Path]

    def prompt(self, number: int) -> list[int]:
        """The prompt's ids as the learner expands them."""
        family = self.processor.family
        n_frames = family.audio_frames(self.features(number).shape[-1] - family.mel_margin)
        return self.processor.expanded_prompt(QUESTIONS[number], n_frames)

    def features(self, number: int) -> Tensor:
        return self.processor.features(self.clips[number])

    def answers(self, pool: RolloutPool, n_clips: int, n: int, temperature: float) -> list[AnswerGroup]:
        """The worker's answers, all prompts asked for at the same time."""
        prompts = [
            Prompt(str(i), self.processor.prompt_ids(QUESTIONS[i]), clip, seed=i)
            for i, clip in enumerate(self.clips[:n_clips])
        ]
        return pool.generate(prompts, Sampling(n, temperature, MAX_TOKENS, (self.processor.eos_token_id,)))

    def logprobs(self, model: Any, dtype: torch.dtype, number: int, answer: list[int]) -> Tensor:
        """(T, V) of transformers' own forward pass, under the bans."""
        prompt, audio = self.prompt(number), self.processor.audio_token_id
        features = self.features(number).to(dtype)
        logits = reference_logits(self.processor.family.name, model, features, prompt + answer, audio, len(prompt))
        logits = logits[len(prompt) - 1 : -1].float()
        logits[:, list(self.processor.layout.banned_token_ids)] = -torch.inf
        return logits.log_softmax(-1)


class GroupRun:
    """Measures some cells of a group, and writes each as soon as it is known.

    Args:
        work: an empty folder for checkpoints, clips and logs.
    """

    def __init__(self, group: Group, work: Path, results: Results) -> None:
        self.group, self.work, self.results = group, work, results
        self.dtype = getattr(torch, group.dtype)
        torch.manual_seed(0)
        texts = tokenizer_texts() + [text for sound in SOUNDS.values() for text in (sound.spoken, *sound.captions)]
        own = VOCABULARIES[group.vocabulary]
        tiny = TinyModelConfig(family=group.family, tie_word_embeddings=HEADS[group.head], **own)
        self.checkpoint = work / "checkpoint"
        build_tiny_checkpoint(self.checkpoint, tiny, SOUNDS, texts)
        self.sides = {
            layout: Side(Processor(self._laid_out(layout)), self._clips(layout))
            for layout, (vocabulary, _) in LAYOUTS.items()
            if vocabulary == group.vocabulary
        }
        self._references: dict[str, Any] = {"base": self._reference(self.checkpoint)}

    def _laid_out(self, layout: str) -> Path:
        """The checkpoint with another prompt layout: the same files but for its configuration."""
        folder, source = self.work / f"layout {layout}", self.checkpoint
        folder.mkdir()
        for path in source.iterdir():
            if path.name != "config.json":
                os.link(path, folder / path.name)
        config = json.loads((source / "config.json").read_text())
        text_side, _ = family_of(source).config_parts(config)
        text_side[CONFIG_KEY] |= LAYOUTS[layout][1]
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def _clips(self, layout: str) -> list[Path]:
        """Two clips of noise with a rising tone."""
        rng, paths = np.random.default_rng(0), []
        for number, seconds in enumerate(SECONDS):
            time = np.arange(round(seconds * 16000)) / 16000
            wave = 0.05 * rng.normal(size=len(time)) + 0.3 * np.sin(2 * np.pi * (300 + 200 * time) * time)
            paths.append(self.work / f"{layout} {number}.wav")
            soundfile.write(paths[-1], wave.astype(np.float32), 16000)
        return paths

    def _reference(self, folder: Path) -> Any:
        return load_reference(self.group.family, folder).to(self.dtype)

    def run(self, cells: Sequence[Cell]) -> None:
        """Start the workers that the cells need, both at once, and go through the weights."""
        store = distributed.join_alone()
        with ExitStack() as stack:
            workers = {}
            for adapters in sorted({cell.weights == ADAPTERS for cell in cells}):
                workers[adapters] = self._worker(adapters)
                stack.callback(workers[adapters].end)
            for adapters, worker in workers.items():
                worker.wait_ready(START_TIMEOUT_S)
                pool = RolloutPool([worker.url], TOKEN)
                stack.callback(pool.close)
                for weights in WEIGHTS:  # of one worker, from left to right: each replaces those before
                    wanted = [c for c in cells if c.weights == weights and (weights == ADAPTERS) == adapters]
                    if wanted:
                        self._measure(wanted, weights, worker, pool)
        del store

    def _worker(self, adapters: bool) -> Worker:
        config = WorkerConfig(dtype=self.group.dtype, threads=1)
        port = free_port(config.host)
        command = worker_command(config, self.checkpoint, port, LORA.shape if adapters else None)
        command += ["--middleware", "layout_switch.SwitchLayout"]
        environment = worker_environment(config, TOKEN, media=[self.work])
        name = "adapters" if adapters else "whole"
        return Worker(name, command, environment, f"http://{config.host}:{port}", self.work / "logs" / f"{name}.log")

    def _measure(self, cells: Sequence[Cell], weights: str, worker: Worker, pool: RolloutPool) -> None:
        if weights != "base":
            export = self.work / f"weights {weights}"
            self._train_and_send(LORA if weights == ADAPTERS else LoraConfig(), worker, export)
            self._references[weights] = self._reference(export)
        for layout in self.sides:
            here = [cell for cell in cells if cell.layout == layout]
            if here:
                self._switch(worker, self.sides[layout].processor.layout)
            for cell in here:
                self.results.write(cell, self._compare(cell, pool))

    def _switch(self, worker: Worker, layout: AstpLayout) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        reply = requests.post(f"{worker.url}{ROUTE}", json=layout.to_config(), headers=headers, timeout=10)
        reply.raise_for_status()

    def _compare(self, cell: Cell, pool: RolloutPool) -> dict[str, Any]:
        """Differences of log-probabilities over the answers to one batch, sampled and greedy."""
        side, model, base = self.sides[cell.layout], self._references[cell.weights], self._references["base"]
        sampled, greedy = (side.answers(pool, cell.n_clips, n, t) for n, t in ((4, 1.0), (1, 0.0)))
        differences: list[float] = []
        identical, moved = True, 0.0
        for number in range(cell.n_clips):
            prompt = side.prompt(number)
            for group in (sampled[number], greedy[number]):
                identical &= group.prompt_token_ids == prompt
                for answer in group.answers:
                    expected = side.logprobs(model, self.dtype, number, answer.token_ids)
                    tokens = torch.tensor(answer.token_ids)[:, None]
                    own = expected.gather(-1, tokens)[:, 0]
                    differences += (own - torch.tensor(answer.logprobs)).abs().tolist()
                    if model is not base:
                        before = side.logprobs(base, self.dtype, number, answer.token_ids).gather(-1, tokens)[:, 0]
                        moved = max(moved, (own - before).abs().max().item())
                    if group is greedy[number] and self.dtype == torch.float32:
                        identical &= expected.argmax(-1).tolist() == answer.token_ids
        return {"differences": differences, "identical": bool(identical), "moved": moved}

    def _train_and_send(self, lora: LoraConfig, worker: Worker, export: Path) -> None:
        """A learner that starts from the checkpoint, updates and sends its weights so often, and exports the last."""
        rate = 1e-2 if lora.rank else 1e-3  # more, and the model is certain of one answer
        optimiser, zero = OptimiserConfig(learning_rate=rate, warmup_steps=0), ZeroConfig(dtype=self.group.dtype)
        learner = Learner(self.checkpoint, optimiser, zero, BatchConfig(), lora)
        learner.start()
        side = Side(Processor(self.checkpoint), self._clips("trained on"))
        sender = WeightSender(learner.engine, [worker.url], TOKEN, SyncConfig(transport="gloo"), own_gpus=False)
        try:
            sender.connect()
            for version in range(1 if lora.rank else 3):
                answers = [AnswerTokens(side.processor.answer_ids("none"), supervised=True)]
                rows = [Row(side.prompt(i), frames, answers) for i, frames in enumerate(learner.frames(side.clips))]
                learner.update(
                    rows, lambda logprobs, _, micro: (cross_entropy_sum(logprobs, micro.weights) / 8, {}), 1.0, rate
                )
                sender.deliver(version)
        finally:
            sender.close()
        learner.export(export)
