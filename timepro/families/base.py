"""What the learner needs to know of a backbone, and how a checkpoint folder finds its family."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"  # as both families spell them


class ModelFamily(ABC):
    """One backbone family. Stateless: every method takes the model or configuration it speaks of.

    A third family is one file: a subclass, and its place in `all_families`.
    """

    name: str
    model_type: str  # of `config.json`
    vllm_architecture: str  # registered by `rollout.plugin`
    frame_rate: float  # audio frames a second behind the encoder
    mel_margin: int = 0  # mel frames behind the clip (silence) that the encoder's convolutions see
    decoder_prefix: str  # of the decoder's parameters in the Hugging Face model
    embedding_name: str  # published names of the input embeddings and of the output head
    head_name: str
    source_types: tuple[str, ...]  # model types that `timepro init-model` reads

    @abstractmethod
    def load(self, folder: str | Path, dtype: torch.dtype) -> nn.Module:
        """The Hugging Face model of a checkpoint folder, in evaluation mode."""

    @abstractmethod
    def text_side_config(self, config: Any) -> Any:
        """The part of the configuration that holds `astp` and the token ids."""

    @abstractmethod
    def audio_token_id(self, config: Any) -> int:
        """Id of the audio placeholder."""

    @abstractmethod
    def audio_frames(self, mel_frames: int) -> int:
        """F, the encoder's output length for M mel frames (100 Hz)."""

    @abstractmethod
    def audio_encoder(self, model: nn.Module) -> nn.Module:
        """The audio encoder alone, as a module that `encode` runs."""

    @abstractmethod
    def encode(self, encoder: nn.Module, features: Sequence[Tensor]) -> list[Tensor]:
        """Audio frames of clips of any lengths.

        Args:
            features: one log-mel tensor (128, M + mel_margin) a clip.

        Returns:
            one tensor (F, H) a clip.
        """

    @abstractmethod
    def text_model(self, model: nn.Module) -> nn.Module:
        """The decoder without its head: takes `inputs_embeds`, gives hidden states."""

    @abstractmethod
    def answer_states(
        self, text_model: nn.Module, inputs_embeds: Tensor, positions: Tensor, mask: Tensor | None, queries: Tensor
    ) -> Tensor:
        """Final hidden states where answers are predicted.

        Args:
            inputs_embeds: (B, T, H).
            positions: (B, T).
            mask: boolean (B, T, T); None for causal attention.
            queries: (B, Q) indices into T.

        Returns:
            (B, Q, H).
        """

    def whole_config(self, raw: dict[str, Any]) -> dict[str, Any]:
        """The `config.json` to write for one of a source type; changed in place and returned."""
        return raw

    @abstractmethod
    def config_parts(self, raw: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of a whole `config.json`: the part that holds `astp` and token ids, and the decoder's."""

    def kept_name(self, published: str) -> str | None:
        """The name under which a source checkpoint's tensor is kept; None for what this project never runs."""
        return published

    @abstractmethod
    def checkpoint_name(self, parameter: str) -> str:
        """A live parameter's name in the published checkpoint layout (what vLLM's loader expects)."""


def all_families() -> tuple[ModelFamily, ...]:
    """Every supported family."""
    from timepro.families.qwen2_5_omni import Qwen25Omni
    from timepro.families.qwen2_audio import Qwen2Audio

    return Qwen25Omni(), Qwen2Audio()


def family_of(folder: str | Path, source: bool = False) -> ModelFamily:
    """The family of a checkpoint folder, by its `config.json`.

    Args:
        source: accept what `timepro init-model` can read, too (a thinker alone, for example).

    Raises:
        ValueError: no such folder, no configuration, or a family that is not supported.
    """
    families = {name: f for f in all_families() for name in (f.source_types if source else (f.model_type,))}
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{folder} is not a checkpoint folder: {path.name} is missing; give a folder written by this project"
        )
    try:
        model_type = json.loads(path.read_text()).get("model_type")
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not valid JSON ({error.msg}); the checkpoint is damaged") from error
    if model_type not in families:
        raise ValueError(
            f"{path}: model_type {model_type!r} is not supported; supported: {', '.join(sorted(families))}"
        )
    return families[model_type]
