"""What follows from a card, without one: a fake driver's listing, mocked cards. See trainer/README.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from timepro.inference import generation, model
from timepro.system import device

LISTING = r"""#!/bin/sh
case "$1" in
  -L) printf 'GPU 0: NVIDIA H100 (UUID: GPU-a)\nGPU 1: NVIDIA H100 (UUID: GPU-b)\n' ;;
  --query-gpu=name) printf 'NVIDIA H100\nNVIDIA H100\n' ;;
  *) exit 1 ;;
esac
"""


@pytest.fixture
def fake_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Puts an `nvidia-smi` of this content before all others."""
    known: tuple[Any, ...] = (device.on_gpu, device.n_gpus, device.gpu_names, device.gpu_memory_gib)

    def put(script: str) -> None:
        path = tmp_path / "nvidia-smi"
        path.write_text(script)
        path.chmod(0o755)
        for function in known:
            function.cache_clear()

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("TIMEPRO_DEVICE", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield put
    for function in known:
        function.cache_clear()


def test_the_fake_drivers_cards_are_counted_as_far_as_they_are_visible(fake_driver, monkeypatch) -> None:
    fake_driver(LISTING)
    assert (device.on_gpu(), device.n_gpus(), device.gpu_names()) == (True, 2, ("NVIDIA H100", "NVIDIA H100"))
    for visible, count in (("1", 1), ("", 0), ("0,1,2", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        fake_driver(LISTING)
        assert (device.on_gpu(), device.n_gpus(), len(device.gpu_names())) == (count > 0, count, count)


def test_a_fake_driver_that_fails_or_is_overruled_is_no_card(fake_driver, monkeypatch) -> None:
    fake_driver("#!/bin/sh\nexit 9\n")
    assert (device.on_gpu(), device.gpu_memory_gib()) == (False, ())
    monkeypatch.setenv("TIMEPRO_DEVICE", "cpu")
    fake_driver(LISTING)
    assert (device.on_gpu(), device.gpu_names()) == (False, ())


@pytest.mark.parametrize(
    ("listed", "usable", "asked", "expected"),
    [
        (True, True, "auto", ("cuda", torch.bfloat16)),
        (True, False, "auto", ("cpu", torch.float32)),  # a driver beside a PyTorch without CUDA
        (False, True, "auto", ("cpu", torch.float32)),  # TIMEPRO_DEVICE=cpu
        (True, True, "cuda:1", ("cuda:1", torch.bfloat16)),
        (True, True, "cpu", ("cpu", torch.float32)),
    ],
)
def test_a_model_goes_to_the_mocked_card_in_bfloat16(monkeypatch, listed, usable, asked, expected) -> None:
    loaded: list[Any] = []

    class Loaded:
        def to(self, where: torch.device) -> Loaded:
            loaded.append(where)
            return self

    def load(folder: Path, dtype: torch.dtype) -> Loaded:
        loaded.append(dtype)
        return Loaded()

    monkeypatch.setattr(model, "on_gpu", lambda: listed)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    monkeypatch.setattr(model, "read_card", lambda folder: None)
    monkeypatch.setattr(model, "Processor", lambda *_: SimpleNamespace(family=SimpleNamespace(load=load)))
    made = model.load("folder", device=asked)
    assert (made.device, loaded) == (torch.device(expected[0]), [expected[1], torch.device(expected[0])])


def test_a_card_that_pytorch_does_not_find_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="this PyTorch finds no GPU; use device='cpu'"):
        model.load("folder", device="cuda")


def test_drawing_leaves_the_random_numbers_of_the_mocked_card_as_they_were(monkeypatch) -> None:
    """Those of the card that the prompt lies on, and of no other."""
    kept: list[Any] = []
    fork = torch.random.fork_rng
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: kept.append(devices) or fork(devices=[]))
    processor = SimpleNamespace(
        layout=SimpleNamespace(banned_token_ids=()), eos_token_id=1, tokenizer=SimpleNamespace(pad_token_id=0)
    )
    answering = SimpleNamespace(generate=lambda **_: "answer")
    monkeypatch.setattr(torch, "ones", lambda *args, **_: None)
    for where, expected in ((torch.device("cpu"), []), (torch.device("cuda", 1), [torch.device("cuda", 1)])):
        embeds: Any = SimpleNamespace(device=where, shape=(1, 2, 3))
        assert generation._generate(processor, answering, embeds, 4, 1, 1.0, 0, False) == "answer"
        assert kept.pop() == expected
