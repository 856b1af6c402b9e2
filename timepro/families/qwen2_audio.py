"""Qwen2-Audio: Whisper's encoder with a projector, and a Qwen2 decoder with plain rotary positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timepro.families.base import ModelFamily, VllmClasses, config_part, pooled_frames

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from timepro.families.parts.tree import Tree
    from timepro.tiny.config import TinyModelConfig

# Live names in transformers, and the published checkpoint's, which vLLM's loader expects.
_PUBLISHED = {
    "model.language_model.": "language_model.model.",
    "model.audio_tower.": "audio_tower.",
    "model.multi_modal_projector.": "multi_modal_projector.",
    "lm_head.": "language_model.lm_head.",
}


class Qwen2Audio(ModelFamily):
    name = "qwen2_audio"
    model_type = "qwen2_audio"
    source_types = ("qwen2_audio",)
    transformers_class = "Qwen2AudioForConditionalGeneration"
    vllm = VllmClasses(
        module="vllm.model_executor.models.qwen2_audio",
        model="Qwen2AudioForConditionalGeneration",
        processor="Qwen2AudioMultiModalProcessor",
        info="Qwen2AudioProcessingInfo",
        dummy_inputs="Qwen2AudioDummyInputsBuilder",
    )
    vllm_architecture = "TimeProQwen2AudioModel"
    frame_rate = 25.0
    mel_margin = 2
    decoder_prefix = "model.language_model."
    encoder_prefixes = ("audio_tower.", "multi_modal_projector.")
    projector = "multi_modal_projector"
    embedding_name = "language_model.model.embed_tokens.weight"
    head_name = "language_model.lm_head.weight"

    def load(self, folder: str | Path, dtype: torch.dtype, tensors: Mapping[str, Tensor] | None = None) -> nn.Module:
        model: Any = super().load(folder, dtype, tensors)
        if self.made_up_tensors(model):
            model.lm_head.weight = model.get_input_embeddings().weight
        return model

    def made_up_tensors(self, model: Any) -> set[str]:
        # vLLM ties the head to the embeddings; this class of transformers does not, and `load` does it.
        return {self.head_name} if model.config.text_config.tie_word_embeddings else set()

    def audio_token_id(self, config: Any) -> int:
        return int(config.audio_token_id)

    def audio_frames(self, mel_frames: int) -> int:
        return pooled_frames(mel_frames)

    def audio_encoder(self, model: Any) -> nn.Module:
        from timepro.families.parts.whisper import ClipEncoder

        return ClipEncoder(model.model.audio_tower, model.model.multi_modal_projector)

    def encode(self, encoder: nn.Module, features: Sequence[Tensor]) -> list[Tensor]:
        import torch

        lengths = [f.shape[-1] - self.mel_margin for f in features]
        mel = torch.nn.utils.rnn.pad_sequence([f.T for f in features], batch_first=True).transpose(1, 2)
        frames = encoder(mel, torch.tensor(lengths, device=mel.device))
        return [row[: self.audio_frames(n)] for row, n in zip(frames, lengths, strict=True)]

    def text_model(self, model: Any) -> nn.Module:
        return model.model.language_model

    def answer_states(
        self, text_model: nn.Module, inputs_embeds: Tensor, positions: Tensor, tree: Tree, queries: Tensor
    ) -> Tensor:
        from timepro.families.parts.decoder import answer_states

        return answer_states(text_model, inputs_embeds, positions, tree, queries)

    def config_parts(self, raw: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        return raw, config_part(raw, "text_config")

    def checkpoint_name(self, parameter: str) -> str:
        for live, published in _PUBLISHED.items():
            if parameter.startswith(live):
                return published + parameter.removeprefix(live)
        raise ValueError(
            f"{parameter!r} is not a parameter of Qwen2-Audio; this version of transformers is not supported"
        )

    def whisper_parameter(self, name: str) -> str | None:
        return f"model.audio_tower.{name}"

    def tiny_config(self, config: TinyModelConfig, tokenizer: Any, rows: int) -> Any:
        from transformers import Qwen2AudioConfig

        from timepro.families.parts.tiny import decoder_sizes, encoder_sizes

        return Qwen2AudioConfig(
            audio_config=encoder_sizes(config),
            text_config=decoder_sizes(config, self.tokens, tokenizer, rows),
            audio_token_index=tokenizer.convert_tokens_to_ids(self.tokens.audio),
            tie_word_embeddings=config.tie_word_embeddings,
            pad_token_id=tokenizer.convert_tokens_to_ids(self.tokens.end_of_text),
        )

    def tiny_model(self, model_config: Any) -> nn.Module:
        import torch

        from timepro.families.parts.whisper import sinusoids

        model: Any = super().tiny_model(model_config)
        positions = model.model.audio_tower.embed_positions.weight
        with torch.no_grad():
            positions.copy_(sinusoids(*positions.shape))
        return model

    def write_tiny(self, folder: Path, model_config: Any, tokenizer: Any, chat_template: str) -> None:
        from transformers import Qwen2AudioProcessor, WhisperFeatureExtractor

        model_config.architectures = self.architectures
        model_config.dtype = "float32"
        model_config.save_pretrained(folder)
        mel_bins = model_config.audio_config.num_mel_bins
        extractor = WhisperFeatureExtractor(feature_size=mel_bins, return_attention_mask=True)
        Qwen2AudioProcessor(extractor, tokenizer, chat_template=chat_template).save_pretrained(folder)
