"""Samples of any rate turned into the model's, piece by piece: the same result whatever the chunks they come in.

The filter is the one that whole files are read with (`timepro.data.audio`), run over blocks at fixed places of the
stream, each with more of its neighbours than the filter reaches.
"""

from __future__ import annotations

import math

import numpy as np

_BLOCK_S = 0.5
_CONTEXT = 64  # samples at the lower rate beside a block; the filter reaches over 7
_LARGEST_FILTER = 1 << 26  # numbers; two rates without a common divisor need one filter a sample of a second


class Resampler:
    """Resamples one stream.

    Args:
        rate, target: samples a second, before and after.

    Raises:
        ValueError: rates that are not positive, or that have too little in common.
    """

    def __init__(self, rate: int, target: int) -> None:
        if rate < 1 or target < 1:
            raise ValueError(f"the sample rates {rate} and {target} Hz must be at least 1")
        divisor = math.gcd(rate, target)
        self._rate, self._target = rate, target
        self._period, self._made = rate // divisor, target // divisor  # so many samples become so many
        if self._period * self._made > _LARGEST_FILTER:
            raise ValueError(
                f"{rate} Hz cannot be resampled to {target} Hz; convert the audio to 48000 or 44100 Hz first"
            )
        self._block = self._period * max(1, round(_BLOCK_S * rate / self._period))
        self._context = self._period * math.ceil(_CONTEXT * max(1.0, rate / target) / self._period)
        self._held: list[np.ndarray] = []
        self._count = 0  # samples held
        self._before = 0  # of them, context before the next block

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take the next samples (N,), float32; gives what is ready, possibly nothing."""
        if self._rate == self._target:
            return samples
        if len(samples):
            self._held.append(np.array(samples, dtype=np.float32))
            self._count += len(samples)
        pieces = []
        while self._count >= self._before + self._block + self._context:
            pieces.append(self._next_block())
        return np.concatenate(pieces) if pieces else np.empty(0, np.float32)

    def finish(self) -> np.ndarray:
        """The stream has ended: the rest of it."""
        if self._rate == self._target or self._count == self._before:
            return np.empty(0, np.float32)
        rest = self._convert(np.concatenate(self._held))[self._before // self._period * self._made :]
        self._held, self._count, self._before = [], 0, 0
        return rest

    def _next_block(self) -> np.ndarray:
        held = self._held[0] if len(self._held) == 1 else np.concatenate(self._held)
        reach = self._before + self._block
        out = self._convert(held[: reach + self._context])
        kept_from = max(0, reach - self._context)
        self._held, self._count = [held[kept_from:]], len(held) - kept_from
        first = self._before // self._period * self._made
        self._before = reach - kept_from
        return out[first : first + self._block // self._period * self._made]

    def _convert(self, samples: np.ndarray) -> np.ndarray:
        import torch
        from torchaudio.functional import resample

        return resample(torch.from_numpy(np.ascontiguousarray(samples)), self._rate, self._target).numpy()
