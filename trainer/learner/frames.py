"""Encoded audio frames of clips, each clip encoded once.

While the encoder is frozen its output for a clip never changes, so frames are kept in memory up to a limit: the G
answers of a group share them, and so do later epochs. What is known to be needed next is read and turned into features
in another thread meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

from timepro.features import Processor

_READING_S = 600.0  # for one clip that is read ahead; a file system that takes longer is down


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
        self._reader: ThreadPoolExecutor | None = None
        self._ahead: dict[Path, Future[Tensor]] = {}
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
            found |= self._encode(part, [self._features(path) for path in part])
        return [found[path] for path in paths]

    def read_ahead(self, paths: Sequence[Path]) -> None:
        """Compute the features of clips that are asked for next, in another thread; of nothing else than these."""
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, thread_name_prefix="features")
        for path in self._ahead.keys() - set(paths):
            self._ahead.pop(path).cancel()
        for path in dict.fromkeys(paths):
            if path not in self._frames and path not in self._ahead:
                self._ahead[path] = self._reader.submit(self._processor.features, path)

    def _features(self, path: Path) -> Tensor:
        ahead = self._ahead.pop(path, None)
        return self._processor.features(path) if ahead is None else ahead.result(_READING_S)

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
