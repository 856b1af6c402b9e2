"""A checkpoint brought under ZeRO-3 without any rank ever holding all of it.

The model is first made hollow: every weight has its shape, and storage for one number alone, which is NaN. Then rank 0
reads one weight after the other from the checkpoint's files and broadcasts it, and every rank keeps its part. So a rank
needs room for its part of the model and for one weight. The audio encoder, which every rank keeps whole, is read by
every rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timepro.checkpoints import StoredTensor, read_header, weight_files
from timepro.families import ModelFamily
from trainer.learner import distributed


class WeightSource:
    """The weights of a checkpoint folder by their published names, read one at a time.

    Raises:
        ValueError: the folder holds no weights, or a file that is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.tensors: dict[str, StoredTensor] = {}
        for path in weight_files(folder):
            self.tensors |= read_header(path)[0]

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """A weight as a new tensor."""
        return self.tensors[name].read().to(dtype)

    def require(self, name: str) -> None:
        """Raises ValueError where the checkpoint does not have a weight."""
        if name not in self.tensors:
            raise ValueError(
                f"{self._folder} holds no weight {name}, which its config.json asks for; fetch the checkpoint again, "
                "or write it again with this project"
            )


def load_hollow(folder: Path, family: ModelFamily, dtype: torch.dtype) -> tuple[nn.Module, WeightSource]:
    """A checkpoint's model whose weights are hollow, but for the audio encoder and buffers, and where they lie.

    Raises:
        ValueError: the checkpoint lacks a weight of the decoder or of the encoder.
    """
    source = WeightSource(folder)
    model: Any = family.load(folder, dtype, {name: _hollow(stored, dtype) for name, stored in source.tensors.items()})
    encoder = family.audio_encoder(model)
    decoder = (family.text_model(model), model.lm_head, model.get_input_embeddings())
    partitioned = {id(parameter) for part in decoder for parameter in part.parameters()}
    whole = {id(parameter) for parameter in encoder.parameters()}
    whole |= {id(buffer) for part in (encoder, *decoder) for buffer in part.buffers()}
    for name, parameter in model.named_parameters():
        if id(parameter) in partitioned | whole:
            source.require(family.checkpoint_name(name))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if id(tensor) in whole and is_hollow(tensor):
            tensor.data = source.read(family.checkpoint_name(name), tensor.dtype)
    return model, source


def _hollow(stored: StoredTensor, dtype: torch.dtype) -> Tensor:
    if math.prod(stored.shape) < 2:
        return stored.read().to(dtype)
    return torch.full((), torch.nan, dtype=dtype).expand(stored.shape)


def is_hollow(tensor: Tensor) -> bool:
    """Whether a tensor has a shape, but no memory for it."""
    return tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size()


def partition(module: nn.Module, source: WeightSource, names: Mapping[int, str], config: Mapping[str, Any]) -> None:
    """Give every rank its part of a module's parameters; hollow ones are filled one by one. A collective.

    Args:
        names: published names of the hollow parameters by their identity.
        config: DeepSpeed's.

    """
    import deepspeed

    first: Any = None
    for parameter in module.parameters():
        if is_hollow(parameter):
            parameter.data = _whole(parameter, source, names[id(parameter)])
        if first is None:
            deepspeed.zero.Init(module=nn.ParameterList([parameter]), config_dict_or_path=dict(config))
            first = parameter
        else:
            first.convert_to_zero_parameters(param_list=[parameter])
    # DeepSpeed moves a module to its device only where it partitions the parameters itself.
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            part.register_buffer(name, buffer.to(distributed.device()), name not in part._non_persistent_buffers_set)


def _whole(parameter: nn.Parameter, source: WeightSource, name: str) -> Tensor:
    """A hollow parameter's values on rank 0, and room for them elsewhere."""
    if distributed.is_first():
        return source.read(name, parameter.dtype)
    return torch.empty(parameter.shape, dtype=parameter.dtype, device=distributed.device())
