"""The learner's passes and steps at the published sizes, on a card: `learner.py --device cuda --architecture 7b`.

The published text configuration with random weights, made on the card; the encoder is left out (its frames are kept).
Each mode runs in a process of its own, so that one that runs out of memory takes no other with it:

- `lora`: rank 8 on all projections, all layers, under ZeRO-3 on one rank.
- `full`: all weights with AdamW under ZeRO-3 on one rank; `--full-layers` of the layers, since 18 bytes a parameter
  of 28 layers are more than a card has. What a layer costs does not depend on how many there are.
- `passes`: all weights, all layers, forward and backward alone, without DeepSpeed and optimiser.

MFU: the floating-point operations that the passes need, over seconds x 989 TFLOP/s (bfloat16, dense, H100 and H200).
A product of (m, k) and (k, n) is 2 m k n. Forward: every projection for every token (in the last layer keys and values
alone; the rest at the answers), 4 x pairs x width for attention, where pairs are those that see each other, and the
head at answer tokens. Backward: twice the forward for attention and trained weights, once for frozen weights. `hfu`
counts what is computed again too: the layers with checkpointing, the head's chunks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from timepro.astp import CONFIG_KEY, AstpLayout
from trainer.settings.batch import BatchConfig
from trainer.settings.lora import LoraConfig
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.zero import ZeroConfig

PEAK = 989e12
TARGETS = {"mfu": 0.40}
MODES = ("lora", "full", "passes")
AUDIO_TOKEN = 1


@dataclass(frozen=True)
class Size:
    """A decoder's published text configuration (`config.json` of Qwen/Qwen2.5-Omni-7B and -3B: thinker_config)."""

    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    feed_forward: int
    vocabulary: int

    @property
    def key_value_width(self) -> int:
        return self.hidden // self.heads * self.key_value_heads


SIZES = {
    "7b": Size(3584, 28, 28, 4, 18944, 152064),
    "3b": Size(2048, 36, 16, 2, 11008, 151936),
    "tiny": Size(64, 3, 4, 2, 128, 512),  # to try the script on a CPU
}


@dataclass(frozen=True)
class Shape:
    """Rows of a micro-batch: P prompt tokens with F frames, and G answers of T tokens."""

    prompt: int
    frames: int
    answers: int
    answer: int

    @property
    def length(self) -> int:
        return self.prompt + self.answers * (self.answer - 1)


SHAPES = {
    "10 s": Shape(530, 250, 8, 40),
    "30 s": Shape(1530, 750, 8, 160),
    "30 s, 16 long answers": Shape(1530, 750, 16, 531),
}


def main(options: argparse.Namespace) -> int:
    """All modes one after another, a JSON line in the end; 1 where the target is missed."""
    if options.mode:
        for figures in mode_figures(options):
            print(json.dumps(figures), flush=True)
        return 0
    figures: list[dict[str, Any]] = []
    result: dict[str, Any] = {"holds": False}
    for mode in options.modes:
        command = [sys.executable, str(Path(__file__).with_name("learner.py")), *sys.argv[1:], "--mode", mode]
        environment = {"OMP_NUM_THREADS": "4"} | os.environ  # as the launcher sets a number
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    figures.append(json.loads(line))
                    print("  " + line.rstrip(), file=sys.stderr, flush=True)
        if process.returncode:
            figures.append({"mode": mode, "failed": f"the process ended with {process.returncode}"})
        result = summary(options, figures)
        print(json.dumps(result), flush=True)  # after each mode: a deadline loses the last one alone
    return 0 if result["holds"] else 1


def summary(options: argparse.Namespace, figures: list[dict[str, Any]]) -> dict[str, Any]:
    """What has been measured so far; the target holds where every mode reaches it in one of its shapes."""
    best = {mode: max((f["mfu"] for f in figures if f["mode"] == mode and "mfu" in f), default=0.0) for mode in MODES}
    holds = all(best[mode] >= TARGETS["mfu"] for mode in options.modes)
    found = {"architecture": options.architecture, "card": card(), "best_mfu": best, "runs": figures}
    return {"benchmark": "learner_card", "figures": found, "targets": TARGETS, "holds": holds}


def card() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def mode_figures(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One mode's figures, shape by shape; the cheaper in memory first."""
    from trainer.learner import distributed

    store = distributed.join_alone()
    size = SIZES[options.architecture]
    if options.mode == "full" and options.full_layers:
        size = Size(**asdict(size) | {"layers": min(size.layers, options.full_layers)})
    batch = BatchConfig(micro_batch_tokens=options.tokens, logit_chunk_mib=options.logit_chunk_mib)
    trained = Trained(size, options.mode, batch)
    yield {"mode": options.mode, "layers": size.layers, "memory": trained.memory}
    for checkpointing in (True, False):
        for name in options.shapes or SHAPES:
            shape = SHAPES[name]
            try:
                figures = shape_figures(trained, size, shape, checkpointing, options)
            except torch.OutOfMemoryError as error:
                yield {"mode": options.mode, "shape": name, "checkpointing": checkpointing, "failed": str(error)[:200]}
                return  # what ZeRO-3 had gathered stays gathered
            yield {"mode": options.mode, "layers": size.layers, "shape": name} | figures
    del store


class Trained:
    """A policy of a size, ready to train in a mode."""

    def __init__(self, size: Size, mode: str, batch: BatchConfig) -> None:
        from trainer.learner import distributed, zero
        from trainer.learner.policy import Policy

        self.device = distributed.device()
        model, family, layout = build(size, self.device)
        lora = LoraConfig(rank=8) if mode == "lora" else LoraConfig()
        self.policy = Policy(model, family, layout, lora, 0, batch.logit_chunk_mib).train()
        self.policy.to(self.device)
        del model
        self.memory = {"weights": allocated()}
        self.engine: Any = None
        if mode != "passes":
            self.engine = zero.initialise(self.policy, OptimiserConfig(), ZeroConfig())
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.memory["weights, gradients and optimiser before the first step"] = allocated()

    def passes(self, micro: Any, count: float, last: bool) -> None:
        """Forward and backward of one micro-batch."""
        from trainer.learner import zero

        logprobs, _ = (self.engine or self.policy)(micro, 1.0)
        loss = -(logprobs * micro.advantages).sum() / count
        if self.engine is None:
            loss.backward()
        else:
            zero.backward(self.engine, loss, last)

    def step(self) -> None:
        from trainer.learner import zero

        if self.engine is not None:
            zero.step(self.engine)

    def checkpoint_layers(self, on: bool) -> None:
        if on:
            self.policy.checkpoint_layers()
        else:
            self.policy.text_model.gradient_checkpointing_disable()


def build(size: Size, device: torch.device) -> tuple[Any, Any, AstpLayout]:
    """The published class with random weights, made on the device; the towers at their smallest."""
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    from timepro.families import family_named
    from timepro.families.qwen2_5_omni import _SMALLEST_VISION

    half = size.hidden // size.heads // 2
    first = half // 4
    sections = [first, (half - first) // 2, half - first - (half - first) // 2]
    layout = AstpLayout(first_token_id=size.vocabulary, banned_token_ids=(AUDIO_TOKEN,), answer_style="timestamps")
    config = Qwen2_5OmniThinkerConfig(
        audio_config=dict(
            num_mel_bins=128, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=64, d_model=64,
            output_dim=size.hidden,
        ),
        vision_config=_SMALLEST_VISION | dict(out_hidden_size=size.hidden),
        text_config=dict(
            hidden_size=size.hidden, num_hidden_layers=size.layers, num_attention_heads=size.heads,
            num_key_value_heads=size.key_value_heads, intermediate_size=size.feed_forward,
            vocab_size=size.vocabulary + 768, max_position_embeddings=32768, tie_word_embeddings=False,
            rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=sections),
        ),
        audio_token_index=AUDIO_TOKEN, tie_word_embeddings=False, pad_token_id=0,
    )  # fmt: skip
    setattr(config, CONFIG_KEY, layout.to_config())
    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32)
    try:
        with device:
            model = Qwen2_5OmniThinkerForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(usual)
    return model, family_named("qwen2_5_omni", "-"), layout


def micro_batch(size: Size, shape: Shape, n_rows: int, device: torch.device) -> Any:
    """Rows of one shape with random tokens and frames."""
    from trainer.learner.rows import AnswerTokens, Row, collate

    generator = torch.Generator().manual_seed(0)

    def tokens(n: int) -> list[int]:
        return torch.randint(2, size.vocabulary, (n,), generator=generator).tolist()

    rows = []
    for _ in range(n_rows):
        prompt = tokens(shape.prompt - shape.frames) + [AUDIO_TOKEN] * shape.frames
        frames = torch.randn(shape.frames, size.hidden, generator=generator)
        answers = [
            AnswerTokens(tokens(shape.answer), [-1.0] * shape.answer, advantage=1.0 if g % 2 else -1.0)
            for g in range(shape.answers)
        ]
        rows.append(Row(prompt, frames, answers))
    return collate(rows, AUDIO_TOKEN, 0).to(device)


def shape_figures(
    trained: Trained, size: Size, shape: Shape, checkpointing: bool, options: argparse.Namespace
) -> dict[str, Any]:
    """Seconds, rates and peak memory of micro-batches of a shape, and of steps of `--micro-batches` of them."""
    n_rows = max(1, options.tokens // shape.length)
    micro = micro_batch(size, shape, n_rows, trained.device)
    trained.checkpoint_layers(checkpointing)
    count = float(n_rows * shape.answers * shape.answer * options.micro_batches)
    if trained.device.type == "cuda":
        torch.cuda.empty_cache()
    for last in (False, True):  # compiles, and the first step allocates the optimiser's state
        trained.passes(micro, count, last)
    trained.step()
    kept = allocated()
    reset_peak()
    pass_s = seconds(lambda: trained.passes(micro, count, last=False), options.repeats)
    peak_of_passes = peak()

    def step() -> None:
        for number in range(options.micro_batches):
            trained.passes(micro, count, last=number == options.micro_batches - 1)
        trained.step()

    step_s = seconds(step, 1)
    trained.policy.zero_grad(set_to_none=True)
    n_tokens = n_rows * shape.length
    needed, computed = operations(size, shape, n_rows, options.mode == "lora", checkpointing)
    return {
        "checkpointing": checkpointing,
        "rows": n_rows,
        "tokens": n_tokens,
        "seconds": pass_s,
        "tokens_per_second": n_tokens / pass_s,
        "samples_per_second": n_rows * shape.answers / pass_s,
        "mfu": needed / pass_s / PEAK,
        "hfu": computed / pass_s / PEAK,
        "step_mfu": options.micro_batches * needed / step_s / PEAK,
        "step_seconds": step_s,
        "kept_gib": kept,
        "peak_gib": peak_of_passes,
        "peak_gib_with_step": peak(),
    } | ({"profile": profiled(trained, micro, count)} if options.profile and shape is SHAPES["10 s"] else {})


def operations(size: Size, shape: Shape, n_rows: int, frozen: bool, checkpointing: bool) -> tuple[float, float]:
    """Floating-point operations that a micro-batch needs, and that are computed."""
    n, queries = n_rows * shape.length, n_rows * (1 + shape.answers * (shape.answer - 1))
    kept = 2 * size.hidden * size.key_value_width
    chosen = 2 * size.hidden**2 + 3 * size.hidden * size.feed_forward
    of_answers = shape.answers * ((shape.answer - 1) * shape.prompt + (shape.answer - 1) * shape.answer // 2)
    of_prompt = shape.prompt * (shape.prompt + 1) // 2
    layers = size.layers - 1
    weights = layers * 2 * n * (kept + chosen)
    last = 2 * n * kept + 2 * queries * chosen
    attention = layers * 4 * n_rows * (of_prompt + of_answers) * size.hidden
    last_attention = 4 * n_rows * (shape.prompt + of_answers) * size.hidden
    head = 2 * n_rows * shape.answers * shape.answer * size.hidden * (size.vocabulary + 768)
    backward = 1 if frozen else 2
    needed = (1 + backward) * (weights + last + head) + 3 * (attention + last_attention)
    again = head + (weights + attention if checkpointing else 0)
    return float(needed), float(needed + again)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Mean seconds of a call, with the card's work in it."""
    synchronize()
    begun = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronize()
    return (time.perf_counter() - begun) / repeats


def profiled(trained: Trained, micro: Any, count: float) -> list[dict[str, Any]]:
    """The kernels that one micro-batch's passes spend most time in: name, milliseconds, calls."""
    from torch.profiler import ProfilerActivity, profile

    on_card = trained.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_card else ProfilerActivity.CPU]) as found:
        trained.passes(micro, count, last=False)
        synchronize()
    field = "self_device_time_total" if on_card else "self_cpu_time_total"
    events = sorted(found.key_averages(), key=lambda event: -getattr(event, field))
    total = sum(getattr(event, field) for event in events) / 1e3
    rows = [{"kernel": e.key[:90], "ms": round(getattr(e, field) / 1e3, 2), "calls": e.count} for e in events[:25]]
    return [{"kernel": "all", "ms": round(total, 2), "calls": sum(e.count for e in events)}, *rows]


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def allocated() -> float:
    """GiB on the card now."""
    return torch.cuda.memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0


def reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak() -> float:
    """GiB on the card at most since `reset_peak`."""
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
