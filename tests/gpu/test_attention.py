"""Block-sparse tree attention on the card against the dense reference in float32, forward and backward."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from timepro.families.parts.tree import PADDING, PROMPT, DenseTree
from timepro.families.parts.tree_attention import tree_of
from timepro.families.parts.tree_blocks import BlockTree

ROOT = Path(__file__).resolve().parents[2]
HEADS = {"Qwen2.5-Omni-7B": (28, 4), "Qwen2.5-Omni-3B": (16, 2), "Qwen2-Audio-7B": (32, 32)}
# Prompt and answers of each row, one after another: of all lengths, as a run's micro-batches are.
BATCHES = [
    [(530, [40] * 8), (430, [37, 1, 60, 12]), (300, [5] * 8)],
    [(1530, [160] * 8)],
    [(260, [129, 127, 128])],
    [(90, [7, 9])] * 5,
]
# Of the norm: products of bfloat16 are rounded to 8 bits, and the reference has none of it.
BOUNDS = {torch.bfloat16: 1e-2, torch.float32: 1e-4}


def segments_of(rows: list[tuple[int, list[int]]]) -> torch.Tensor:
    width = max(prompt + sum(answers) for prompt, answers in rows)
    made = []
    for prompt, answers in rows:
        row = [PROMPT] * prompt + [g for g, length in enumerate(answers) for _ in range(length)]
        made.append(row + [PADDING] * (width - len(row)))
    return torch.tensor(made, device="cuda")


def queries_of(rows: list[tuple[int, list[int]]]) -> torch.Tensor:
    width = max(prompt + sum(answers) for prompt, answers in rows)
    most = max(1 + sum(answers) for _, answers in rows)
    starts = torch.tensor([prompt - 1 for prompt, _ in rows])
    return (starts[:, None] + torch.arange(most)).clamp(max=width - 1).cuda()


def relative(found: torch.Tensor, reference: torch.Tensor) -> float:
    return float((found.double() - reference.double()).norm() / reference.double().norm())


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, torch.bfloat16) for name in HEADS), ("Qwen2.5-Omni-7B", torch.float32)]
)
@pytest.mark.parametrize("last_layer", [False, True], ids=["everywhere", "at the answers"])
def test_blocks_give_the_references_values_and_gradients(name, dtype, last_layer, note):
    heads, key_heads = HEADS[name]
    worst = 0.0
    for rows in BATCHES:
        segments = segments_of(rows)
        queries = queries_of(rows) if last_layer else None
        b, n = segments.shape
        asked = n if queries is None else queries.shape[1]
        torch.manual_seed(0)
        q, k, v = (
            torch.randn(b, t, h, 128, device="cuda").to(dtype).transpose(1, 2)
            for h, t in ((heads, asked), (key_heads, n), (key_heads, n))
        )
        gradient = torch.randn(b, heads, asked, 128, device="cuda").to(dtype)
        assert isinstance(tree_of(segments), BlockTree)
        found = {}
        for kind, precision in ((BlockTree, dtype), (DenseTree, torch.float32)):
            leaves = [x.detach().to(precision).requires_grad_() for x in (q, k, v)]
            out = kind(segments).attend(*leaves, queries)
            out.backward(gradient.to(precision))
            found[kind] = [out.detach(), *(leaf.grad for leaf in leaves)]
        errors = [relative(ours, theirs) for ours, theirs in zip(found[BlockTree], found[DenseTree], strict=True)]
        assert all(error <= BOUNDS[dtype] for error in errors), (rows, errors)
        worst = max(worst, *errors)
    note(f"largest relative error, {name}, {dtype}, {'last layer' if last_layer else 'all layers'}", worst)


def test_it_is_compiled_once_for_all_lengths_and_numbers_of_rows(monkeypatch, note):
    """Where a compiler gives up after too many shapes, flex attention keeps all pairs' scores, unsaid."""
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    for n_rows in range(1, 5):
        for prompt in (100, 517, 1203):
            segments = segments_of([(prompt, [33, 50])] * n_rows)
            q, k, v = (
                torch.randn(n_rows, segments.shape[1], h, 128, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
                for h in (28, 4, 4)
            )
            BlockTree(segments).attend(q.requires_grad_(), k, v).sum().backward()
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    note("compiled graphs for 12 shapes", graphs)
    assert graphs <= 3


def test_the_benchmark_holds(note):
    """Memory linear in the tokens, and less than the dense path's; not slower at 10,000 tokens."""
    script = ROOT / "experiments" / "benchmarks" / "attention.py"
    done = subprocess.run(
        [sys.executable, str(script), "--device", "cuda"], capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.stdout.strip(), done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    note("benchmark", result["figures"])
    assert result["holds"], result
