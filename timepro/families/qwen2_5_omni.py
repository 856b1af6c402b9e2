"""Qwen2.5-Omni, the thinker: Whisper-style audio encoder in blocks of two seconds, Qwen2 decoder with M-RoPE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timepro.families.base import ModelFamily, VllmClasses, config_part, pooled_frames

if TYPE_CHECKING:
    from torch import Tensor, nn

    from timepro.families.parts.tree import Tree
    from timepro.tiny.config import TinyModelConfig

# The published layout has a vision tower; the smallest one that its code accepts.
_SMALLEST_VISION = dict(
    depth=1,
    hidden_size=16,
    intermediate_size=16,
    num_heads=2,
    fullatt_block_indexes=[0],
    patch_size=14,
    spatial_merge_size=2,
    temporal_patch_size=2,
    window_size=112,
)


class Qwen25Omni(ModelFamily):
    name = "qwen2_5_omni"
    model_type = "qwen2_5_omni"
    source_types = ("qwen2_5_omni", "qwen2_5_omni_thinker")
    transformers_class = "Qwen2_5OmniThinkerForConditionalGeneration"
    vllm = VllmClasses(
        module="vllm.model_executor.models.qwen2_5_omni_thinker",
        model="Qwen2_5OmniThinkerForConditionalGeneration",
        processor="Qwen2_5OmniThinkerMultiModalProcessor",
        info="Qwen2_5OmniThinkerProcessingInfo",
        dummy_inputs="Qwen2_5OmniThinkerDummyInputsBuilder",
    )
    vllm_architecture = "TimeProQwen2_5OmniModel"
    frame_rate = 25.0
    windowed_encoder = True
    decoder_prefix = "model."
    encoder_prefixes = ("thinker.audio_tower.",)
    projector = "proj"
    embedding_name = "thinker.model.embed_tokens.weight"
    head_name = "thinker.lm_head.weight"

    def text_side_config(self, config: Any) -> Any:
        return getattr(config, "thinker_config", config)

    def audio_token_id(self, config: Any) -> int:
        return int(self.text_side_config(config).audio_token_index)

    def audio_frames(self, mel_frames: int) -> int:
        return pooled_frames(mel_frames)

    def audio_encoder(self, model: Any) -> nn.Module:
        return model.audio_tower

    def encode(self, encoder: nn.Module, features: Sequence[Tensor]) -> list[Tensor]:
        import torch

        lengths = torch.tensor([f.shape[-1] for f in features], device=features[0].device)
        frames = encoder(torch.cat(list(features), dim=-1), feature_lens=lengths).last_hidden_state
        return list(frames.split([self.audio_frames(int(n)) for n in lengths]))

    def text_model(self, model: Any) -> nn.Module:
        return model.model

    def answer_states(
        self, text_model: nn.Module, inputs_embeds: Tensor, positions: Tensor, tree: Tree, queries: Tensor
    ) -> Tensor:
        from timepro.families.parts.decoder import answer_states

        # Audio-only prompts have the same consecutive position in all three M-RoPE dimensions, timestamps included.
        return answer_states(text_model, inputs_embeds, positions.expand(3, -1, -1), tree, queries)

    def whole_config(self, raw: dict[str, Any]) -> dict[str, Any]:
        if raw["model_type"] == "qwen2_5_omni_thinker":
            raw = {"model_type": self.model_type, "thinker_config": raw}
        raw["enable_audio_output"] = False  # without talker and vocoder, whose weights are not kept
        return raw

    def config_parts(self, raw: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        return config_part(raw, "thinker_config"), config_part(raw, "thinker_config", "text_config")

    def kept_name(self, published: str) -> str | None:
        if published.startswith(("talker.", "token2wav.")):  # which answer in speech
            return None
        return published if published.startswith("thinker.") else f"thinker.{published}"

    def checkpoint_name(self, parameter: str) -> str:
        return f"thinker.{parameter}"

    def whisper_parameter(self, name: str) -> str | None:
        if name == "embed_positions.weight":  # sinusoids, which this class computes
            return None
        return f"audio_tower.{name.replace('layer_norm.', 'ln_post.') if name.startswith('layer_norm.') else name}"

    def tiny_config(self, config: TinyModelConfig, tokenizer: Any, rows: int) -> Any:
        from transformers import Qwen2_5OmniThinkerConfig

        from timepro.families.parts.tiny import decoder_sizes, encoder_sizes

        token_id = tokenizer.convert_tokens_to_ids
        text = decoder_sizes(config, self.tokens, tokenizer, rows)
        half = config.hidden_size // config.heads // 2
        first = half // 4
        second = (half - first) // 2
        text["rope_parameters"]["mrope_section"] = [first, second, half - first - second]
        width = config.hidden_size
        return Qwen2_5OmniThinkerConfig(
            audio_config=encoder_sizes(config) | dict(n_window=config.encoder_window, output_dim=width),
            vision_config=_SMALLEST_VISION | dict(out_hidden_size=width),
            text_config=text,
            audio_token_index=token_id(self.tokens.audio),
            image_token_index=token_id("<|IMAGE|>"),
            video_token_index=token_id("<|VIDEO|>"),
            audio_start_token_id=token_id("<|audio_bos|>"),
            audio_end_token_id=token_id("<|audio_eos|>"),
            vision_start_token_id=token_id("<|vision_bos|>"),
            vision_end_token_id=token_id("<|vision_eos|>"),
            user_token_id=tokenizer("user", add_special_tokens=False).input_ids[0],
            tie_word_embeddings=config.tie_word_embeddings,
            pad_token_id=token_id(self.tokens.end_of_text),
        )

    def write_tiny(self, folder: Path, model_config: Any, tokenizer: Any, chat_template: str) -> None:
        from transformers import (
            Qwen2_5OmniConfig,
            Qwen2_5OmniProcessor,
            Qwen2VLImageProcessor,
            Qwen2VLVideoProcessor,
            WhisperFeatureExtractor,
        )

        # The published configuration has a talker; nothing here builds it. Its token ids must lie in its vocabulary.
        spoken = ("tts_text_start", "tts_text_end", "tts_text_pad")
        token_names = (*spoken, "vision_start", "vision_end", "audio_start", "audio_end")
        talker = dict(
            num_hidden_layers=1, hidden_size=64, embedding_size=64, intermediate_size=64, num_attention_heads=2,
            num_key_value_heads=1, head_dim=32, **{f"{name}_token_id": i for i, name in enumerate(token_names)},
        )  # fmt: skip
        whole = Qwen2_5OmniConfig(
            thinker_config=model_config.to_dict(),
            talker_config=talker,
            token2wav_config={},
            enable_audio_output=False,
            tie_word_embeddings=model_config.tie_word_embeddings,
        )
        whole.architectures = self.architectures
        whole.dtype = "float32"
        whole.save_pretrained(folder)
        vision = dict(patch_size=14, merge_size=2, temporal_patch_size=2)
        Qwen2_5OmniProcessor(
            Qwen2VLImageProcessor(**vision),
            Qwen2VLVideoProcessor(**vision),
            WhisperFeatureExtractor(feature_size=model_config.audio_config.num_mel_bins, return_attention_mask=True),
            tokenizer,
            chat_template=chat_template,
        ).save_pretrained(folder)
