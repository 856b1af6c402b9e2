"""Families: found without loading torch, complete, open to others', and named nowhere but in their own files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from timepro.astp import CONFIG_KEY, expand_prompt
from timepro.families import ModelFamily, all_families, family_named, family_of
from timepro.families.parts.tree import PROMPT
from timepro.families.parts.tree_attention import tree_of
from timepro.features import Processor
from timepro.tiny.build import build_tiny_checkpoint
from timepro.tiny.config import TinyModelConfig

ROOT = Path(__file__).resolve().parents[2]
SIZES = dict(
    hidden_size=64, heads=2, key_value_heads=1, layers=1, feed_forward=96, encoder_width=32, encoder_layers=1,
    encoder_heads=2, encoder_feed_forward=48,
)  # fmt: skip

TOY = """
import json
from timepro.families import SpecialTokens
from timepro.families.qwen2_audio import Qwen2Audio


class Toy(Qwen2Audio):
    name = "toy_audio"
    model_type = "toy_audio"
    source_types = ("toy_audio",)
    vllm_architecture = "TimeProToyAudioModel"
    tokens = SpecialTokens(turn_end="<|toy_end|>")

    def write_tiny(self, folder, model_config, tokenizer, chat_template):
        super().write_tiny(folder, model_config, tokenizer, chat_template)
        stored = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(stored | {"model_type": "toy_audio"}))
"""


def install(folder: Path, module: str, code: str, entry: str) -> None:
    """A package with an entry point, as an installer leaves it."""
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[timepro.families]\n{entry}\n")


@pytest.fixture
def fresh(monkeypatch):
    """Families are looked for again, in the test and behind it."""
    monkeypatch.delitem(sys.modules, "toy_family", raising=False)
    all_families.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    all_families.cache_clear()


@pytest.fixture
def toy(tmp_path, fresh):
    install(tmp_path, "toy_family", TOY, "toy_audio = toy_family:Toy")
    fresh.syspath_prepend(str(tmp_path))
    return family_named("toy_audio", "model.tiny.family")


# ---------------------------------------------------------------- finding them


def test_a_checkpoints_family_is_found_without_torch_transformers_or_vllm(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_audio"}')
    code = (
        "import sys; import timepro.tiny.build; from timepro.families import family_of; "
        f"family = family_of({str(tmp_path)!r}); family.audio_frames(100); "
        "print(family.name, sorted({'torch', 'transformers', 'vllm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.stdout.strip(), done.returncode) == ("qwen2_audio []", 0), done.stderr


def test_no_other_file_of_the_packages_names_a_family():
    """A list somewhere else would be a second file to change for a new family."""
    facts = {getattr(family, key) for family in all_families() for key in ("name", "model_type", "vllm_architecture")}
    classes = {type(family).__name__ for family in all_families()}
    classes |= {family.transformers_class for family in all_families()}
    named = re.compile("|".join([*(f"['\"]{fact}['\"]" for fact in facts), *(rf"\b{name}\b" for name in classes)]))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for package in ("timepro", "rewards", "rollout", "trainer")
        for path in sorted((ROOT / package).rglob("*.py"))
        if (ROOT / "timepro/families") not in path.parents
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if named.search(line)
    ]
    default = 'family: str = "qwen2_5_omni"'  # of the tiny model
    assert [line for line in found if default not in line] == []
    assert len(found) == 1


def test_an_unknown_name_lists_the_known_ones_and_the_nearest():
    with pytest.raises(ValueError, match=r"model.tiny.family is 'qwen_audio'; it must be one of qwen2_5_omni, .*mean"):
        family_named("qwen_audio", "model.tiny.family")


@pytest.mark.parametrize(
    ("name", "stored", "missing"),
    [
        ("qwen2_5_omni", {}, "thinker_config"),
        ("qwen2_5_omni", {"thinker_config": {}}, "thinker_config.text_config"),
        ("qwen2_audio", {}, "text_config"),
    ],
)
def test_a_configuration_without_its_decoder_is_refused_with_the_missing_key(name, stored, missing):
    with pytest.raises(ValueError, match=rf"config\.json .* has no {re.escape(missing)}; take the file as"):
        family_named(name, "-").config_parts(stored)


# ---------------------------------------------------------------- what every family promises


@pytest.fixture(scope="module", params=[family.name for family in all_families()])
def family(request) -> ModelFamily:
    return family_named(request.param, "-")


@pytest.fixture(scope="module")
def checkpoint(family, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("families") / family.name
    build_tiny_checkpoint(folder, TinyModelConfig(family=family.name, **SIZES), ["siren"], ["When is it? 0123456789."])
    return folder


def assert_keeps_its_promises(family: ModelFamily, checkpoint: Path) -> None:
    """What a family says of itself is true of a tiny model of it."""
    assert type(family_of(checkpoint)) is type(family)
    processor, model = Processor(checkpoint), family.load(checkpoint, torch.float32)
    text_side, decoder = family.config_parts(json.loads((checkpoint / "config.json").read_text()))
    assert CONFIG_KEY in text_side and decoder["vocab_size"] == model.get_input_embeddings().weight.shape[0]
    with safe_open(str(checkpoint / "model.safetensors"), framework="pt") as weights:
        stored = set(weights.keys())
    assert {family.checkpoint_name(name) for name in model.state_dict()} == stored
    assert {family.embedding_name, family.head_name} <= stored
    assert all(family.kept_name(name) == name for name in stored)
    inner = dict(family.text_model(model).named_parameters())
    assert {name for name, _ in model.named_parameters()} >= {f"{family.decoder_prefix}{name}" for name in inner}
    wave = np.random.default_rng(0).normal(0.0, 0.1, 20_000).astype(np.float32)
    mel = processor.features_of(wave)
    n_frames = family.audio_frames(mel.shape[1] - family.mel_margin)
    assert n_frames == pytest.approx(len(wave) / 16_000 * family.frame_rate, abs=1)
    prompt = processor.prompt_ids("When is it?")
    ids = expand_prompt(prompt, [n_frames], processor.audio_token_id, processor.layout, family.frame_rate)
    with torch.no_grad():
        (frames,) = family.encode(family.audio_encoder(model), [mel])
        assert frames.shape == (n_frames, SIZES["hidden_size"])
        embeds = model.get_input_embeddings()(torch.tensor([ids]))
        embeds[0, [i for i, token in enumerate(ids) if token == processor.audio_token_id]] = frames
        positions, last = torch.arange(len(ids))[None], torch.tensor([[len(ids) - 1]])
        tree = tree_of(torch.full((1, len(ids)), PROMPT), branched=False)
        states = family.answer_states(family.text_model(model), embeds, positions, tree, last)
        whole = family.text_model(model)(inputs_embeds=embeds).last_hidden_state[:, -1:]
    torch.testing.assert_close(states, whole, rtol=0, atol=1e-5)


def test_a_family_keeps_its_promises(family, checkpoint):
    assert_keeps_its_promises(family, checkpoint)


def test_a_tiny_checkpoint_is_the_same_each_time(family, checkpoint, tmp_path):
    torch.rand(7)  # what ran before must not matter
    config = TinyModelConfig(family=family.name, **SIZES)
    build_tiny_checkpoint(tmp_path / "again", config, ["siren"], ["When is it? 0123456789."])
    for path in checkpoint.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


# ---------------------------------------------------------------- families of other packages


def test_a_family_from_outside_is_found_built_and_loaded(toy, tmp_path):
    assert [family.name for family in all_families()] == ["qwen2_5_omni", "qwen2_audio", "toy_audio"]
    folder = tmp_path / "checkpoint"
    build_tiny_checkpoint(folder, TinyModelConfig(family="toy_audio", **SIZES), ["siren"], ["When is it? 0123456789."])
    assert family_of(folder) is toy
    assert_keeps_its_promises(toy, folder)
    processor = Processor(folder)
    assert processor.answer_ids("none")[-1] == processor.tokenizer.convert_tokens_to_ids("<|toy_end|>")


def test_a_family_from_outside_is_part_of_what_names_a_kept_checkpoint(toy, tmp_path):
    from trainer.launcher.stage_keys import model_key, sft_key

    def keys() -> tuple[str, str]:
        return model_key(TinyModelConfig(family=toy.name), ["siren"], []), sft_key({}, ["sed"])

    before = keys()
    path = tmp_path / "toy_family.py"
    path.write_text(path.read_text() + "# changed\n")
    assert all(old != new for old, new in zip(before, keys(), strict=True))


@pytest.mark.parametrize("form", ["audio", "audio_url", "input_audio"])
def test_a_prompt_is_what_every_chat_interface_makes_of_it(family, checkpoint, form):
    from transformers import AutoProcessor

    ours = Processor(checkpoint)
    prompt = ours.tokenizer.decode(ours.prompt_ids("When is it?"))
    assert prompt.count(family.tokens.audio) == 1
    published = AutoProcessor.from_pretrained(checkpoint)
    content = [{"type": form}, {"type": "text", "text": "When is it?"}]
    for side in (published, ours.tokenizer):
        chat = [{"role": "user", "content": content}]
        assert side.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) == prompt
        chat = [{"role": "user", "content": family.tokens.clip + "When is it?"}]
        assert side.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) == prompt
    with pytest.raises(Exception, match="this model takes text and audio, no part of type image"):
        ours.tokenizer.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}])


@pytest.mark.slow  # imports vLLM
def test_vllm_gives_the_chat_template_parts_and_not_its_own_words(checkpoint):
    from vllm.renderers.hf import _detect_content_format

    template = Processor(checkpoint).tokenizer.chat_template
    assert _detect_content_format(template, default="string") == "openai"


@pytest.mark.slow  # imports vLLM
def test_vllm_without_the_plugin_refuses_the_folder(family, checkpoint):
    code = (
        "from vllm.engine.arg_utils import EngineArgs; "
        f"EngineArgs(model={str(checkpoint)!r}, max_model_len=512).create_model_config()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, env=os.environ | {"VLLM_PLUGINS": ""}
    )
    named = (
        f"Model architectures ['{family.vllm_architecture}', 'which needs the vLLM plugin of the Python package timepro"
    )
    assert done.returncode != 0 and named in done.stderr


@pytest.mark.slow  # imports vLLM
def test_vllm_gets_a_class_for_a_family_from_outside(toy):
    from vllm import ModelRegistry
    from vllm.model_executor.models.qwen2_audio import Qwen2AudioForConditionalGeneration

    from rollout import plugin, vllm_models

    plugin.register()
    assert toy.vllm_architecture in ModelRegistry.get_supported_archs()
    made = getattr(vllm_models, toy.vllm_architecture)
    assert issubclass(made, Qwen2AudioForConditionalGeneration) and made is getattr(vllm_models, toy.vllm_architecture)
    assert made._processor_factory.processor.frame_rate == toy.frame_rate
    for family in all_families():
        made = getattr(vllm_models, family.vllm_architecture)
        positions = hasattr(made, "get_mrope_input_positions")
        assert issubclass(made, vllm_models.ConsecutivePositionsMixin) == positions
        assert "Qwen" in made.__doc__


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class Toy: pass", r"toy_family:Toy is not a model family; it must be a subclass of"),
        ("Toy = 3", r"is not a model family"),
        ("import no_such_module", r"cannot be loaded \(No module named 'no_such_module'\); mend or uninstall"),
        ("", r"cannot be loaded \(.*no attribute 'Toy'"),
        (
            "from timepro.families import ModelFamily\nclass Toy(ModelFamily):\n    name = 'toy'",
            r"is not a complete model family; it lacks answer_states, audio_encoder, .*write_tiny, model_type, .*vllm",
        ),
        (TOY.replace('"toy_audio"', '"qwen2_audio"'), "two families have the .* 'qwen2_audio': timepro.families"),
        (TOY.replace("TimeProToyAudioModel", "TimeProQwen2AudioModel"), "two families have the architecture 'Time"),
    ],
)
def test_what_is_no_family_is_refused_with_its_place(tmp_path, fresh, code, message):
    install(tmp_path, "toy_family", code, "toy = toy_family:Toy")
    fresh.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=message):
        all_families()
