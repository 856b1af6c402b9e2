"""The published configurations: read by their families and by transformers, and found by a folder's name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from timepro.families import family_of
from timepro.families.published import PUBLISHED, Published, published_named


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda one: one.name)
def test_family_and_transformers_read_the_same_sizes(published: Published, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(published.config))
    family = family_of(tmp_path)
    _, text = family.config_parts(published.config)
    config = family.load_config(tmp_path)
    for part, own in ((config.text_config, text), (config.audio_config, _part(published, "audio_config"))):
        assert {key: getattr(part, key) for key in own} == own
    assert family.audio_token_id(config) == 151646
    assert not config.tie_word_embeddings


def _part(published: Published, name: str) -> dict:
    return published.config.get("thinker_config", published.config)[name]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("checkpoints/qwen2_5_omni_7b", "Qwen2.5-Omni-7B"),
        ("Qwen/Qwen2.5-Omni-3B", "Qwen2.5-Omni-3B"),
        ("qwen2_audio_7b", "Qwen2-Audio-7B-Instruct"),
        ("qwen2_5_omni", None),  # 3B or 7B
        ("whisper", None),
        ("checkpoints/", None),
    ],
)
def test_a_name_means_one_of_them_or_none(name: str, found: str | None) -> None:
    published = published_named(name)
    assert (published.name if published else None) == found


def test_a_configuration_is_a_copy() -> None:
    PUBLISHED[0].config["thinker_config"]["text_config"]["vocab_size"] = 1
    assert PUBLISHED[0].config["thinker_config"]["text_config"]["vocab_size"] == 151936
