"""What the backward pass needs, kept in main memory (`batch.offload_activations`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


@dataclass(frozen=True)
class _Weight:
    """A saved tensor that is a parameter, or its transpose: found again by the backward pass, not kept."""

    parameter: nn.Parameter
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        if self.parameter.numel() == 0:
            raise RuntimeError("batch.offload_activations: the backward pass needs a weight that ZeRO-3 has released")
        whole = self.parameter.detach()
        return whole.as_strided(self.size, self.stride, whole.storage_offset())


class OffloadedActivations(saved_tensors_hooks):
    """While open, tensors saved for the backward pass go to main memory; weights do not.

    Autograd saves weights too. A copy of each would move the whole model at every pass, where ZeRO-3 gathers a layer's
    weights for the backward pass anyway.

    Args:
        parameters: of the model, partitioned or not.
        pin_memory: page-locked memory, which a GPU copies to and from faster.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], pin_memory: bool) -> None:
        self.moved_bytes = self.weight_bytes = 0
        self._pin_memory = pin_memory
        self._by_size: dict[int, list[nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            self._by_size[getattr(parameter, "ds_numel", parameter.numel())].append(parameter)
        super().__init__(self._pack, self._unpack)

    def _pack(self, tensor: Tensor) -> _Weight | tuple[torch.device, Tensor]:
        n_bytes = tensor.numel() * tensor.element_size()
        for parameter in self._by_size.get(tensor.numel(), ()):
            if parameter.numel() and parameter.data_ptr() == tensor.data_ptr():
                self.weight_bytes += n_bytes
                return _Weight(parameter, tuple(tensor.shape), tensor.stride())
        self.moved_bytes += n_bytes
        if tensor.device.type == "cpu":
            return tensor.device, tensor
        # With the same strides, which compiled attention counts on in its backward pass.
        kept = torch.empty_like(tensor, device="cpu", pin_memory=self._pin_memory)
        return tensor.device, kept.copy_(tensor)

    def _unpack(self, packed: _Weight | tuple[torch.device, Tensor]) -> Tensor:
        if isinstance(packed, _Weight):
            return packed.tensor()
        device, kept = packed
        return kept.to(device, non_blocking=self._pin_memory)
