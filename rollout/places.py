"""Where published tensors lie in a worker's model, for weights that go straight there.

vLLM loads weights layer by layer into fresh memory, since some formats change them on the way (quantisation, packing).
An unquantised model keeps every published tensor as it is, or as some rows of a fused one. The way to each is found by
loading tensors without memory and recording what would be copied where, so vLLM's own loaders say it. Anything that is
not a plain copy of a whole tensor of the same type means that this model has no places, and takes whole streams through
vLLM's loading alone: `NoPlaces` says why.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
)

from rollout.delta import Change, StateChecksum, bits
from rollout.kept_weights import KeptLinearMethod


class NoPlaces(ValueError):
    """Why a model's published tensors cannot be written to where they lie."""


@dataclass
class _Applied:
    """One change that was made, and the bits that were there before."""

    place: Tensor
    indices: Tensor
    before: Tensor


class Places:
    """The places of a stream's tensors in a model.

    Args:
        model: vLLM's, as it generates.
        names, shapes, dtypes: of the stream's tensors, as published.

    Raises:
        NoPlaces: with the reason.
    """

    def __init__(
        self, model: nn.Module, names: Sequence[str], shapes: Sequence[Sequence[int]], dtypes: Sequence[torch.dtype]
    ) -> None:
        copies = _recorded_copies(model, names, shapes, dtypes)
        self._flat = {name: _flat_place(name, copies[name]) for name in names}
        self._owners = _owners(model, self._flat)
        _require_whole_parameters(self._flat, self._owners)
        self._waits: Counter[nn.Module] = Counter()
        self._applied: list[_Applied] = []
        self._where = [(*owner, self._pointer(owner)) for owners in self._owners.values() for owner in owners]

    def holds(self, names: Sequence[str]) -> bool:
        """Whether these are the tensors, and the model still computes with the memory that they lie in."""
        still = all(self._pointer((module, name)) == pointer for module, name, pointer in self._where)
        return still and list(self._flat) == list(names)

    @staticmethod
    def _pointer(owner: tuple[nn.Module, str]) -> int:
        return getattr(*owner).data_ptr()

    def begin(self) -> None:
        """Expect a whole stream."""
        self._waits = Counter(owner for owners in self._owners.values() for owner, _ in owners)

    @torch.no_grad()
    def load(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Copy whole tensors to their places; layers that have all of theirs are ready to compute."""
        for name, tensor in tensors:
            self._flat[name].copy_(tensor.flatten())
            for owner, _ in self._owners[name]:
                self._waits[owner] -= 1
                if not self._waits[owner]:
                    _renew(owner)

    @torch.no_grad()
    def apply(self, changes: Mapping[str, Change], ranks: int, progress: Callable[[], None]) -> int:
        """Put changed numbers in. Layers compute with them after `renew`; `undo` takes them back.

        Args:
            changes: by the tensors' names.
            ranks: of the learner.
            progress: called after every tensor.

        Returns:
            the checksum of all numbers as they lie in the model then, as so many ranks share them out.
        """
        with StateChecksum(ranks) as checksum:
            for name, flat in self._flat.items():
                if (change := changes.get(name)) is not None:
                    place, indices = bits(flat), change.indices.to(flat.device, torch.int64)
                    self._applied.append(_Applied(place, indices, place.index_select(0, indices)))
                    place.index_copy_(0, indices, change.values.to(flat.device))
                checksum.add(flat)
                progress()
            return checksum.value()

    def renew(self) -> None:
        """Have all layers compute with what lies in their places now."""
        for owner in {owner for owners in self._owners.values() for owner, _ in owners}:
            _renew(owner)

    @torch.no_grad()
    def undo(self) -> int:
        """Put back what lay there before `apply`, which was not accepted; returns how many numbers."""
        undone, applied = 0, self._applied
        for one in reversed(applied):
            one.place.index_copy_(0, one.indices, one.before)
            undone += one.indices.numel()
        self._applied = []
        if applied:
            self.renew()
        return undone

    def accept(self) -> None:
        """What was applied stays."""
        self._applied = []


class _Recorder(TorchDispatchMode):
    """Writes down copies from tensors without memory instead of making them."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default and args[1].is_meta:
            self.copies.append((args[0], args[1]))
            return args[0]
        return func(*args, **(kwargs or {}))


def _recorded_copies(
    model: nn.Module, names: Sequence[str], shapes: Sequence[Sequence[int]], dtypes: Sequence[torch.dtype]
) -> Mapping[str, list[tuple[Tensor, Tensor]]]:
    """By name: (place, what of the published tensor goes there)."""
    probes = {
        name: torch.empty(tuple(shape), dtype=dtype, device="meta")
        for name, shape, dtype in zip(names, shapes, dtypes, strict=True)
    }
    by_storage = {probe.untyped_storage()._cdata: name for name, probe in probes.items()}
    recorder = _Recorder()
    try:
        with torch.no_grad(), recorder:
            model.load_weights(iter(probes.items()))  # type: ignore[operator]  # a vLLM model's, not a tensor
    except Exception as error:  # noqa: BLE001 - vLLM's loaders say in many ways that they have no place for a tensor
        raise NoPlaces(f"vLLM's loaders do not take them as they lie ({type(error).__name__}: {error})") from None
    found: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for place, source in recorder.copies:
        name = by_storage.get(source.untyped_storage()._cdata)
        if name is None:
            raise NoPlaces("vLLM's loaders compute on a tensor before they copy it")
        found[name].append((place, source))
    return found


def _flat_place(name: str, copies: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Where a tensor lies, flat."""
    if len(copies) != 1:
        raise NoPlaces(f"{name} is copied to {len(copies)} places, not to one")
    ((place, source),) = copies
    whole = source.is_contiguous() and source.numel() * source.itemsize == source.untyped_storage().nbytes()
    if not whole or place.shape != source.shape:
        raise NoPlaces(f"{name} is cut on its way (tensor parallelism does so)")
    if place.dtype != source.dtype:
        raise NoPlaces(f"{name} comes as {source.dtype} and is kept as {place.dtype}")
    if not place.is_contiguous() or place.is_meta:
        raise NoPlaces(f"{name} does not lie in one piece of memory")
    return place.detach().view(-1)


def _owners(model: nn.Module, flat: Mapping[str, Tensor]) -> dict[str, list[tuple[nn.Module, str]]]:
    """The layers that have each tensor in one of their parameters, and the parameter's name."""
    by_storage: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                by_storage[parameter.untyped_storage().data_ptr()].append((module, name))
    found = {}
    for name, place in flat.items():
        owners = by_storage.get(place.untyped_storage().data_ptr(), [])
        for owner, _ in owners:
            method = getattr(owner, "quant_method", None)
            if method is not None and type(method) not in _PLAIN_METHODS:
                raise NoPlaces(f"{name} is in a layer of {type(method).__name__}, which keeps weights in another form")
        if not owners:
            raise NoPlaces(f"{name} is in no layer's parameter")
        found[name] = owners
    return found


_PLAIN_METHODS = (UnquantizedLinearMethod, KeptLinearMethod, UnquantizedEmbeddingMethod)


def _require_whole_parameters(flat: Mapping[str, Tensor], owners: Mapping[str, list[tuple[nn.Module, str]]]) -> None:
    """A stream that fills a part of a fused parameter would leave a mixture of two versions."""
    filled: Counter[int] = Counter()
    for place in flat.values():
        filled[place.untyped_storage().data_ptr()] += place.numel()
    for name, found in owners.items():
        for module, parameter in found:
            tensor = getattr(module, parameter)
            padded = isinstance(module, VocabParallelEmbedding)  # its padding is never streamed
            if filled[tensor.untyped_storage().data_ptr()] != tensor.numel() and not padded:
                raise NoPlaces(f"the stream holds a part of {type(module).__name__}.{parameter} alone, with {name}")


def _renew(layer: nn.Module) -> None:
    """Have a layer compute with its weights as they are now: on a CPU, pack them again."""
    method = getattr(layer, "quant_method", None)
    looks_up_alone = isinstance(layer, VocabParallelEmbedding) and not isinstance(layer, ParallelLMHead)
    if method is not None and not looks_up_alone:
        method.process_weights_after_loading(layer)
