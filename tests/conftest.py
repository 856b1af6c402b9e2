"""Settings and the one tiny checkpoint that all tests share."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub

import pytest
import torch

import toy_task
from timepro.tasks import registry

_MODULES = itertools.count()  # an imported module stays imported, so each test's has a name of its own

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For several processes (`-n`, whose `--dist loadfile` keeps a file's tests in one): the longest files go first."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(
        key=lambda item: (
            item.path.stem != "test_whole_run", item.get_closest_marker("e2e") is None, item.path not in slow
        )
    )  # fmt: skip


@pytest.fixture
def known_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that a test adds are forgotten behind it."""
    for name in registry.SHIPPED:
        registry.find_task(name)
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known_tasks: None) -> str:
    """The import path of a task in a folder that is on PYTHONPATH; nobody has imported it yet."""
    folder = tmp_path / "outside"
    spec = toy_task.write(folder, f"users_task_{next(_MODULES)}")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    return spec


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Qwen2.5-Omni of the real classes, whose labels are the synthesiser's. Read only."""
    return _build(tmp_path_factory, "qwen2_5_omni")


@pytest.fixture(scope="session")
def tiny_qwen2_audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of Qwen2-Audio. Read only."""
    return _build(tmp_path_factory, "qwen2_audio")


def _build(tmp_path_factory: pytest.TempPathFactory, family: str) -> Path:
    from timepro.data.sounds import SOUNDS
    from timepro.tasks.samples import tokenizer_texts
    from timepro.tiny.build import build_tiny_checkpoint
    from timepro.tiny.config import TinyModelConfig

    folder = tmp_path_factory.mktemp("checkpoints") / family
    config = TinyModelConfig(
        family=family, hidden_size=64, heads=2, key_value_heads=1, feed_forward=96, encoder_width=32, encoder_layers=1,
        encoder_heads=2, encoder_feed_forward=48,
    )  # fmt: skip
    texts = tokenizer_texts() + [text for sound in SOUNDS.values() for text in (sound.spoken, *sound.captions)]
    build_tiny_checkpoint(folder, config, SOUNDS, texts)
    return folder
