"""A function of tensors on a card, compiled once for all numbers of tokens."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

# Graphs of one function in a process. Training or not, all layers or the last, each model: a graph of its own, and
# torch takes some sizes for constants. Behind the limit comes an error; torch's own limit is 8.
_GRAPHS = 32


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one graph: an error where it would have to run uncompiled, in other kernels and more memory."""
    made = torch.compile(function, dynamic=True, fullgraph=True)

    @functools.wraps(function)
    def call(*arguments: Any, **settings: Any) -> Any:
        with torch._dynamo.config.patch(recompile_limit=_GRAPHS):
            try:
                return made(*arguments, **settings)
            except AssertionError as error:
                # torch 2.11 sometimes settles on its number of CPU threads while it compiles, and takes the change for
                # an error. It changes once.
                if "num_threads state changed" not in str(error):
                    raise
                return made(*arguments, **settings)

    return call
