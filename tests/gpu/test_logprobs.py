"""Chunked log-probabilities on the card at the published vocabulary, against full logits in float64."""

from __future__ import annotations

import torch
from torch import nn

from trainer.learner.head import Head

TOKENS, WIDTH, VOCABULARY = 700, 1024, 152_832
BOUND = 2e-2  # of the norm: products and states in bfloat16


def test_values_entropies_and_gradients_are_those_of_full_logits(note):
    torch.manual_seed(0)
    linear = nn.Linear(WIDTH, VOCABULARY, bias=False, device="cuda", dtype=torch.bfloat16)
    hidden = torch.randn(TOKENS, WIDTH, device="cuda").bfloat16().requires_grad_()
    targets = torch.randint(0, VOCABULARY - 10, (TOKENS,), device="cuda")
    banned = torch.arange(VOCABULARY - 10, VOCABULARY, device="cuda")
    temperatures = torch.full((TOKENS,), 0.7, device="cuda")
    advantages = torch.randn(TOKENS, device="cuda")
    head = Head(linear, banned, chunk_mib=64.0)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    logprobs, entropies = head(hidden, targets, temperatures, torch.zeros(TOKENS, dtype=torch.bool, device="cuda"))
    (logprobs * advantages).sum().backward()
    note("peak MiB above the inputs", (torch.cuda.max_memory_allocated() - before) / 2**20)
    note("MiB of one full float32 tensor of logits", TOKENS * VOCABULARY * 4 / 2**20)

    leaf, weight = hidden.detach().double().requires_grad_(), linear.weight.detach().double().requires_grad_()
    logits = (leaf @ weight.T / 0.7).index_fill(-1, banned, -torch.inf)
    full = logits.log_softmax(-1)
    expected = full.gather(-1, targets[:, None])[:, 0]
    (expected * advantages).sum().backward()
    assert float((logprobs - expected).abs().max()) <= 0.05
    p = full.exp()
    torch.testing.assert_close(entropies.double(), -(p * full.masked_fill(p == 0, 0)).sum(-1), rtol=0, atol=0.05)
    for name, ours, theirs in (("states", hidden.grad, leaf.grad), ("weight", linear.weight.grad, weight.grad)):
        error = float((ours.double() - theirs).norm() / theirs.norm())
        note(f"relative error of the gradient of the {name}", error)
        assert error <= BOUND
