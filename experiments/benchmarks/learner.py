"""The learner's step beside what one would write first, and the memory of its log-probabilities.

    OMP_NUM_THREADS=1 taskset -c 0 python experiments/benchmarks/learner.py [--width 128]

In one run, in this process, on one ZeRO-3 rank:

- `speedup`: tokens a second of our step (one prompt a group, the audio once a clip, log-probabilities at answer tokens)
  over those of a plain one: transformers' own forward pass over padded sequences, each answer with its prompt and its
  audio, in micro-batches of the same number of padded tokens, under the same DeepSpeed. Tokens are those of the plain
  sequences, for both; both take an optimiser step of the same objective, and their losses are compared.
- `logprob_memory`: peak memory of log-probabilities and their gradients at a vocabulary of 150,000 over that of full
  logits; each in a process of its own.
- `loop_overhead`: seconds of our step over those of its forward and backward passes alone, without DeepSpeed, minus 1.

`--width` 128 is the embedded model; 768 with `--layers 6` has about 50 million parameters, whose plain step takes
minutes: `--overhead-only` leaves it and the memory out.

    python experiments/benchmarks/learner.py --device cuda --architecture 7b

measures the passes at a published size on a card instead: tokens a second, MFU, memory (see `learner_card.py`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:] = [str(ROOT), *(p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from trainer.settings.batch import BatchConfig  # noqa: E402
from trainer.settings.optimiser import OptimiserConfig  # noqa: E402
from trainer.settings.zero import ZeroConfig  # noqa: E402

TARGETS = {"speedup": 2.0, "logprob_memory": 0.25, "loop_overhead": 0.05}
PROMPTS, GROUP = 12, 8
VOCABULARY, TOKENS, WIDTH = 150_000, 2048, 64  # of the memory measurement
TOKEN_BUDGET = 4608


def main() -> int:
    """Measure, print a JSON line; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--overhead-only", action="store_true", help="our own step alone")
    parser.add_argument("--memory", choices=("full", "ours"), help=argparse.SUPPRESS)
    add_card_options(parser)
    options = parser.parse_args()
    if options.architecture:
        if options.device == "cpu":
            os.environ["TIMEPRO_DEVICE"] = "cpu"
        from experiments.benchmarks import learner_card

        return learner_card.main(options)
    if options.memory:
        print(logprob_memory(options.memory))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        figures = step_figures(Path(folder), options.width, options.layers, options.repeats, options.overhead_only)
    if not options.overhead_only:
        figures["logprob_memory"] = memory_apart("ours") / memory_apart("full")
    targets = {key: target for key, target in TARGETS.items() if key in figures}
    holds = figures.get("speedup", math.inf) >= TARGETS["speedup"] and all(
        figures[key] <= targets[key] for key in targets if key != "speedup"
    )
    print(json.dumps({"benchmark": "learner", "figures": figures, "targets": targets, "holds": holds}))
    return 0 if holds else 1


def add_card_options(parser: argparse.ArgumentParser) -> None:
    """What `learner_card` reads."""
    card = parser.add_argument_group("at a published size")
    card.add_argument("--architecture", choices=("7b", "3b", "tiny"))
    card.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    card.add_argument("--modes", nargs="+", choices=("lora", "full", "passes"), default=["lora", "full", "passes"])
    card.add_argument("--shapes", nargs="+", help="of a micro-batch's rows (see SHAPES in learner_card.py); all")
    card.add_argument("--tokens", type=int, default=BatchConfig().micro_batch_tokens, help="of a micro-batch, at most")
    card.add_argument("--full-layers", type=int, default=16, help="of the mode full; 0: all")
    card.add_argument("--micro-batches", type=int, default=4, help="of a step")
    card.add_argument("--logit-chunk-mib", type=float, default=BatchConfig().logit_chunk_mib)
    card.add_argument("--profile", action="store_true", help="also which kernels take the time")
    card.add_argument("--mode", help=argparse.SUPPRESS)


def step_figures(folder: Path, width: int, layers: int, repeats: int, alone: bool) -> dict[str, Any]:
    """Both steps, or ours alone, on the same groups; the least time of several, since other work only ever adds."""
    from trainer.learner import distributed
    from trainer.learner.learner import Learner
    from trainer.learner.policy import load_policy
    from trainer.settings.lora import LoraConfig

    torch.set_num_threads(1)
    store = distributed.join_alone()
    checkpoint = build(folder, width, layers)
    learner = Learner(
        checkpoint,
        OptimiserConfig(),
        ZeroConfig(),
        BatchConfig(micro_batch_tokens=TOKEN_BUDGET),
        LoraConfig(),
    )
    rows, features = make_rows(learner)
    n_tokens = sum(len(r.prompt_ids) + len(a.token_ids) - 1 for r in rows for a in r.answers)
    # The learner's own policy has no weights before it is under ZeRO-3.
    policy, _ = load_policy(checkpoint, learner.processor.family, learner.processor.layout, torch.float32)
    bare = least(repeats, partial(forward_backward, learner, policy, rows))
    del policy
    learner.start()
    loss = our_step(learner, rows, rate=0.0)
    ours = least(repeats, lambda: our_step(learner, rows))
    figures = {
        "parameters": sum(p.ds_numel for p in learner.engine.module.parameters()),
        "tokens": n_tokens,
        "tokens_per_second": n_tokens / ours,
        "loop_overhead": ours / bare - 1.0,
    }
    if not alone:
        plain = PlainStep(checkpoint, learner.processor)
        plain_loss = plain.step(rows, features)  # before its first update
        theirs = least(max(1, repeats // 2), lambda: plain.step(rows, features))
        figures |= {"speedup": theirs / ours, "loss_difference": abs(loss - plain_loss)}
    del store
    assert distributed.world_size() == 1
    return figures


def build(folder: Path, width: int, layers: int) -> Path:
    """A checkpoint of the embedded model's kind."""
    from timepro.data.sounds import SOUNDS
    from timepro.tasks.samples import tokenizer_texts
    from timepro.tiny.build import build_tiny_checkpoint
    from timepro.tiny.config import TinyModelConfig

    heads = max(2, width // 32 if width <= 128 else width // 64)
    config = TinyModelConfig(hidden_size=width, layers=layers, heads=heads, key_value_heads=max(1, heads // 2))
    config.feed_forward = 2 * width if width <= 128 else 4 * width
    build_tiny_checkpoint(folder / "checkpoint", config, SOUNDS, tokenizer_texts())
    return folder / "checkpoint"


def make_rows(learner: Any) -> tuple[list[Any], list[Tensor]]:
    """Groups with the length spread of real answers: one to four events in clips of 4 to 10 s."""
    from timepro.tasks import find_task
    from trainer.learner.rows import AnswerTokens, Row

    rng, processor, rows, features = np.random.default_rng(0), learner.processor, [], []
    for _ in range(PROMPTS):
        waveform = rng.normal(0, 0.1, int(rng.uniform(4, 10) * 16000)).astype(np.float32)
        features.append(processor.features_of(waveform))
        with torch.no_grad():
            (frames,) = processor.family.encode(learner.encoder, [features[-1]])
        prompt = processor.expanded_prompt(find_task("sed").question(), len(frames))
        answers = []
        for _ in range(GROUP):
            onsets = np.sort(rng.uniform(0, 3.5, rng.integers(1, 5)))
            ids = processor.answer_ids("".join(f"<{int(o / 0.04) * 0.04:.2f}>siren<3.96>" for o in onsets))
            answers.append(AnswerTokens(ids, [-1.0] * len(ids), advantage=float(rng.normal())))
        rows.append(Row(prompt, frames, answers))
    return rows, features


def objective(logprobs: Tensor, advantages: Tensor, count: float) -> Tensor:
    """The policy gradient, unclipped; what both steps minimise."""
    return -(logprobs * advantages).sum() / count


def answer_tokens(rows: list[Any]) -> float:
    return float(sum(len(a.token_ids) for r in rows for a in r.answers))


def our_step(learner: Any, rows: list[Any], rate: float = 1e-6) -> float:
    count = answer_tokens(rows)

    def loss(logprobs: Tensor, entropies: Tensor, micro: Any) -> tuple[Tensor, dict[str, Tensor]]:
        value = objective(logprobs, micro.advantages, count)
        return value, {"loss": value}

    return learner.update(rows, loss, 1.0, rate).numbers["loss"]


def forward_backward(learner: Any, policy: Any, rows: list[Any]) -> None:
    """Our passes alone: the same micro-batches, no DeepSpeed, no optimiser."""
    from trainer.learner.rows import plan_micro_batches

    count = answer_tokens(rows)
    for part in plan_micro_batches([row.length for row in rows], TOKEN_BUDGET):
        micro = learner._collate([rows[i] for i in part])
        logprobs, _ = policy(micro, 1.0)
        objective(logprobs, micro.advantages, count).backward()
    policy.zero_grad(set_to_none=True)


class PlainStep:
    """transformers' forward pass over padded sequences under DeepSpeed ZeRO-3."""

    def __init__(self, checkpoint: Path, processor: Any) -> None:
        from trainer.learner import zero

        self.processor = processor
        model = processor.family.load(checkpoint, torch.float32)
        processor.family.audio_encoder(model).requires_grad_(False)
        for name, parameter in model.named_parameters():
            if name.startswith("visual"):
                parameter.requires_grad_(False)
        model.train()
        deepspeed = zero.import_deepspeed()
        optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)
        config = zero.deepspeed_config(OptimiserConfig(), ZeroConfig(), torch.float32)
        self.engine, *_ = deepspeed.initialize(model=model, optimizer=optimiser, config=config)

    def step(self, rows: list[Any], features: list[Tensor]) -> float:
        """One optimiser step; returns the loss."""
        sequences = [(r, f, a) for r, f in zip(rows, features, strict=True) for a in r.answers]
        count, total = answer_tokens(rows), 0.0
        longest = max(len(r.prompt_ids) + len(a.token_ids) for r, _, a in sequences)
        size = max(1, TOKEN_BUDGET // longest)
        starts = range(0, len(sequences), size)
        for start in starts:
            loss = self._loss(sequences[start : start + size], count)
            self.engine.set_gradient_accumulation_boundary(start == starts[-1])
            self.engine.backward(loss)
            total += float(loss.detach())
        self.engine.step()
        return total

    def _loss(self, part: list[Any], count: float) -> Tensor:
        width = max(len(r.prompt_ids) + len(a.token_ids) for r, _, a in part)
        ids = torch.full((len(part), width), self.processor.tokenizer.pad_token_id)
        for k, (row, _, answer) in enumerate(part):
            tokens = row.prompt_ids + answer.token_ids
            ids[k, : len(tokens)] = torch.tensor(tokens)
        mask = torch.zeros_like(ids)
        for k, (row, _, answer) in enumerate(part):
            mask[k, : len(row.prompt_ids) + len(answer.token_ids)] = 1
        mels = [f for _, f, _ in part]
        audio = nn.utils.rnn.pad_sequence([m.T for m in mels], batch_first=True).transpose(1, 2)
        audio_mask = torch.zeros(len(part), audio.shape[-1], dtype=torch.long)
        for k, m in enumerate(mels):
            audio_mask[k, : m.shape[-1]] = 1
        logits = self.engine(
            input_ids=ids, attention_mask=mask, input_features=audio, feature_attention_mask=audio_mask,
            position_ids=torch.arange(width).expand(3, len(part), -1), use_cache=False,
        ).logits  # fmt: skip
        logits[..., list(self.processor.layout.banned_token_ids)] = -torch.inf
        logprobs = logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
        parts = []
        for k, (row, _, answer) in enumerate(part):
            first = len(row.prompt_ids) - 1
            parts.append(logprobs[k, first : first + len(answer.token_ids)] * answer.advantage)
        return -torch.cat(parts).sum() / count


def least(repeats: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls, after one that warms up."""
    work()
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken) if len(taken) < 3 else statistics.quantiles(taken, n=4)[0]


def memory_apart(which: str) -> float:
    """Peak memory above the tensors that both need, in MiB, measured in a process of its own."""
    command = [sys.executable, __file__, "--memory", which]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def logprob_memory(which: str) -> float:
    """Log-probabilities of TOKENS tokens from hidden states, and the gradient of their sum; MiB at the peak."""
    from trainer.learner.head import Head

    torch.set_num_threads(1)
    head = nn.Linear(WIDTH, VOCABULARY, bias=False)
    hidden, targets = torch.randn(TOKENS, WIDTH, requires_grad=True), torch.randint(0, VOCABULARY, (TOKENS,))
    head.weight.grad = torch.zeros_like(head.weight)  # both need it
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if which == "full":
        logprobs = head(hidden).float().log_softmax(-1)
        logprobs.gather(-1, targets[:, None]).sum().backward()
    else:
        ours = Head(head, torch.zeros(0, dtype=torch.long), BatchConfig().logit_chunk_mib)
        logprobs, _ = ours(hidden, targets, torch.ones(TOKENS), torch.zeros(TOKENS, dtype=torch.bool))
        logprobs.sum().backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


if __name__ == "__main__":
    from trainer.learner import distributed

    distributed.leave(main())
