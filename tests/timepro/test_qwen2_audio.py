"""The Qwen2-Audio family against the published classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors import safe_open

from reference_models import load_reference, qwen2_audio_frames
from timepro.features import Processor


@pytest.fixture(scope="module")
def processor(tiny_qwen2_audio):
    return Processor(tiny_qwen2_audio)


@pytest.fixture(scope="module")
def reference(tiny_qwen2_audio):
    return load_reference("qwen2_audio", tiny_qwen2_audio)


@pytest.fixture(scope="module")
def published(tiny_qwen2_audio):
    from transformers import Qwen2AudioProcessor

    return Qwen2AudioProcessor.from_pretrained(tiny_qwen2_audio)


def noise(n, seed=0):
    return np.random.default_rng(seed).normal(0.0, 0.1, n).astype(np.float32)


def whole_features(published, waveform):
    """The published processor's 30 s of features, the mel frames of the clip, and its number of placeholders."""
    inputs = published(text=published.audio_token, audio=[waveform], return_tensors="pt")
    placeholder = published.tokenizer.convert_tokens_to_ids(published.audio_token)
    n_mel = int(inputs["feature_attention_mask"].sum())
    return inputs["input_features"][0], n_mel, inputs["input_ids"].flatten().tolist().count(placeholder)


LENGTHS = [960, 16000, 16001, 50000, 117760, 479520, 479840, 480000]


@pytest.mark.parametrize("n", LENGTHS)
def test_frames_are_those_of_the_whole_thirty_seconds(processor, reference, published, n):
    waveform = noise(n, seed=n)
    features, n_mel, n_frames = whole_features(published, waveform)
    expected = qwen2_audio_frames(reference, features, n_mel)
    encoder = processor.family.audio_encoder(reference)
    with torch.no_grad():
        (found,) = processor.family.encode(encoder, [processor.features_of(waveform)])
    assert found.shape == expected.shape == (n_frames, 64)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


def test_a_clip_in_a_batch_has_the_frames_that_it_has_alone(processor, reference):
    encoder = processor.family.audio_encoder(reference)
    clips = [processor.features_of(noise(n, seed=n)) for n in (51200, 960, 480000, 16000)]
    with torch.no_grad():
        together = processor.family.encode(encoder, clips)
        for clip, frames in zip(clips, together, strict=True):
            (alone,) = processor.family.encode(encoder, [clip])
            torch.testing.assert_close(frames, alone, rtol=1e-4, atol=2e-5)


def test_the_frames_need_the_silence_behind_the_clip(processor, reference):
    """Otherwise the margin would be of no use, and the tests above could not fail by it."""
    encoder = processor.family.audio_encoder(reference)
    features = processor.features_of(noise(16000))
    cut = features.clone()
    cut[:, -processor.family.mel_margin :] = 0.0
    with torch.no_grad():
        right, wrong = processor.family.encode(encoder, [features]), processor.family.encode(encoder, [cut])
    assert (right[0] - wrong[0]).abs().max() > 1e-3


def test_the_folder_has_the_published_names_and_hf_loads_every_weight(tiny_qwen2_audio):
    from transformers import Qwen2AudioForConditionalGeneration

    with safe_open(str(tiny_qwen2_audio / "model.safetensors"), framework="pt") as weights:
        tops = {".".join(name.split(".")[:2]) for name in weights.keys()}  # noqa: SIM118 - no mapping
    assert {"language_model.model", "language_model.lm_head", "multi_modal_projector.linear"} <= tops
    assert all(top.split(".")[0] in ("language_model", "multi_modal_projector", "audio_tower") for top in tops)
    _, report = Qwen2AudioForConditionalGeneration.from_pretrained(tiny_qwen2_audio, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]


def test_an_unknown_parameter_is_refused(processor):
    with pytest.raises(ValueError, match="'model.vision.weight' is not a parameter of Qwen2-Audio"):
        processor.family.checkpoint_name("model.vision.weight")
