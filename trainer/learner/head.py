"""The output head: log-probabilities of chosen tokens, a few tokens' logits at a time.

With a vocabulary of 150,000 the logits of a micro-batch are gigabytes, so they are made in chunks of tokens, and made
again in the backward pass. To ZeRO-3 the head is one module that runs once a pass, however many chunks there are:
ranks have different numbers of answer tokens, and a rank that gathered the weight once a chunk would wait for ranks
that have no chunk left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.learner.soft_time import SoftTime

_ROWS = 1 << 14  # of the weight, in one product of the backward pass


@dataclass(frozen=True)
class Wanted:
    """What is asked of K tokens' logits.

    Args:
        targets: (K,) the tokens whose log-probabilities are wanted.
        temperatures: (K,).
        banned: ids without probability.
        supervised: (K,) bool; these get `soft_time`'s target where there is one.
    """

    targets: Tensor
    temperatures: Tensor
    banned: Tensor
    supervised: Tensor
    soft_time: SoftTime | None = None

    def logprobs(self, hidden: Tensor, weight: Tensor, part: slice) -> Tensor:
        """(k, V) of some of the tokens, as the worker's sampler sees them."""
        logits = _logits(hidden[part], weight).div_(self.temperatures[part, None])
        return logits.index_fill_(-1, self.banned, float("-inf")).log_softmax(-1)

    def picked(self, logprobs: Tensor, part: slice) -> Tensor:
        """(k,) out of (k, V)."""
        targets = self.targets[part]
        plain = logprobs.gather(-1, targets[:, None])[:, 0]
        if self.soft_time is None:
            return plain
        return torch.where(self.supervised[part], self.soft_time.expected(logprobs, targets), plain)

    def logit_gradient(self, logprobs: Tensor, part: slice, gradient: Tensor) -> Tensor:
        """(k, V): the gradient of some tokens' logits from that (k,) of what `picked` gives."""
        leaf = logprobs.detach().requires_grad_()
        with torch.enable_grad():
            picked = self.picked(leaf, part)
        (found,) = torch.autograd.grad(picked, leaf, gradient)
        found.addcmul_(logprobs.exp(), found.sum(-1, keepdim=True), value=-1.0)  # through the softmax
        return found.div_(self.temperatures[part, None]).index_fill_(-1, self.banned, 0.0)


class Head(nn.Module):
    """A checkpoint's output head.

    Args:
        linear: the model's own; its weight is taken, not copied.
        banned: ids that are never sampled.
        chunk_mib: size of one chunk's logits in float32; a few tensors of that size exist at the same time.

    Raises:
        ValueError: a chunk size that is not above 0, or a head with a bias.
    """

    def __init__(self, linear: nn.Linear, banned: Tensor, chunk_mib: float) -> None:
        super().__init__()
        if chunk_mib <= 0:
            raise ValueError(f"batch.logit_chunk_mib is {chunk_mib}; it must be above 0")
        bias: Tensor | None = linear.bias
        if bias is not None:
            raise ValueError("the checkpoint's output head has a bias; only heads without one are supported")
        self.weight: Any = linear.weight  # shared with the model: a parameter
        self.chunk: int = max(1, int(chunk_mib * 2**20) // (4 * linear.weight.shape[0]))  # tokens
        self.soft_time: SoftTime | None = None  # of supervised answers, in training alone
        self.banned: Tensor
        self.register_buffer("banned", banned, persistent=False)

    def forward(
        self, hidden: Tensor, targets: Tensor, temperatures: Tensor, supervised: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities (K,) and entropies (K,) of tokens from the hidden states (K, H) that predict them.

        Only the log-probabilities have a gradient.
        """
        soft_time = self.soft_time if self.training else None
        wanted = Wanted(targets, temperatures, self.banned, supervised, soft_time)
        return _TokenScores.apply(hidden, self.weight, wanted, self.chunk)


class _TokenScores(torch.autograd.Function):
    """`Head` in chunks, whose backward pass makes a chunk's logits again, unless there is only one.

    The weight's gradient is summed over chunks in float32: a hundred chunks summed in bfloat16 would lose most of what
    each adds.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, wanted: Wanted, chunk: int) -> tuple[Tensor, Tensor]:
        ctx.wanted, ctx.chunk = wanted, chunk
        logprobs, entropies = [], []
        for part in _parts(len(hidden), chunk):
            found = wanted.logprobs(hidden, weight, part)
            logprobs.append(wanted.picked(found, part))
            p = found.exp()
            entropies.append(-p.mul_(found.masked_fill(p == 0, 0.0)).sum(-1))
        # Under ZeRO-3 the weight is the parameter itself, which is gathered again by the backward pass.
        ctx.save_for_backward(hidden, weight, *([found] if len(logprobs) == 1 else []))
        entropy = torch.cat(entropies)
        ctx.mark_non_differentiable(entropy)
        return torch.cat(logprobs), entropy

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        hidden, weight, *kept = ctx.saved_tensors
        dtype = _product_dtype(weight)
        of_hidden = torch.zeros_like(hidden, dtype=torch.float32)
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for part in _parts(len(hidden), ctx.chunk):
            logprobs = kept[0] if kept else ctx.wanted.logprobs(hidden, weight, part)
            of_logits = ctx.wanted.logit_gradient(logprobs, part, gradient[part]).to(dtype)
            del logprobs
            states = hidden[part].to(dtype)
            for start in range(0, len(weight), _ROWS):
                rows = slice(start, start + _ROWS)
                of_hidden[part] += of_logits[:, rows] @ weight[rows].to(dtype)
                if of_weight is not None:
                    of_weight[rows] += of_logits[:, rows].T @ states
        return of_hidden.to(hidden.dtype), None if of_weight is None else of_weight.to(weight.dtype), None, None


def _logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """(k, V), in float32."""
    dtype = _product_dtype(weight)
    return F.linear(hidden.to(dtype), weight.to(dtype)).float()


def _product_dtype(weight: Tensor) -> torch.dtype:
    """The dtype to multiply in. Without hardware for it a CPU takes a hundred times as long in bfloat16."""
    return torch.float32 if weight.device.type == "cpu" else weight.dtype


def _parts(n: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, n)) for start in range(0, n, chunk)]
