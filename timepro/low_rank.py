"""A linear layer with a low-rank adapter, computed alike by learner and worker: `x W^T + s (x A^T) B^T + b`.

In bfloat16 an adapter of RL's size disappears in two places. `W + s B A` rounds back to W, since W has no digits left
for it. And so does a layer's output where the adapter's part is added to it: both have been rounded by then, and the
part is less than half of the output's last digit. Here the adapter stays apart from W, its numbers keep what they
have in float32 (as two bfloat16 numbers each), and its part is added inside the matrix product, before the one
rounding: single outputs are then as coarse as ever, but their means move by the adapter's part.
"""

from __future__ import annotations

import torch
from torch import Tensor


def split(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """A float32 matrix as a sum of matrices in another type: (1, ...) in float32, else (2, ...), coarse part first."""
    coarse = matrix.to(dtype)
    if dtype == torch.float32:
        return coarse[None]
    return torch.stack([coarse, (matrix.float() - coarse.float()).to(dtype)])


def kept(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """What is left of a float32 matrix after `split`, in float32."""
    return split(matrix, dtype).float().sum(0)


def beside(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """The parts of `split` side by side: (O, R) to (O, P R), as `widen` takes it."""
    return torch.cat(list(split(matrix, dtype)), dim=1)


def narrow(x: Tensor, down: Tensor) -> Tensor:
    """The low-rank inputs.

    Args:
        x: (N, I).
        down: (P, R, I), A from `split`.

    Returns:
        (N, R), rounded once.
    """
    h = product(x, down[-1])
    return h if len(down) == 1 else product(x, down[0], h)


def widen(h: Tensor, up: Tensor) -> Tensor:
    """The adapter's part of the outputs.

    Args:
        h: (N, R) from `narrow`.
        up: (O, P R), the scaled B from `beside`.

    Returns:
        (N, O), rounded once.
    """
    parts = up.shape[1] // h.shape[1]
    return product(torch.cat([h] * parts, dim=1) if parts > 1 else h, up)


def add_linear(added: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, overwrite: bool = False) -> Tensor:
    """(N, O) `added + x W^T`, rounded once, then the bias (a second rounding: no matrix product takes both).

    Args:
        overwrite: `added` is of no use any more, and its memory may hold the result.
    """
    if overwrite and not _slow(x):
        y = added.addmm_(x, weight.t())
        return y if bias is None else y.add_(bias)
    y = product(x, weight, added)
    return y if bias is None else y + bias


def product(x: Tensor, weight: Tensor, added: Tensor | None = None) -> Tensor:
    """(N, O) `x W^T + added` for x (N, I) and W (O, I), summed in float32 and rounded once."""
    if _slow(x):
        y = x.float() @ weight.float().t()
        return (y if added is None else y.add_(added)).to(x.dtype)
    return x @ weight.t() if added is None else torch.addmm(added, x, weight.t())


def _slow(x: Tensor) -> bool:
    """Whether torch multiplies by single numbers: in bfloat16 on most CPUs, eight times as long as in float32."""
    return x.device.type == "cpu" and x.dtype != torch.float32
