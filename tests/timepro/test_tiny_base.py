"""The shipped small base: what is in the package, what is refused, and what timestamps are added to it."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from timepro.card import read_card
from timepro.features import Processor
from timepro.ship_base import MOST_MB, main, ship
from timepro.tiny.base import FOLDER, base_folder, build_on_base
from timepro.tiny.config import TinyModelConfig

pytestmark = pytest.mark.usefixtures("known_tasks")
FAMILIES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


def on_base(**settings) -> TinyModelConfig:
    return TinyModelConfig(from_scratch=False, answer_style="timestamps", astp_every=5, **settings)


def test_a_base_is_shipped():
    assert FAMILIES == ["qwen2_5_omni", "qwen2_audio"]
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < MOST_MB * 1e6


@pytest.mark.parametrize("family", FAMILIES)
def test_it_has_no_timestamps_and_says_how_it_was_made(family):
    folder = base_folder(on_base(family=family))
    processor = Processor(folder)
    assert not processor.layout.enabled
    assert not [token for token in processor.tokenizer.get_vocab() if re.match(r"<\d", token)]
    card = read_card(folder)
    assert card is not None and card.family == family
    assert card.task_names == ["tag", "order", "count", "next", "caption", "compare", "read"]
    assert card.metrics["sft"]["tag"]["tag_f1"] > 0.9
    assert "zero-shot" in (folder / "README.md").read_text(encoding="utf-8")
    assert all(tensor.dtype == torch.bfloat16 for tensor in load_file(folder / "model.safetensors").values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("init", ["smooth", "semantic", "random"])
def test_timestamps_are_added_and_nothing_else_is_changed(family, init, tmp_path):
    config = on_base(family=family, timestamp_init=init)
    build_on_base(tmp_path / "checkpoint", config)
    processor = Processor(tmp_path / "checkpoint")
    assert processor.layout.enabled and processor.layout.every == 5 and processor.layout.answer_style == "timestamps"
    before, after = (
        load_file(folder / "model.safetensors") for folder in (base_folder(config), tmp_path / "checkpoint")
    )
    grown = {name for name in before if before[name].shape != after[name].shape}
    assert grown == {processor.family.embedding_name, processor.family.head_name}
    for name in before:
        assert torch.equal(before[name], after[name][: len(before[name])]) or name in grown
    first, size = processor.layout.first_token_id, processor.layout.vocabulary.size
    embeddings, head = (after[name] for name in (processor.family.embedding_name, processor.family.head_name))
    assert torch.equal(embeddings[:first], before[processor.family.embedding_name][:first])
    assert torch.equal(embeddings[first : first + size], head[first : first + size])


def test_without_timestamps_in_the_prompt_answers_still_have_them(tmp_path):
    build_on_base(tmp_path / "checkpoint", on_base(astp=False))
    layout = Processor(tmp_path / "checkpoint").layout
    assert not layout.enabled and layout.first_token_id > 0


def test_a_family_without_a_base_is_named():
    with pytest.raises(ValueError, match=r"'qwen9'.*there is: .*qwen2_5_omni.*from_scratch=true"):
        base_folder(on_base(family="qwen9"))


@pytest.mark.parametrize("setting", [{"hidden_size": 64}, {"layers": 3}, {"published": True}, {"vocabulary": 900}])
def test_a_shape_of_another_model_is_refused(setting):
    with pytest.raises(ValueError, match=rf"model.tiny.{next(iter(setting))}=.*from_scratch=true"):
        base_folder(on_base(**setting))


def test_only_a_finished_base_is_shipped(tmp_path, capsys):
    with pytest.raises(ValueError, match="no finished checkpoint with a card"):
        ship(tmp_path, tmp_path / "test.jsonl")
    timed = tmp_path / "checkpoint"
    build_on_base(timed, on_base())
    card = json.loads((timed / "timepro.json").read_text(encoding="utf-8"))
    card["settings"]["model"]["tiny"]["published"] = False
    (timed / "timepro.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(ValueError, match="has timestamps already"):
        ship(tmp_path, tmp_path / "test.jsonl")
    assert main([]) == 1
    assert "ship_base RUN MANIFEST" in capsys.readouterr().err
