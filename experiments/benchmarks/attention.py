"""Attention over answers that share a prompt: the learner's own against one with a boolean for every pair of tokens.

    python experiments/benchmarks/attention.py [--device cuda] [--tokens 1000 4000 10000]

One attention layer, forward and backward, one row: a prompt of 15 % of the N tokens (1,500 of 10,000: a clip of 30 s
with its timestamps) and 16 answers. On a card the heads of Qwen2.5-Omni-7B in bfloat16, on a CPU those of the small
base in float32, one thread. The dense path is torch's own kernel under the mask.

- `seconds`: of a layer, the mask or table not included; `prepare_seconds`: of those, once for all layers.
- `mib`: peak memory above the inputs, mask or table included; on a CPU of a process of its own.
- `growth`: memory at the largest N over that at the smallest, over the ratio of the N: 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:] = [str(ROOT), *(p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent)]

import torch  # noqa: E402

from timepro.families.parts.tree import PROMPT, DenseTree, Tree  # noqa: E402
from timepro.families.parts.tree_attention import tree_of  # noqa: E402

TARGETS = {"growth": 1.2, "memory_ratio": 0.5, "speedup": 1.0}
ANSWERS = 16
HEADS = {"cuda": (28, 4, 128, torch.bfloat16), "cpu": (4, 2, 32, torch.float32)}


def main() -> int:
    """Measure, print a JSON line; 1 where a target is missed at the largest N."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=tuple(HEADS), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1000, 4000, 10_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", choices=("dense", "tree"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(figures_of(options.one, options.device, options.tokens[0], options.repeats)))
        return 0
    runs = {}
    for tokens in options.tokens:
        for kind in ("dense", "tree"):
            measure = figures_of if options.device == "cuda" else apart
            runs[f"{kind} {tokens}"] = measure(kind, options.device, tokens, options.repeats)
            print(f"  {kind} {tokens}: {runs[f'{kind} {tokens}']}", file=sys.stderr, flush=True)
    least, most = min(options.tokens), max(options.tokens)
    figures: dict[str, Any] = {
        "card": torch.cuda.get_device_name() if options.device == "cuda" else "CPU",
        "runs": runs,
        "growth": runs[f"tree {most}"]["mib"] / runs[f"tree {least}"]["mib"] / (most / least),
        "memory_ratio": runs[f"tree {most}"]["mib"] / runs[f"dense {most}"]["mib"],
        "speedup": runs[f"dense {most}"]["seconds"] / runs[f"tree {most}"]["seconds"],
    }
    holds = figures["speedup"] >= TARGETS["speedup"] and all(
        figures[key] <= TARGETS[key] for key in ("growth", "memory_ratio")
    )
    print(json.dumps({"benchmark": "attention", "figures": figures, "targets": TARGETS, "holds": holds}))
    return 0 if holds else 1


def apart(kind: str, device: str, tokens: int, repeats: int) -> dict[str, float]:
    """Figures of a kind, measured in a process of its own."""
    command = [
        sys.executable, __file__, "--one", kind, "--device", device, "--tokens", str(tokens), "--repeats", str(repeats)
    ]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=600)
    return json.loads(done.stdout.splitlines()[-1])


def figures_of(kind: str, device: str, tokens: int, repeats: int) -> dict[str, float]:
    """Seconds of a layer, and of what all layers share; peak memory above the inputs."""
    torch.set_num_threads(1)
    heads, key_heads, width, dtype = HEADS[device]
    prompt = tokens * 15 // 100
    answer = (tokens - prompt) // ANSWERS
    prompt = tokens - ANSWERS * answer
    row = [PROMPT] * prompt + [g for g in range(ANSWERS) for _ in range(answer)]
    segments = torch.tensor([row], device=device)
    # As the projections give them: heads beside each other.
    q, k, v = (
        torch.randn(1, tokens, h, width, device=device, dtype=dtype).transpose(1, 2).requires_grad_()
        for h in (heads, key_heads, key_heads)
    )
    gradient = torch.randn_like(q)

    def fresh() -> Tree:
        return DenseTree(segments) if kind == "dense" else tree_of(segments)

    def layer(tree: Tree) -> None:
        tree.attend(q, k, v).backward(gradient)
        q.grad = k.grad = v.grad = None

    if device == "cuda":
        layer(fresh())  # compiles
    else:  # what a first call loads is not the attention's
        few = torch.randn(1, 2, 8, 4, requires_grad=True)
        tree_of(torch.tensor([[PROMPT] * 4 + [0] * 4])).attend(few, few, few).sum().backward()
    mib = peak_mib(device, lambda: layer(fresh()))
    tree = fresh()
    begun = now(device)
    layer(tree)
    first = now(device) - begun
    taken = []
    for _ in range(repeats):
        begun = now(device)
        layer(tree)
        taken.append(now(device) - begun)
    least = min(taken)
    return {"seconds": least, "prepare_seconds": max(0.0, first - least), "mib": mib}


def peak_mib(device: str, work: Any) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts again from here
    before = memory_kib("VmRSS")
    work()
    return (memory_kib("VmHWM") - before) / 2**10


def memory_kib(field: str) -> int:
    """What the kernel says of this process: `VmRSS` now, `VmHWM` at most."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
