"""A published checkpoint, in shards, becomes one with timestamps; everything else stays as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reference_models import load_reference
from timepro.astp import AstpLayout
from timepro.chat import messages
from timepro.cli import main
from timepro.families import family_of
from timepro.features import Processor
from timepro.init_model import TimestampSettings, init_model
from timepro.tiny.build import build_tiny_checkpoint
from timepro.tiny.config import TimestampsConfig, TinyModelConfig
from trainer.learner.policy import load_policy

FAMILIES = ["qwen2_5_omni", "qwen2_audio"]
EMBEDDINGS = {
    "qwen2_5_omni": "thinker.model.embed_tokens.weight",
    "qwen2_audio": "language_model.model.embed_tokens.weight",
}
HEADS = {"qwen2_5_omni": "thinker.lm_head.weight", "qwen2_audio": "language_model.lm_head.weight"}


def build(folder: Path, family: str, tied: bool = False) -> Path:
    """A folder as published: shards with an index, no timestamps; Omni with a talker."""
    config = TinyModelConfig(
        family=family, hidden_size=64, heads=2, key_value_heads=1, layers=1, encoder_width=32, encoder_layers=1,
        encoder_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    build_tiny_checkpoint(folder, config, ["siren"], ["When is it? 0123456789."], as_published=True)
    weights = load_file(folder / "model.safetensors")
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    if family == "qwen2_5_omni":
        weights["talker.model.layers.0.weight"] = torch.ones(8, 8)
        weights["token2wav.code2wav.weight"] = torch.ones(4)
    names = sorted(weights)
    shards = [names[i::3] for i in range(3)]
    weight_map = {}
    for number, part in enumerate(shards, 1):
        file = f"model-{number:05}-of-00003.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def source(family, tmp_path_factory):
    return build(tmp_path_factory.mktemp("published") / family, family)


@pytest.fixture(scope="module")
def target(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("initialised") / "model"
    init_model(source, folder, TimestampSettings(), say=lambda line: None)
    return folder


def tensors(folder):
    return {name: t for path in sorted(folder.glob("*.safetensors")) for name, t in load_file(path).items()}


def test_every_old_tensor_is_kept_bit_for_bit_and_the_talker_is_left_out(source, target, family):
    old, new = tensors(source), tensors(target)
    kept = {name for name in old if not name.startswith(("talker.", "token2wav."))}
    assert set(new) == kept
    for name in kept:
        n = old[name].shape[0]
        assert new[name].dtype == old[name].dtype
        same = new[name][:n] if name in (EMBEDDINGS[family], HEADS[family]) else new[name]
        tokens = len(Processor(target).tokenizer) - 750
        if name in (EMBEDDINGS[family], HEADS[family]):  # padding behind the old tokens makes room for new ones
            assert torch.equal(new[name][:tokens], old[name][:tokens])
        else:
            assert torch.equal(same, old[name]), name


def test_timestamps_start_as_the_mean_of_their_numbers_subwords(source, target, family):
    processor, old, new = Processor(target), tensors(source), tensors(target)
    first = processor.layout.first_token_id
    for name in (EMBEDDINGS[family], HEADS[family]):
        for index in (0, 1, 31, 749):
            ids = processor.tokenizer(f"{index * 0.04:.2f}", add_special_tokens=False).input_ids
            expected = old[name][ids].float().mean(0).to(torch.bfloat16)
            assert torch.equal(new[name][first + index], expected), (name, index)
        assert new[name].shape[0] % 64 == 0
        assert torch.count_nonzero(new[name][first + 750 :]) == 0


def test_hf_loads_every_weight_and_old_words_are_as_likely_as_before(source, target, family):
    before, after = load_reference(family, source), load_reference(family, target)
    assert after.get_input_embeddings().weight.shape[0] == after.lm_head.weight.shape[0]
    ids = torch.tensor([Processor(target).tokenizer("When is it? 3.14", add_special_tokens=False).input_ids])
    with torch.no_grad():
        old, new = before(input_ids=ids).logits, after(input_ids=ids).logits
    n = len(Processor(target).tokenizer) - 750
    torch.testing.assert_close(new[..., :n], old[..., :n], rtol=0, atol=1e-5)


def test_the_folder_serves_this_project(target, family):
    processor = Processor(target)
    layout = processor.layout
    assert (layout.enabled, layout.answer_style, layout.every, layout.position) == (True, "digits", 1, "after")
    assert processor.tokenizer("<1.24>", add_special_tokens=False).input_ids == [layout.first_token_id + 31]
    assert processor.answer_text(processor.answer_ids("dog 0.40-1.20")) == "dog 0.40-1.20"
    policy, _ = load_policy(target, processor.family, layout, torch.float32)
    banned = set(layout.banned_token_ids)
    assert processor.audio_token_id in banned and layout.first_token_id in banned
    assert processor.eos_token_id not in banned
    assert not banned & set(processor.answer_ids("dog 0.40-1.20; siren 2.00-29.96"))
    assert set(range(len(processor.tokenizer), policy.lm_head.weight.shape[0])) <= banned


def with_template(source, folder, template=None, file="chat_template.json"):
    """The published folder with its chat template in another file, or without one."""
    shutil.copytree(source, folder)
    own = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    if template is not None:
        (folder / file).write_text(json.dumps({"chat_template": template(own)}))
    return folder


def test_a_tokenizer_without_a_chat_template_gets_the_processors(source, target, tmp_path, family):
    said = []
    folder = with_template(source, tmp_path / "source", lambda own: own)
    init_model(folder, tmp_path / "out", TimestampSettings(), say=said.append)
    assert "prompts follow chat_template.json; the tokenizer has none" in said
    assert Processor(tmp_path / "out").prompt_ids("When?") == Processor(target).prompt_ids("When?")
    assert not (tmp_path / "out" / "chat_template.json").exists()  # the processor would read it in the other's place


def test_the_processors_chat_template_is_everybodys_in_the_new_folder(source, tmp_path):
    from transformers import AutoProcessor

    folder = tmp_path / "source"
    shutil.copytree(source, folder)
    template = (folder / "chat_template.jinja").read_text().replace("assistant\n", "assistant says:\n")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    said = []
    init_model(folder, tmp_path / "out", TimestampSettings(), say=said.append)
    assert "prompts follow chat_template.json; the tokenizer's own is left out" in said
    processor = Processor(tmp_path / "out")
    text = AutoProcessor.from_pretrained(tmp_path / "out").apply_chat_template(
        messages("When?"), add_generation_prompt=True, tokenize=False
    )
    assert text.endswith("assistant says:\n") and text == processor.tokenizer.decode(processor.prompt_ids("When?"))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, r"no chat template in tokenizer_config.json, chat_template.jinja or chat_template.json; fetch"),
        (lambda own: None, "no chat template in tokenizer_config.json"),
        (
            lambda own: "{{ messages[0]['content'] }}",
            r"its chat template writes <\|AUDIO\|> 0 times for a message with",
        ),
        (lambda own: own.replace("<|AUDIO|>", "<|AUDIO|><|AUDIO|>"), r"writes <\|AUDIO\|> 2 times"),
    ],
)
def test_a_folder_without_a_chat_template_that_writes_a_clip_is_refused(source, tmp_path, template, message):
    folder = with_template(source, tmp_path / "source", template)
    with pytest.raises(ValueError, match=message):
        init_model(folder, tmp_path / "out", TimestampSettings(), say=lambda line: None)
    assert not (tmp_path / "out").exists()


def test_a_damaged_chat_template_is_named(source, tmp_path):
    folder = with_template(source, tmp_path / "source")
    for content in ("{", "[]", '{"template": ""}'):
        (folder / "chat_template.json").write_text(content)
        with pytest.raises(ValueError, match="chat_template.json: no chat template under the key 'chat_template'"):
            init_model(folder, tmp_path / "out", TimestampSettings(), say=lambda line: None)


def test_the_folder_names_its_own_architecture(target, family):
    stored = json.loads((target / "config.json").read_text())
    assert stored["architectures"][0] == family_of(target).vllm_architecture
    assert "vLLM plugin" in stored["architectures"][1]


def test_what_generation_is_told_is_what_ends_an_answer(source, tmp_path):
    folder = tmp_path / "source"
    shutil.copytree(source, folder)
    published = {"do_sample": True, "repetition_penalty": 1.1, "top_k": 20, "eos_token_id": [7, 8], "pad_token_id": 7}
    (folder / "generation_config.json").write_text(json.dumps(published))
    said = []
    init_model(folder, tmp_path / "out", TimestampSettings(), say=said.append)
    assert any(line.endswith("without it: do_sample=True, repetition_penalty=1.1, top_k=20") for line in said)
    tokenizer = Processor(tmp_path / "out").tokenizer
    stored = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert stored == {"eos_token_id": [tokenizer.eos_token_id], "pad_token_id": tokenizer.pad_token_id}


def test_tied_heads_stay_tied(tmp_path, family):
    source = build(tmp_path / "tied", family, tied=True)
    init_model(source, tmp_path / "out", TimestampSettings(), say=lambda line: None)
    assert HEADS[family] not in tensors(tmp_path / "out")
    model = Processor(tmp_path / "out").family.load(tmp_path / "out", torch.float32)
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_settings_reach_the_layout(source, tmp_path):
    settings = TimestampSettings(0.1, 60.0, 5, "before", "timestamps", init="random", seed=3)
    init_model(source, tmp_path / "out", settings, say=lambda line: None)
    layout = Processor(tmp_path / "out").layout
    assert (layout.stride, layout.duration, layout.every, layout.position) == (0.1, 60.0, 5, "before")
    assert layout.answer_style == "timestamps"
    assert not set(range(layout.first_token_id, layout.first_token_id + 600)) & set(layout.banned_token_ids)


def test_random_rows_have_the_other_embeddings_scale(source, tmp_path, family):
    init_model(source, tmp_path / "out", TimestampSettings(init="random"), say=lambda line: None)
    processor, new = Processor(tmp_path / "out"), tensors(tmp_path / "out")[EMBEDDINGS[family]].float()
    first = processor.layout.first_token_id
    assert new[first : first + 750].std().item() == pytest.approx(new[:first].std().item(), rel=0.1)


def test_ordered_rows_are_distinct_and_the_report_says_so(source, tmp_path, family):
    said = {}
    for init in ("semantic", "semantic_ordered"):
        lines = []
        init_model(source, tmp_path / init, TimestampSettings(init=init), say=lines.append)
        said[init] = next(line for line in lines if line.endswith("distinct") or " distinct: " in line)
    assert said["semantic"].startswith("386 of 750 timestamp embeddings are distinct: ")
    assert "--init semantic_ordered" in said["semantic"]
    assert said["semantic_ordered"] == "750 of 750 timestamp embeddings are distinct"
    first, new = Processor(tmp_path / "semantic").layout.first_token_id, tensors(tmp_path / "semantic_ordered")
    for name in (EMBEDDINGS[family], HEADS[family]):
        assert not torch.equal(new[name][first + 31], new[name][first + 103]), name  # <1.24> and <4.12>
    lines = []
    init_model(tmp_path / "semantic", tmp_path / "again", TimestampSettings(), say=lines.append)
    assert said["semantic"] in lines  # also of timestamps that are there already


def test_a_thinker_alone_becomes_a_whole_checkpoint(tmp_path):
    whole = build(tmp_path / "whole", "qwen2_5_omni")
    alone = tmp_path / "alone"
    load_reference("qwen2_5_omni", whole).to(torch.bfloat16).save_pretrained(alone)
    for path in whole.iterdir():
        if path.suffix != ".safetensors" and not path.name.startswith(("config", "model.")):
            shutil.copy2(path, alone / path.name)
    assert json.loads((alone / "config.json").read_text())["model_type"] == "qwen2_5_omni_thinker"
    init_model(alone, tmp_path / "out", TimestampSettings(), say=lambda line: None)
    init_model(whole, tmp_path / "expected", TimestampSettings(), say=lambda line: None)
    found, expected = tensors(tmp_path / "out"), tensors(tmp_path / "expected")
    assert set(found) == set(expected)
    assert all(torch.equal(found[name].float(), expected[name].float()) for name in expected)
    assert Processor(tmp_path / "out").layout == Processor(tmp_path / "expected").layout


def test_the_same_timestamps_again_are_accepted_and_their_embeddings_kept(target, tmp_path, family):
    said = []
    init_model(target, tmp_path / "again", TimestampSettings(every=5), say=said.append)
    assert any("already" in line for line in said)
    old, new = tensors(target), tensors(tmp_path / "again")
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert Processor(tmp_path / "again").layout.every == 5


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: None, "exists already"),
        (lambda f: (f / "config.json").write_text('{"model_type": "llama"}'), "supported: qwen2_5_omni, .*qwen2_audio"),
        (lambda f: (f / "config.json").unlink(), "is not a checkpoint folder"),
        (lambda f: (f / "model-00002-of-00003.safetensors").unlink(), "model-00002-of-00003.safetensors missing"),
        (lambda f: cut(f / "model-00002-of-00003.safetensors", 0.5), "is cut off"),
        (lambda f: cut(f / "model-00001-of-00003.safetensors", 0.0), "not a safetensors file"),
        (lambda f: only_pickles(f), r"holds no \*.safetensors files \(pytorch_model.bin are pickled"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_left(source, tmp_path, damage, message, capsys):
    folder, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(source, folder)
    damage(folder)
    if message == "exists already":
        target.mkdir()
    with pytest.raises(ValueError, match=message):
        init_model(folder, target, TimestampSettings(), say=lambda line: None)
    assert main(["init-model", str(folder), str(target)]) == 2
    assert "timepro: " in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == (["source", "target"] if target.exists() else ["source"])


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def only_pickles(folder):
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x")


def test_other_timestamps_than_the_tokenizers_are_refused(target, tmp_path):
    with pytest.raises(ValueError, match=r"already has 750 timestamp tokens .*not the 300 of style table, stride 0.1"):
        init_model(target, tmp_path / "out", TimestampSettings(stride=0.1), say=lambda line: None)
    with pytest.raises(ValueError, match=r"already has 750 timestamp tokens .*not the 55 of style factorised"):
        init_model(target, tmp_path / "out", TimestampSettings(style="factorised"), say=lambda line: None)


def test_a_factorised_hour_starts_from_the_subwords_of_second_and_fraction(source, tmp_path, family):
    settings = TimestampSettings(duration=3600.0, every=25, answer_style="timestamps", style="factorised")
    said = []
    init_model(source, tmp_path / "hour", settings, say=said.append)
    processor, old, new = Processor(tmp_path / "hour"), tensors(source), tensors(tmp_path / "hour")
    layout = processor.layout
    assert (layout.style, len(layout.token_ids)) == ("factorised", 3625)
    assert any(line.startswith("added 3625 timestamps, <0 to .96>, as tokens") for line in said)
    stamp = processor.tokenizer("<2712.48>", add_special_tokens=False).input_ids
    assert stamp == [layout.first_token_id + 2712, layout.first_token_id + 3600 + 12]
    for name in (EMBEDDINGS[family], HEADS[family]):
        for token, number in zip(stamp, ("2712", ".48"), strict=True):
            ids = processor.tokenizer(number, add_special_tokens=False).input_ids
            assert torch.equal(new[name][token], old[name][ids].float().mean(0).to(torch.bfloat16)), (name, number)
    init_model(tmp_path / "hour", tmp_path / "again", settings, say=said.append)
    assert any(line.startswith("the tokenizer has these 3625 timestamps already") for line in said)
    assert Processor(tmp_path / "again").layout == layout
    with pytest.raises(ValueError, match=r"already has 3625 timestamp tokens .*not the 750 of style table"):
        init_model(tmp_path / "hour", tmp_path / "out", TimestampSettings(), say=lambda line: None)


def test_a_name_that_is_neither_folder_nor_repository_is_refused(capsys, tmp_path):
    assert main(["init-model", "./nowhere", str(tmp_path / "x")]) == 2
    assert "neither a folder nor a hub name" in capsys.readouterr().err


def test_the_layout_is_stored_where_both_sides_read_it(target, family):
    stored = json.loads((target / "config.json").read_text())
    part = stored["thinker_config"] if family == "qwen2_5_omni" else stored
    assert AstpLayout(**part["astp"]) == Processor(target).layout
    assert part["text_config"]["vocab_size"] % 64 == 0


def test_a_clip_beyond_the_timestamps_is_refused_with_what_to_set(tmp_path):
    config = TinyModelConfig(timestamps=TimestampsConfig(0.04, 4.0), layers=1, encoder_layers=1)
    build_tiny_checkpoint(tmp_path / "short", config, ["siren"], ["?"])
    processor = Processor(tmp_path / "short")
    from timepro.astp import interleave

    with pytest.raises(
        ValueError, match=r"clip of 4.04 s .* longer than the vocabulary's 4 s.*tiny.timestamps.duration"
    ):
        interleave(101, processor.audio_token_id, processor.layout, 25.0)


@pytest.mark.parametrize("tied", [False, True])
def test_the_configuration_says_whether_the_head_is_tied_as_the_weights_are(tmp_path, family, tied):
    """Published configurations leave it out, and what that means differs between transformers and vLLM."""
    source, target = build(tmp_path / "published", family, tied=tied), tmp_path / "out"
    path = source / "config.json"

    def without(value):
        return (
            {k: without(v) for k, v in value.items() if k != "tie_word_embeddings"}
            if isinstance(value, dict)
            else value
        )

    path.write_text(json.dumps(without(json.loads(path.read_text()))))
    init_model(source, target, TimestampSettings(), say=lambda line: None)
    config = json.loads((target / "config.json").read_text())
    parts = (config, *family_of(target).config_parts(config))
    assert [part["tie_word_embeddings"] for part in parts] == [tied] * 3
    model = Processor(target).family.load(target, torch.float32)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) is tied


@pytest.mark.parametrize("change", ["asks for", "has no place for"])
def test_weights_that_lack_a_tensor_or_hold_one_more_are_refused(target, tmp_path, family, change):
    """transformers would draw the missing one at random and leave the other out, and say so among its warnings."""
    folder, weights = tmp_path / "model", tensors(target)
    shutil.copytree(target, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    name = next(name for name in weights if "layers.0.self_attn.q_proj.bias" in name)
    changed = weights.pop(name) if change == "asks for" else weights[name].clone()
    if change != "asks for":
        weights[name.replace("q_proj", "other_proj")] = changed
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"layers.0.self_attn.*, which its .* {change} \(1 such\); fetch"):
        family_of(folder).load(folder, torch.float32)
