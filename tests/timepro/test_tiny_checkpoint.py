"""The tiny checkpoint, the processor and the family that reads it, against transformers' own classes."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from timepro.astp import AstpLayout
from timepro.data.sounds import SOUNDS
from timepro.families import family_of
from timepro.features import Processor
from timepro.timestamps import TimestampVocabulary
from timepro.tiny.build import build_tiny_checkpoint
from timepro.tiny.config import TimestampsConfig, TinyModelConfig
from timepro.tiny.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def processor(tiny_checkpoint):
    return Processor(tiny_checkpoint)


@pytest.fixture(scope="module")
def published(tiny_checkpoint):
    from transformers import Qwen2_5OmniProcessor

    return Qwen2_5OmniProcessor.from_pretrained(tiny_checkpoint)


def noise(n, seed=0):
    return np.random.default_rng(seed).normal(0.0, 0.1, n).astype(np.float32)


def published_features(published, waveform):
    """What the published processor gives the encoder: padded to 30 s, then cut by its mask."""
    inputs = published(text=published.audio_token, audio=[waveform], return_tensors="pt")
    mask = inputs["feature_attention_mask"][0].bool()
    placeholder = published.tokenizer.convert_tokens_to_ids(published.audio_token)
    return inputs["input_features"][0][:, mask], inputs["input_ids"].flatten().tolist().count(placeholder)


def assert_same(found, expected):
    assert found.shape == expected.shape
    # A product over fewer frames may round the last bit differently, depending on the machine's vector width.
    assert float((found - expected).abs().max()) <= 2e-6


@pytest.mark.parametrize("n", [960, 16000, 51200, 117760, 479840])
def test_features_equal_the_published_processors(processor, published, n):
    expected, n_frames = published_features(published, noise(n))
    found = processor.features_of(noise(n))
    assert found.dtype == torch.float32
    assert_same(found, expected)
    assert processor.family.audio_frames(found.shape[1]) == n_frames


@pytest.mark.parametrize("n", [16001, 16159, 49601, 50000])
def test_features_equal_the_published_processors_for_a_length_between_two_hops(processor, published, n):
    expected, n_frames = published_features(published, noise(n))
    found = processor.features_of(noise(n))
    assert_same(found, expected)
    assert processor.family.audio_frames(found.shape[1]) == n_frames


def test_features_equal_the_published_processors_for_exactly_thirty_seconds(processor, published):
    expected, _ = published_features(published, noise(480000))
    assert_same(processor.features_of(noise(480000)), expected)


def test_features_of_a_file_are_those_of_its_samples(processor, tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, noise(16000), 16000, subtype="FLOAT")
    assert torch.equal(processor.features(path), processor.features_of(noise(16000)))


@pytest.mark.parametrize("n", [0, 1, 160, 300])
def test_a_clip_too_short_for_one_frame_is_refused(processor, n):
    with pytest.raises(ValueError, match=f"{n} samples, too few for one audio frame"):
        processor.features_of(noise(n))


def test_frames_are_those_of_the_whole_hf_model_alone_and_in_a_batch(tiny_checkpoint, processor):
    model = processor.family.load(tiny_checkpoint, torch.float32)
    clips = [processor.features_of(noise(n, seed=n)) for n in (16000, 51200, 64000, 960)]
    with torch.no_grad():
        encoded = processor.family.encode(processor.family.audio_encoder(model), clips)
        for clip, frames in zip(clips, encoded, strict=True):
            mask = torch.ones(1, clip.shape[1], dtype=torch.long)
            whole = model.get_audio_features(clip[None], mask, return_dict=True).last_hidden_state
            assert frames.shape == (processor.family.audio_frames(clip.shape[1]), 64)
            torch.testing.assert_close(frames, whole, rtol=1e-5, atol=1e-5)


def test_frame_count_is_the_encoders_own(tiny_checkpoint, processor):
    encoder = processor.family.audio_encoder(processor.family.load(tiny_checkpoint, torch.float32))
    lengths = torch.arange(3, 3001)
    _, expected = encoder._get_feat_extract_output_lengths(lengths)
    assert [processor.family.audio_frames(int(n)) for n in lengths] == expected.tolist()


def test_hf_classes_load_the_folder_with_every_weight(tiny_checkpoint):
    from transformers import AutoConfig, Qwen2_5OmniThinkerForConditionalGeneration

    config = AutoConfig.from_pretrained(tiny_checkpoint)
    assert type(config).__name__ == "Qwen2_5OmniConfig"
    model, report = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        tiny_checkpoint, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert model.config.text_config.vocab_size == model.lm_head.weight.shape[0]


def test_labels_and_timestamps_are_one_token_each_and_times_are_consecutive(processor):
    tokenizer, layout = processor.tokenizer, processor.layout
    for label in SOUNDS:
        assert len(tokenizer(label, add_special_tokens=False).input_ids) == 1, label
    tokens = layout.vocabulary.tokens()
    for i, token in enumerate(tokens):
        assert tokenizer(token, add_special_tokens=False).input_ids == [layout.first_token_id + i]
    assert len(tokens) == 750


def test_answers_survive_encoding_and_decoding(processor):
    for text in ("<0.52><1.20>glass_breaking\n<29.96>dog_bark", "none", "0.52 1.20 a dog barks", "Ünï 漢字"):
        ids = processor.answer_ids(text)
        assert ids[-1] == processor.eos_token_id == processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
        assert ids.count(processor.eos_token_id) == 1
        assert processor.answer_text(ids) == text
        assert processor.answer_text(ids[:-1]) == text


def test_prompts_hold_one_placeholder_and_open_the_answer(processor):
    ids = processor.prompt_ids("When does this sound occur: dog bark?")
    assert ids.count(processor.audio_token_id) == 1
    text = processor.tokenizer.decode(ids)
    assert text == (
        "<|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|>When does this sound occur: dog bark?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_banned_tokens_are_placeholders_padding_and_rows_without_a_token(processor):
    tokenizer, banned = processor.tokenizer, set(processor.layout.banned_token_ids)
    names = ["endoftext", "im_start", "AUDIO", "audio_bos", "audio_eos", "IMAGE", "VIDEO", "vision_bos", "vision_eos"]
    rows = -(-len(tokenizer) // 64) * 64
    named = {tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in names}
    assert len(named) == 9
    assert banned == named | set(range(len(tokenizer), rows))
    assert processor.eos_token_id not in banned


def test_a_checkpoint_answering_in_digits_bans_timestamps(tmp_path):
    config = TinyModelConfig(
        hidden_size=64, heads=2, key_value_heads=1, encoder_width=32, encoder_layers=1, encoder_heads=2, layers=1,
        timestamps=TimestampsConfig(0.5, 10.0), answer_style="digits", astp_every=5, astp_position="before",
        tie_word_embeddings=True,
    )  # fmt: skip
    build_tiny_checkpoint(tmp_path / "digits", config, ["siren"], ["When?"])
    processor = Processor(tmp_path / "digits")
    layout = processor.layout
    assert (layout.every, layout.position, layout.answer_style) == (5, "before", "digits")
    assert set(range(layout.first_token_id, layout.first_token_id + 20)) <= set(layout.banned_token_ids)
    model = processor.family.load(tmp_path / "digits", torch.float32)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    with pytest.raises(ValueError, match="already holds a checkpoint"):
        build_tiny_checkpoint(tmp_path / "digits", config, ["siren"], ["When?"])


def test_the_layout_is_the_one_in_config_json(tiny_checkpoint, processor):
    stored = json.loads((tiny_checkpoint / "config.json").read_text())["thinker_config"]["astp"]
    assert AstpLayout(**stored) == processor.layout


def test_the_tokenizer_keeps_digits_single():
    tokenizer = build_tokenizer(["siren"], ["1234 5678 1234"], TimestampVocabulary(1.0, 3.0))
    assert tokenizer.convert_ids_to_tokens(tokenizer("1234").input_ids) == ["1", "2", "3", "4"]


def test_family_of_names_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="is not a checkpoint folder: config.json is missing"):
        family_of(tmp_path)
    (tmp_path / "config.json").write_text('{\n"model_type": ')
    with pytest.raises(ValueError, match=r"config\.json:2: not valid JSON"):
        family_of(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="model_type 'llama' is not supported; supported: .*qwen2_5_omni"):
        Processor(tmp_path)


@pytest.mark.parametrize("name", ["tiny_checkpoint", "tiny_qwen2_audio"])
def test_its_processor_is_read_without_complaints(name: str, request: pytest.FixtureRequest) -> None:
    """In a process of its own: transformers says each of them once."""
    folder = request.getfixturevalue(name)
    program = "import sys; from timepro.features import Processor; print(len(Processor(sys.argv[1]).tokenizer))"
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(Processor(folder).tokenizer) > 1000
    assert "Model config" not in done.stderr
