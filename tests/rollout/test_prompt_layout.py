"""The worker's half of the prompt: its processor puts in an audio placeholder's place what the learner lays out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from vllm.multimodal.processing import PromptReplacement

from rollout.clip_features import FileClip
from rollout.plugin import register
from rollout.vllm_models import AstpProcessorMixin
from timepro.astp import AstpLayout, expand_prompt, timestamps_in
from timepro.features import Processor
from timepro.tiny.build import build_tiny_checkpoint
from timepro.tiny.config import TimestampsConfig, TinyModelConfig

AUDIO, FIRST = 7, 1000
FRAMES = (26, 103)  # of two clips


class _Processor(AstpProcessorMixin):
    frame_rate = 25.0


@pytest.mark.parametrize("style", ["table", "factorised"])
@pytest.mark.parametrize(("every", "position"), [(1, "after"), (5, "before")])
def test_a_worker_expands_a_clip_as_the_learner_does(style: str, every: int, position: str) -> None:
    layout = AstpLayout(first_token_id=FIRST, style=style, every=every, position=position)
    published = PromptReplacement("audio", [AUDIO], lambda item: [AUDIO] * FRAMES[item])
    ours = _Processor()._interleaved(published, layout)
    for item, frames in enumerate(FRAMES):
        details = ours.replacement(item)
        assert details.full == expand_prompt([AUDIO], [frames], AUDIO, layout, 25.0)
        # Audio frames are merged into the placeholders alone; timestamps stay tokens of the prompt.
        embedded = details.is_embed(details.full).tolist()
        assert embedded == [token == AUDIO for token in details.full] and sum(embedded) == frames


@pytest.mark.slow  # vLLM's processors are built
@pytest.mark.parametrize("family", ["qwen2_5_omni", "qwen2_audio"])
def test_vllms_own_processor_lays_out_a_factorised_hour(family: str, tmp_path: Path) -> None:
    from vllm.config import ModelConfig
    from vllm.multimodal import MULTIMODAL_REGISTRY

    register()
    tiny = TinyModelConfig(
        family=family, hidden_size=64, heads=2, key_value_heads=1, encoder_width=32, encoder_layers=1, encoder_heads=2,
        layers=1, timestamps=TimestampsConfig(duration=3600.0, style="factorised"), astp_every=5,
    )  # fmt: skip
    build_tiny_checkpoint(tmp_path / "hour", tiny, ["siren"], ["When? <3"])
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 16000 * 13).astype(np.float32), 16000)
    learner = Processor(tmp_path / "hour")
    features = learner.features(tmp_path / "a.wav")
    n_frames = learner.family.audio_frames(features.shape[-1] - learner.family.mel_margin)
    limits = {"audio": 1} | ({"image": 0, "video": 0} if family == "qwen2_5_omni" else {})
    model = ModelConfig(
        str(tmp_path / "hour"), max_model_len=1024, dtype="float32", limit_mm_per_prompt=limits,
        hf_overrides={"architectures": [learner.family.vllm_architecture]},
    )  # fmt: skip
    worker = MULTIMODAL_REGISTRY.create_processor(model)
    made = worker(
        learner.prompt_ids("When? <3"), worker.info.parse_mm_data({"audio": [FileClip.of(tmp_path / "a.wav")]})
    )
    expected = learner.expanded_prompt("When? <3", n_frames)
    assert made["prompt_token_ids"] == expected and len(set(expected) & set(learner.layout.token_ids)) > 13 + 4
    (place,) = made["mm_placeholders"]["audio"]
    clip = expected[place.offset : place.offset + place.length]
    assert place.is_embed.tolist() == [token == learner.audio_token_id for token in clip]
    assert len(timestamps_in(clip, learner.layout)) == -(-n_frames // 5)
