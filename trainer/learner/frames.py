"""Encoded audio frames of clips, each clip encoded once.

While the encoder is frozen its output for a clip never changes, so frames are kept in memory up to a limit: the G
answers of a group share them, and so do later epochs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from timepro.features import Processor


class FrameCache:
    """Audio files in, encoded frames (F, H) out.

    Args:
        encoder: the frozen audio encoder.
        limit_gib: memory for kept frames; the least recently used go first. 0 keeps nothing.
        batch: clips encoded together.
    """

    def __init__(self, encoder: nn.Module, processor: Processor, limit_gib: float, batch: int = 16) -> None:
        self._encoder, self._processor, self._batch = encoder, processor, batch
        self._limit = int(limit_gib * 2**30)
        self._frames: OrderedDict[Path, Tensor] = OrderedDict()
        self._bytes = 0
        self.encoded = 0  # clips that went through the encoder

    def __call__(self, paths: Sequence[Path]) -> list[Tensor]:
        """Frames of each file, in order; on the encoder's device.

        Raises:
            ValueError: a file that cannot be read, naming it.
        """
        found = {path: self._frames[path] for path in paths if path in self._frames}
        for path in found:
            self._frames.move_to_end(path)
        missing = [path for path in dict.fromkeys(paths) if path not in found]
        for start in range(0, len(missing), self._batch):
            part = missing[start : start + self._batch]
            found |= self._encode(part, [self._processor.features(path) for path in part])
        return [found[path] for path in paths]

    def add(self, paths: Sequence[Path], features: Sequence[Tensor]) -> None:
        """Encode clips whose features are at hand, as far as there is room to keep them.

        Args:
            features: (128, M + margin) each, as `Processor.features` makes them, in any precision.
        """
        for start in range(0, len(paths), self._batch):
            if self._bytes >= self._limit:
                return
            self._encode(paths[start : start + self._batch], features[start : start + self._batch])

    @torch.no_grad()
    def _encode(self, paths: Sequence[Path], features: Sequence[Tensor]) -> dict[Path, Tensor]:
        parameter = next(self._encoder.parameters())
        inputs = [f.to(parameter.device, parameter.dtype) for f in features]
        found = {}
        for path, frames in zip(paths, self._processor.family.encode(self._encoder, inputs), strict=True):
            found[path] = frames.clone()  # a view would keep its whole batch alive
            self._keep(path, found[path])
        self.encoded += len(paths)
        return found

    def _keep(self, path: Path, frames: Tensor) -> None:
        size = frames.numel() * frames.element_size()
        if size > self._limit:
            return
        self._frames[path] = frames
        self._bytes += size
        while self._bytes > self._limit:
            _, oldest = self._frames.popitem(last=False)
            self._bytes -= oldest.numel() * oldest.element_size()
