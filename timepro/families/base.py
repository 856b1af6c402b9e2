"""What a family tells of its backbone: to the learner, to vLLM, to `timepro init-model`, and for a tiny model of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from timepro.families.parts.tree import Tree
    from timepro.tiny.config import TinyModelConfig

# Where vLLM lacks the plugin, it quotes what `config.json` names in its refusal, and that is all a folder can say.
NEEDS_PLUGIN = "which needs the vLLM plugin of the Python package timepro-rl"


@dataclass(frozen=True)
class SpecialTokens:
    """How a family's tokenizer spells what is not text. The defaults are Qwen's.

    Args:
        named: tokens by the name under which the family's processor asks its tokenizer for them; `audio_token` is the
            audio placeholder.
    """

    end_of_text: str = "<|endoftext|>"
    turn_start: str = "<|im_start|>"
    turn_end: str = "<|im_end|>"
    named: tuple[tuple[str, str], ...] = (
        ("audio_token", "<|AUDIO|>"),
        ("audio_bos_token", "<|audio_bos|>"),
        ("audio_eos_token", "<|audio_eos|>"),
        ("image_token", "<|IMAGE|>"),
        ("video_token", "<|VIDEO|>"),
        ("vision_bos_token", "<|vision_bos|>"),
        ("vision_eos_token", "<|vision_eos|>"),
    )

    @property
    def audio(self) -> str:
        """The audio placeholder."""
        return dict(self.named)["audio_token"]

    @property
    def clip(self) -> str:
        """One clip in a prompt: the placeholder, and the marks around it where there are some."""
        named = dict(self.named)
        return f"{named.get('audio_bos_token', '')}{self.audio}{named.get('audio_eos_token', '')}"

    def all(self) -> list[str]:
        """Every special token, in the order in which a new tokenizer gets them."""
        return [self.end_of_text, self.turn_start, self.turn_end, *(token for _, token in self.named)]


@dataclass(frozen=True)
class VllmClasses:
    """The classes of vLLM that serve a family, by name: importing vLLM takes seconds, and only workers need it.

    `rollout.vllm_models` derives the family's own model and processor from them. The audio placeholder must be one
    token that vLLM's processor expands to a flat list. Positions are consecutive numbers, also where there is M-RoPE.

    Args:
        module: where the other names are, for example `vllm.model_executor.models.qwen2_audio`.
        model: the model's class.
        processor, info, dummy_inputs: what vLLM registers beside it for multimodal input.
    """

    module: str
    model: str
    processor: str
    info: str
    dummy_inputs: str


class ModelFamily(ABC):
    """One backbone family. Stateless: every method takes the model or configuration it speaks of.

    A subclass in a file of its own is all that a further family needs. Importing its module must not import torch,
    transformers or vLLM: checks and dry runs ask for a checkpoint's family without loading them.
    """

    name: str  # in settings (`model.tiny.family`) and messages
    model_type: str  # of `config.json`
    source_types: tuple[str, ...]  # model types that `timepro init-model` reads
    transformers_class: str  # the Hugging Face class, in `transformers`
    vllm: VllmClasses
    vllm_architecture: str  # of the class with timestamps, in `config.json` and vLLM's registry
    frame_rate: float  # audio frames a second behind the encoder
    windowed_encoder: bool = False  # attends within windows, where Whisper's encoder attends over the whole clip
    mel_margin: int = 0  # mel frames behind the clip (silence) that the encoder's convolutions see
    decoder_prefix: str  # of the decoder's parameters in the Hugging Face model
    encoder_prefixes: tuple[str, ...] = ()  # of the audio encoder's tensors in the published checkpoint, projector too
    projector: str = ""  # the encoder's part (attribute) that projects its frames to the decoder's width
    embedding_name: str  # published names of the input embeddings and of the output head
    head_name: str
    tokens: SpecialTokens = SpecialTokens()

    @property
    def architectures(self) -> list[str]:
        """What `config.json` names: never the published architecture, which would leave the timestamps out, unsaid."""
        return [self.vllm_architecture, NEEDS_PLUGIN]

    # ---------------------------------------------------------------- the Hugging Face model

    def model_class(self) -> Any:
        """The Hugging Face class."""
        import transformers

        return getattr(transformers, self.transformers_class)

    def load_config(self, folder: str | Path) -> Any:
        """The Hugging Face configuration of a checkpoint folder, as the model's class reads it."""
        return self.model_class().config_class.from_pretrained(str(folder), local_files_only=True)

    def load(self, folder: str | Path, dtype: torch.dtype, tensors: Mapping[str, Tensor] | None = None) -> nn.Module:
        """The Hugging Face model of a checkpoint folder, in evaluation mode.

        Args:
            tensors: the weights by their published names, in place of what the folder's files hold.

        Raises:
            ValueError: the weights lack a tensor of the model, which would start random, or hold one more.
        """
        config = self.load_config(folder)
        # By the type transformers looks up how published tensors are renamed; a family's own type would hide that.
        config.model_type = type(config).model_type
        where: tuple[Any, dict[str, Any]] = str(folder), {"local_files_only": True}
        if tensors is not None:
            where = None, {"state_dict": dict(tensors)}
        model, report = self.model_class().from_pretrained(
            where[0], config=config, dtype=dtype, output_loading_info=True, **where[1]
        )
        missing = {self.checkpoint_name(name) for name in report["missing_keys"]} - self.made_up_tensors(model)
        unknown = {name for name in report["unexpected_keys"] if self.kept_name(name) is not None}
        for names, holds, why in (
            (missing, "holds no weight", "its config.json asks for"),
            (unknown, "holds the weight", "its model has no place for"),
        ):
            if names:
                raise ValueError(
                    f"{folder} {holds} {min(names)}, which {why} ({len(names)} such); fetch the checkpoint again, or "
                    "write it again with this project"
                )
        return model.eval()

    def made_up_tensors(self, model: Any) -> set[str]:
        """Published names of the model's tensors that weight files rightly lack, since others stand in for them."""
        return set()

    def text_side_config(self, config: Any) -> Any:
        """The part of the Hugging Face configuration that holds `astp` and the token ids."""
        return config

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
        self, text_model: nn.Module, inputs_embeds: Tensor, positions: Tensor, tree: Tree, queries: Tensor
    ) -> Tensor:
        """Final hidden states where answers are predicted.

        Args:
            inputs_embeds: (B, T, H).
            positions: (B, T).
            tree: who sees whom, and attention under it; `parts.decoder.answer_states` shows how layers take it.
            queries: (B, Q) ascending positions in [0, T).

        Returns:
            (B, Q, H).
        """

    # ---------------------------------------------------------------- checkpoint files

    def whole_config(self, raw: dict[str, Any]) -> dict[str, Any]:
        """The `config.json` to write for one of a source type; changed in place and returned."""
        return raw

    @abstractmethod
    def config_parts(self, raw: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of a whole `config.json`: the part that holds `astp` and token ids, and the decoder's.

        Raises:
            ValueError: one of them is missing.
        """

    def kept_name(self, published: str) -> str | None:
        """The name under which a source checkpoint's tensor is kept; None for what this project never runs."""
        return published

    @abstractmethod
    def checkpoint_name(self, parameter: str) -> str:
        """A live parameter's name in the published checkpoint layout (what vLLM's loader expects)."""

    def whisper_parameter(self, name: str) -> str | None:
        """The live parameter that one of Whisper's encoder becomes; None where the class computes it.

        Args:
            name: as in transformers' WhisperEncoder, such as `layers.0.fc1.weight`.

        Raises:
            ValueError: the family's encoder is not like Whisper's.
        """
        raise ValueError(f"family {self.name} has no encoder like Whisper's; compose another family")

    # ---------------------------------------------------------------- a tiny model of the real classes

    @abstractmethod
    def tiny_config(self, config: TinyModelConfig, tokenizer: Any, rows: int) -> Any:
        """The Hugging Face configuration of a tiny model; `rows` is the padded vocabulary."""

    def tiny_model(self, model_config: Any) -> nn.Module:
        """The model with the class's own random weights; `timepro.tiny` draws the matrices anew."""
        return self.model_class()(model_config).float()

    @abstractmethod
    def write_tiny(self, folder: Path, model_config: Any, tokenizer: Any, chat_template: str) -> None:
        """Write a tiny model's `config.json` with `architectures` in it, and its processor's files."""


def pooled_frames(mel_frames: int) -> int:
    """Audio frames of a Whisper encoder with pooling by 2 behind it (its own `_get_feat_extract_output_lengths`)."""
    convolved = (mel_frames - 1) // 2 + 1  # a convolution of stride 2
    return (convolved - 2) // 2 + 1


def config_part(raw: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The part of a checkpoint's `config.json` below nested keys.

    Raises:
        ValueError: it is missing, naming the key.
    """
    part: Any = raw
    for key in keys:
        part = part.get(key) if isinstance(part, dict) else None
    if not isinstance(part, dict):
        raise ValueError(
            f"the checkpoint's config.json (model_type {raw.get('model_type')!r}) has no {'.'.join(keys)}; take the "
            "file as it was published, or write the folder again with this project"
        )
    return part
