"""What a checkpoint says of itself, what is said of what it never saw, and how it gets to a hub."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from timepro import load
from timepro.card import Card, read_card, unseen, write_card
from timepro.cli import main
from timepro.data.clips import Clip, ManifestEvent, Query
from timepro.data.manifest import write_manifest
from timepro.names import CARD, MODEL_CARD

SED = {"n": 8, "eb_f1_micro": 0.5, "eb_f1_macro": 0.4, "miou": 0.6, "precision": 0.5, "recall": 0.5, "unparsable": 0.0}
CARD_OF_SED = Card(
    name="my_run", family="qwen2_5_omni", base="a tiny random qwen2_5_omni", tasks=("sed",),
    classes=("dog_bark", "siren"),
    made={"started": "2026-01-01", "commit": "abc123", "timepro": "0.1.0", "seed": 3, "seconds": {"grpo": 12.0}},
    data={"test": {"name": "test.jsonl", "clips": 8, "sha256": "0" * 64}}, settings={"seed": 3},
    metrics={"sft": {"sed": SED | {"interval": [0.3, 0.6]}}, "grpo": {"sed": SED | {"interval": [0.45, 0.55]}}},
    gain={"eb_f1_micro": {"value": 0.1, "ci95": [0.05, 0.15], "over": "sft"}},
    timestamps="factorised, 30 s in steps of 0.04 s, 55 tokens",
)  # fmt: skip


@pytest.fixture
def carded(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint folder with a card: trained for detection, on two classes."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    write_card(folder, CARD_OF_SED)
    return folder


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(tmp_path / "clip.wav", noise.astype(np.float32), 16000)
    return tmp_path / "clip.wav"


def test_a_card_is_read_as_written_and_a_folder_without_one_has_none(carded: Path, tiny_checkpoint: Path) -> None:
    assert read_card(carded) == CARD_OF_SED
    assert read_card(tiny_checkpoint) is None
    stored = json.loads((carded / CARD).read_text())
    del stored["timestamps"]  # as earlier versions wrote it
    (carded / CARD).write_text(json.dumps(stored))
    assert read_card(carded) == replace(CARD_OF_SED, timestamps="")


@pytest.mark.parametrize("damage", ["{", "[]", '{"version": 1, "name": "x"}', '{"version": 99}'])
def test_a_damaged_card_is_named(carded: Path, damage: str) -> None:
    (carded / CARD).write_text(damage)
    with pytest.raises(ValueError, match=f"{CARD} cannot be read"):
        read_card(carded)


def test_the_model_card_is_one_of_the_hub(carded: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(carded / MODEL_CARD)
    front = yaml.safe_load((carded / MODEL_CARD).read_text().split("---")[1])
    assert card.data.library_name == "timepro-rl" and "qwen2_5_omni" in front["tags"]
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.task_name) == ("eb_f1_micro", 0.5, "sed")
    for words in (
        "dog_bark, siren",
        "abc123",
        "| grpo | 0.500",
        "0.450 to 0.550",
        "timestamps: factorised, 30 s in steps of 0.04 s, 55 tokens",
        "+0.100 eb_f1_micro [+0.050, +0.150]",
    ):
        assert words in card.text, words


def test_a_card_without_an_evaluation_says_so(carded: Path) -> None:
    write_card(carded, replace(CARD_OF_SED, metrics={}, gain={}))
    text = (carded / MODEL_CARD).read_text()
    assert "It has not been evaluated." in text and "model-index" not in text


def test_what_it_never_saw_is_said() -> None:
    assert unseen(CARD_OF_SED, "sed", ["siren"]) == [] == unseen(None, "dac")
    (note,) = unseen(CARD_OF_SED, "ag")
    assert "my_run was trained for sed, never for task ag" in note
    (note,) = unseen(CARD_OF_SED, "sed", ["siren", "dog_barks", *"abcdef"])
    assert "never trained on dog_barks (did you mean dog_bark?), a, b, c, d and 2 more" in note


def test_a_loaded_checkpoint_warns_of_a_task_it_never_saw(carded: Path, clip: Path) -> None:
    model = load(carded, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.answer(clip, max_tokens=2)
        model.answer(clip, "In your own words: what do you hear?", max_tokens=2)
    with pytest.warns(UserWarning, match="never for task ag") as caught:
        model.answer(clip, query="a siren", max_tokens=2)
    assert caught[0].filename == __file__
    write_card(carded, replace(CARD_OF_SED, tasks=("ag",), classes=(), metrics={}))
    grounding = load(carded, device="cpu")
    with pytest.warns(UserWarning, match="trained for ag, never for task sed"):
        grounding.answer(clip, max_tokens=2)


def test_evaluate_asks_the_tasks_of_the_card_and_says_what_is_new(carded: Path, clip: Path, capsys, tmp_path) -> None:
    event = ManifestEvent(0.2, 0.6, "glass")
    write_manifest(tmp_path / "test.jsonl", [Clip("a", clip, 1.0, (event,), (Query("a siren", ((0.2, 0.6),)),))])
    words = ["evaluate", "--checkpoint", str(carded), str(tmp_path / "test.jsonl"), "--backend", "transformers"]
    words += ["--max-tokens", "4", "--json", "--out", str(tmp_path / "out.jsonl")]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert list(json.loads(out)["tasks"]) == ["sed"] and "never trained on glass" in err
    assert main([*words, "--task", "ag"]) == 0
    out, err = capsys.readouterr()
    assert list(json.loads(out)["tasks"]) == ["ag"] and "never for task ag" in err
    write_card(carded, replace(CARD_OF_SED, tasks=("ag",), classes=(), metrics={}))
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert list(json.loads(out)["tasks"]) == ["ag"] and "note" not in err


class MockHubClient:
    """Stands for `huggingface_hub.HfApi`: keeps what it is asked, and sends nothing."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.error: Exception | None = None

    def create_repo(self, name: str, **settings: Any) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append(("create_repo", {"name": name, **settings}))

    def upload_folder(self, **settings: Any) -> None:
        self.calls.append(("upload_folder", settings))


@pytest.fixture
def mock_hub(monkeypatch: pytest.MonkeyPatch) -> MockHubClient:
    import huggingface_hub
    from huggingface_hub import constants

    client = MockHubClient()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: client)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return client


def test_push_asks_a_mocked_hub_client_for_a_private_repository_and_the_whole_folder(
    carded: Path, mock_hub: MockHubClient, capsys
) -> None:
    (carded / "adapter").mkdir()
    (carded / "adapter" / "adapter_config.json").write_text("{}")
    assert main(["push", str(carded), "me/model"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1].endswith("/me/model") and "not uploaded: adapter/adapter_config.json" in said
    assert mock_hub.calls == [
        ("create_repo", {"name": "me/model", "private": True, "exist_ok": True}),
        (
            "upload_folder",
            {
                "repo_id": "me/model",
                "folder_path": carded,
                "commit_message": "Add a checkpoint",
                "ignore_patterns": ["adapter/*"],
            },
        ),
    ]
    assert main(["push", str(carded), "me/model", "--public"]) == 0
    assert mock_hub.calls[2][1]["private"] is False


def test_the_mocked_calls_are_ones_that_the_hubs_client_takes(carded: Path, mock_hub: MockHubClient) -> None:
    import inspect

    from huggingface_hub.hf_api import HfApi

    assert main(["push", str(carded), "me/model"]) == 0
    for method, settings in mock_hub.calls:
        named = {"repo_id" if key == "name" else key: value for key, value in settings.items()}
        inspect.signature(getattr(HfApi, method)).bind(None, **named)


def test_a_dry_run_asks_not_even_the_mocked_client(carded: Path, mock_hub: MockHubClient, capsys) -> None:
    assert main(["push", str(carded), "me/model", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "MiB  model.safetensors" in said and f"MiB  {MODEL_CARD}" in said and mock_hub.calls == []


def test_push_refuses_helpfully(
    carded: Path, tiny_checkpoint: Path, mock_hub: MockHubClient, monkeypatch, capsys
) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    def refused(*words: str) -> str:
        assert main(["push", *words]) == 2
        return capsys.readouterr().err

    assert f"holds no {CARD}" in refused(str(tiny_checkpoint), "me/model")
    assert "gone does not exist" in refused("gone", "me/model")
    assert "'model' is not a repository's name, OWNER/NAME" in refused(str(carded), "model")
    mock_hub.error = OSError("no route to the hub\nand more")
    assert f"the hub has not taken {carded} as me/model: no route to the hub\n" in refused(str(carded), "me/model")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert "auth login, or set HF_TOKEN" in refused(str(carded), "me/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused(str(carded), "me/model")
    assert mock_hub.calls == []
