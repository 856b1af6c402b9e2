"""Attention from said times to timestamps, against transformers' own attention weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from reference_models import greedy_answer, load_reference
from timepro.attention import CLOSEST, NEAR, SaidTime, TimeAttention, time_attention, times_said
from timepro.cli import main
from timepro.data.sounds import SOUNDS
from timepro.features import Processor
from timepro.plots.attention import attention_figure
from timepro.tasks import find_task
from timepro.tasks.samples import tokenizer_texts
from timepro.tiny.build import build_tiny_checkpoint
from timepro.tiny.config import TimestampsConfig, TinyModelConfig

QUESTION = find_task("sed").question()
ANSWER = "<0.40><0.92>dog_bark\n<1.04><1.20>siren"


@pytest.fixture(scope="module", params=["tiny_checkpoint", "tiny_qwen2_audio"])
def folder(request) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32), 16000)
    return path


def small(folder: Path, **changes) -> Path:
    config = TinyModelConfig(
        hidden_size=64, heads=2, key_value_heads=1, feed_forward=96, encoder_width=32, encoder_layers=1,
        encoder_heads=2, encoder_feed_forward=48, **changes,
    )  # fmt: skip
    build_tiny_checkpoint(folder, config, SOUNDS, tokenizer_texts())
    return folder


@torch.no_grad()
def expected(folder: Path, clip: Path) -> np.ndarray:
    """(layers, said times, timestamps), from the decoder's own `output_attentions`."""
    processor = Processor(folder)
    model = processor.family.load(folder, torch.float32)
    (frames,) = processor.family.encode(processor.family.audio_encoder(model), [processor.features(clip)])
    prompt = processor.expanded_prompt(QUESTION, len(frames))
    tokens = torch.tensor([prompt + processor.answer_ids(ANSWER)])
    embeds = model.get_input_embeddings()(tokens).masked_scatter(
        (tokens == processor.audio_token_id)[..., None], frames
    )
    text_model = processor.family.text_model(model)
    text_model.set_attn_implementation("eager")
    attentions = text_model(inputs_embeds=embeds, output_attentions=True).attentions
    first = processor.layout.first_token_id
    is_time = (tokens[0] >= first) & (tokens[0] < first + processor.layout.vocabulary.size)
    places = [i for i in range(len(prompt)) if is_time[i]]
    said = [i - 1 for i in range(len(prompt), tokens.shape[1]) if is_time[i]]
    return np.stack([a[0].mean(0)[said][:, places].double().numpy() for a in attentions])


def test_a_time_of_two_tokens_is_looked_at_and_said_over_both(clip: Path, tmp_path: Path) -> None:
    folder = small(tmp_path / "factorised", timestamps=TimestampsConfig(style="factorised"))
    layers = expected(folder, clip)  # each token on its own
    assert layers.shape[1] % 2 == layers.shape[2] % 2 == 0
    merged = layers[:, 0::2] + layers[:, 1::2]
    merged = (merged[:, :, 0::2] + merged[:, :, 1::2]) / 2
    whole = time_attention(folder, clip, QUESTION, ANSWER)
    assert [said.seconds for said in whole.said] == [0.40, 0.92, 1.04, 1.20]
    np.testing.assert_allclose(whole.times, np.arange(len(whole.times)) * 0.04)
    np.testing.assert_allclose([s.weights for s in whole.said], merged.mean(0), atol=1e-6)


def near_shares(weights, times, said) -> float:
    """The share of each row that lies within 0.2 s of its time, mean over the rows."""
    shares = []
    for row, seconds in zip(weights, said, strict=True):
        inside = [w for w, t in zip(row, times, strict=True) if seconds - NEAR - 1e-9 <= t <= seconds + NEAR + 1e-9]
        shares.append(sum(inside) / sum(row))
    return float(np.mean(shares))


def test_weights_are_those_of_the_decoder(folder: Path, clip: Path) -> None:
    layers = expected(folder, clip)
    whole = time_attention(folder, clip, QUESTION, ANSWER)
    assert [said.seconds for said in whole.said] == [0.40, 0.92, 1.04, 1.20]
    np.testing.assert_allclose(whole.times, np.arange(len(whole.times)) * 0.04)
    np.testing.assert_allclose([s.weights for s in whole.said], layers.mean(0), atol=1e-6)
    for layer in (0, -1):
        one = time_attention(folder, clip, QUESTION, ANSWER, layer)
        np.testing.assert_allclose([s.weights for s in one.said], layers[layer], atol=1e-6)
    closest = time_attention(folder, clip, QUESTION, ANSWER, CLOSEST)
    near = [near_shares(weights, whole.times, [0.40, 0.92, 1.04, 1.20]) for weights in layers]
    np.testing.assert_allclose(closest.near_by_layer, near, atol=1e-5)
    assert closest.layer == int(np.argmax(near))
    np.testing.assert_allclose([s.weights for s in closest.said], layers[closest.layer], atol=1e-6)
    even = near_shares(np.ones_like(layers[0]), whole.times, [0.40, 0.92, 1.04, 1.20])
    assert whole.chance == pytest.approx(even)
    for said in whole.said:
        around = [w for t, w in zip(whole.times, said.weights, strict=True) if said.seconds - NEAR - 1e-9 <= t]
        around = around[: sum(t <= said.seconds + NEAR + 1e-9 for t in whole.times if t >= said.seconds - NEAR - 1e-9)]
        assert said.near == pytest.approx(sum(around) / said.weights.sum())
        assert 0 < said.on_timestamps < 1


def test_a_time_in_digits_is_all_the_tokens_that_spell_it(tmp_path: Path, clip: Path) -> None:
    folder = small(tmp_path / "digits", answer_style="digits")
    processor = Processor(folder)
    ids = processor.answer_ids("siren 0.40-11.28")
    said = list(times_said(processor, ids))
    assert [seconds for seconds, _ in said] == [0.40, 11.28]
    for (_, tokens), text in zip(said, ("0.40", "11.28"), strict=True):
        assert text in processor.tokenizer.decode([ids[k] for k in tokens])
    assert set(said[0][1]).isdisjoint(said[1][1])
    assert len(time_attention(folder, clip, QUESTION, "siren 0.40-1.28").said) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"answer": "none"}, "the answer 'none' says no time"),
        ({"answer": ANSWER, "layer": 7}, "no layer 7; the decoder has 2, 0 to 1"),
    ],
)
def test_what_cannot_be_shown_is_refused(tiny_checkpoint: Path, clip: Path, arguments, words) -> None:
    with pytest.raises(ValueError, match=words):
        time_attention(tiny_checkpoint, clip, QUESTION, **arguments)


def test_a_checkpoint_without_timestamps_is_refused(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(ValueError, match="ASTP off"):
        time_attention(small(tmp_path / "off", astp=False), clip, QUESTION, ANSWER)


def test_the_command_draws_a_picture(tiny_checkpoint: Path, clip: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "picture.png"
    command = ["attention", str(tiny_checkpoint), str(clip), "--out", str(out)]
    assert main([*command, "--answer", ANSWER]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "0.92 s: " in printed and "shown: layer " in printed and "spread evenly, " in printed
    assert main([*command, "--answer", ANSWER, "--layer", "mean"]) == 0
    assert "shown: mean over all layers" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*command, "--layer", "first"])
    assert "'first' is not a layer's number" in capsys.readouterr().err
    assert main([*command, "--answer", "none"]) == 2
    assert "says no time" in capsys.readouterr().err
    assert main([*command[:2], str(tmp_path / "gone.wav")]) == 2
    assert "gone.wav" in capsys.readouterr().err


def test_rows_share_a_scale_in_multiples_of_even_attention() -> None:
    """A row that looks at one of 20 timestamps alone is 20 times even there; an even row is 1 everywhere."""
    times = np.arange(20) * 0.2
    sharp = np.zeros(20)
    sharp[5] = 0.4
    said = (SaidTime(1.0, sharp, 1.0), SaidTime(2.0, np.full(20, 0.02), 0.15))
    figure = attention_figure(
        np.zeros(64000, np.float32), "clip", TimeAttention("What?", "x", times, said, 1, np.array([0.1, 0.6]))
    )
    (mesh,) = [c for a in figure.axes for c in a.collections if c.get_gid() == "times"]
    upper, lower = np.asarray(mesh.get_array())[::-1]
    assert upper.argmax() == 5 and upper[5] == pytest.approx(20)
    np.testing.assert_allclose(lower, 1.0)
    assert (mesh.norm.vmin, mesh.norm.vmax) == (1, pytest.approx(20))
    texts = [t.get_text() for t in figure.texts]
    assert "100.0 %" in texts and any("layer 1 of 0 to 1" in text for text in texts)
    assert any(a.get_xlabel().startswith("layer (dark: shown above)") for a in figure.axes)


def test_without_an_answer_the_model_gives_its_own(tiny_checkpoint: Path, clip: Path) -> None:
    """A random model says something, perhaps no time: then the refusal quotes it."""
    asked = find_task("ag").question("siren")
    own = greedy_answer(
        Processor(tiny_checkpoint),
        load_reference("qwen2_5_omni", tiny_checkpoint),
        SimpleNamespace(audio=clip, question=asked),
        max_tokens=6,
    )
    try:
        found = time_attention(tiny_checkpoint, clip, asked, max_tokens=6)
    except ValueError as error:
        assert "says no time" in str(error) and repr(own) in str(error)
    else:
        assert found.answer == own and found.said
