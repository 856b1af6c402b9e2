"""Sizes from a configuration, beside those of the classes that are built from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from timepro.families.published import PUBLISHED, Published
from trainer.launcher.plan.architecture import Architecture, architecture_of, of_folder, of_published
from trainer.settings.model import ModelConfig


def assert_counts(found: Architecture, folder: Path) -> None:
    family = found.family
    with torch.device("meta"):
        model = family.model_class()(family.load_config(folder))
    head = model.lm_head.weight
    decoder = {id(p): p.numel() for p in family.text_model(model).parameters()} | {id(head): head.numel()}
    assert found.decoder.parameters == sum(decoder.values())
    assert found.encoder.parameters == sum(p.numel() for p in family.audio_encoder(model).parameters())
    assert found.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda one: one.name)
def test_every_number_of_a_published_checkpoint_is_counted(published: Published, tmp_path: Path) -> None:
    found, config = of_published(published), published.config
    _, text = found.family.config_parts(config)
    assert text["vocab_size"] < found.decoder.rows < text["vocab_size"] + 1024  # and its timestamps
    text["vocab_size"] = found.decoder.rows
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert_counts(found, tmp_path)
    assert of_folder(tmp_path).decoder == found.decoder


@pytest.mark.parametrize("fixture", ["tiny_checkpoint", "tiny_qwen2_audio"])
def test_and_of_a_folder(request: pytest.FixtureRequest, fixture: str) -> None:
    folder = request.getfixturevalue(fixture)
    assert_counts(architecture_of(ModelConfig(path=str(folder))), folder)


def test_adapters_of_the_papers_rank() -> None:
    decoder = of_published(PUBLISHED[1]).decoder
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert decoder.adapter_parameters(8, targets) == 20_185_088
    # A layer's q and v: 8 x (3584 + 3584) and 8 x (3584 + 512).
    assert decoder.adapter_parameters(8, ["q_proj", "v_proj"]) == 28 * 8 * (2 * 3584 + 3584 + 512)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert architecture_of(ModelConfig(path=str(tmp_path / "qwen2_audio_7b"))).name == "Qwen2-Audio-7B-Instruct"
    with pytest.raises(ValueError, match=r"gone is not there, so its sizes are not known; .* Qwen2.5-Omni-7B"):
        architecture_of(ModelConfig(path=str(tmp_path / "gone")))
    (tmp_path / "qwen2_5_omni_7b").mkdir()
    with pytest.raises(ValueError, match="without config.json"):
        architecture_of(ModelConfig(path=str(tmp_path / "qwen2_5_omni_7b")))
    broken = json.dumps({"model_type": "qwen2_audio", "text_config": {}, "audio_config": {}})
    (tmp_path / "qwen2_5_omni_7b" / "config.json").write_text(broken)
    with pytest.raises(ValueError, match=r"config.json: 'intermediate_size' is missing"):
        architecture_of(ModelConfig(path=str(tmp_path / "qwen2_5_omni_7b")))
