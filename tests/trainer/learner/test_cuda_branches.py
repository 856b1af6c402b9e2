"""What the learner does on a card only, without one: mocked cards, fake process groups. See trainer/README.md."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from rollout.settings import WorkerConfig
from timepro import low_rank
from trainer.learner import distributed, head, last_sent, offload, profiling, sender, usage, zero
from trainer.settings.experiment import ExperimentConfig
from trainer.settings.learner import LearnerConfig
from trainer.settings.nodes import NodesConfig
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.sync import SyncConfig
from trainer.settings.zero import ZeroConfig

CPU, CARD = torch.device("cpu"), torch.device("cuda", 2)


@pytest.fixture
def mocked_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver lists cards, and this is the third rank of its node."""
    monkeypatch.setattr("timepro.system.device.on_gpu", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "2")


def test_a_rank_computes_on_the_card_of_its_number(mocked_card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert distributed.device() == CARD
    monkeypatch.setattr("timepro.system.device.on_gpu", lambda: False)
    assert distributed.device() == CPU


@pytest.mark.parametrize(("on_card", "backend"), [(True, "nccl"), (False, "gloo")])
def test_a_rank_takes_its_card_before_it_joins_the_fake_group(
    monkeypatch: pytest.MonkeyPatch, on_card: bool, backend: str
) -> None:
    """Else NCCL would open a context on the first card for all of them."""
    done: list[Any] = []
    monkeypatch.setattr("timepro.system.device.on_gpu", lambda: on_card)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(device))
    monkeypatch.setattr(
        distributed.dist, "init_process_group", lambda *args, **options: done.append((args[0], options["timeout"]))
    )
    environment = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "2", "TIMEPRO_STORE_HOST": "127.0.0.1"}
    store = distributed.stream.host_store("127.0.0.1", 0, 10)
    for name, value in (environment | {"TIMEPRO_STORE_PORT": str(store.port)}).items():
        monkeypatch.setenv(name, value)
    distributed.join(12.0)
    assert [entry if isinstance(entry, torch.device) else entry[0] for entry in done] == [CARD] * on_card + [backend]
    assert done[-1][1].total_seconds() == 12.0


def test_weights_are_bfloat16_and_communication_overlaps_on_a_mocked_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {}
    for where in (CPU, CARD):
        monkeypatch.setattr(distributed, "device", lambda where=where: where)
        config = zero.deepspeed_config(OptimiserConfig(), ZeroConfig(reduce_bucket=7), torch.bfloat16)
        stage = config["zero_optimization"]
        dtype = zero.compute_dtype(ZeroConfig(dtype="auto"))
        found[where.type] = dtype, stage["overlap_comm"], stage["stage3_prefetch_bucket_size"]
    assert found == {"cpu": (torch.float32, False, 0), "cuda": (torch.bfloat16, True, 7)}


@pytest.mark.parametrize(("where", "backend"), [(CPU, "gloo"), (CARD, "nccl")])
def test_deepspeed_is_told_the_backend_of_the_mocked_card(
    monkeypatch: pytest.MonkeyPatch, where: torch.device, backend: str
) -> None:
    asked: list[str] = []

    class FakeDeepSpeed:
        @staticmethod
        def init_distributed(dist_backend: str) -> None:
            asked.append(dist_backend)

        @staticmethod
        def initialize(model: Any, optimizer: Any, config: Any) -> tuple[str, None]:
            return "engine", None

    class Tiny(nn.Linear):
        source = None  # its weights are there

        def parameter_groups(self, weight_decay: float) -> Any:
            return list(self.parameters())

    monkeypatch.setattr(zero, "import_deepspeed", lambda: FakeDeepSpeed)
    monkeypatch.setattr(distributed, "device", lambda: where)
    assert zero.initialise(Tiny(2, 2), OptimiserConfig(), ZeroConfig()) == "engine"
    assert asked == [backend]


@pytest.mark.parametrize(
    ("transport", "apart", "where", "expected"),
    [
        ("auto", True, CARD, CARD),
        ("auto", False, CARD, CPU),
        ("auto", True, CPU, CPU),
        ("gloo", True, CARD, CPU),
        ("nccl", True, CARD, CARD),
        ("nccl", False, CARD, None),
        ("nccl", True, CPU, None),
    ],
)
def test_the_weight_stream_lies_on_a_card_only_where_workers_have_others(
    monkeypatch: pytest.MonkeyPatch, transport: str, apart: bool, where: torch.device, expected: torch.device | None
) -> None:
    monkeypatch.setattr(distributed, "device", lambda: where)
    if expected is None:
        with pytest.raises(ValueError, match=r"sync\.transport=nccl needs GPUs of their own"):
            sender.stream_device(SyncConfig(transport=transport), apart)
    else:
        assert sender.stream_device(SyncConfig(transport=transport), apart) == expected


@pytest.mark.parametrize(
    ("learner", "workers", "generating", "apart"),
    [
        ("0,1", "2,3", 0, True),
        ("0, 1", "1", 0, False),  # a space is no other card
        ("", "", 0, False),  # all share what is there
        ("1", "", 0, False),  # who names none may be on any
        ("", "2", 0, False),
        ("", "0,1", 1, True),  # other nodes' cards have the same numbers
    ],
)
def test_cards_are_apart_where_no_rank_computes_on_a_workers(
    learner: str, workers: str, generating: int, apart: bool
) -> None:
    config = ExperimentConfig(name="cards")
    config.learner, config.rollout = LearnerConfig(ranks=2, gpus=learner), WorkerConfig(gpus=workers)
    config.nodes = NodesConfig(generating=generating)
    assert config.cards_apart is apart


def test_a_mocked_cards_peak_memory_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "memory/gpu_peak_gib" not in usage.peak_memory_gib()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 << 30)
    assert usage.peak_memory_gib()["memory/gpu_peak_gib"] == 3.0


@pytest.mark.parametrize("pin", [False, True])
def test_a_mocked_cards_activation_goes_to_pinned_memory_and_back(pin: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card's tensor is copied into memory that is asked for with its layout, and comes back to its device."""
    card = torch.device("cuda", 0)
    weight = nn.Parameter(torch.ones(4, 8))
    value = torch.arange(24.0).reshape(3, 8)

    class OnACard:
        device, shape = card, value.shape
        numel, element_size, data_ptr, stride = value.numel, value.element_size, value.data_ptr, value.stride

    class Kept:
        def copy_(self, source: OnACard) -> Kept:
            self.source = source
            return self

        def to(self, device: torch.device, non_blocking: bool) -> tuple[Any, ...]:
            return self.source, device, non_blocking

    tensor, asked = OnACard(), []

    def mocked_empty_like(like: Any, **options: Any) -> Kept:
        asked.append((like, options))
        return Kept()

    monkeypatch.setattr(torch, "empty_like", mocked_empty_like)
    moving = offload.OffloadedActivations([weight], pin)
    assert moving._unpack(moving._pack(cast(Tensor, tensor))) == (tensor, card, pin)
    assert asked == [(tensor, {"device": "cpu", "pin_memory": pin})]
    assert moving.moved_bytes == 96


@pytest.mark.parametrize("n", [1024, 1023])
def test_what_has_changed_is_found_number_by_number_as_on_a_card(n: int) -> None:
    """An odd number of them takes a card's path on a CPU, an even one the path by words."""
    before = torch.arange(n, dtype=torch.int16)
    now = before.clone()
    now[[0, 5, n - 1]] += 1
    assert last_sent.changed(now, before).tolist() == [0, 5, n - 1]


@pytest.mark.parametrize(("where", "waits"), [(CARD, 1), (CPU, 0)])
def test_a_profiled_span_ends_when_the_mocked_card_has_done_its_part(
    monkeypatch: pytest.MonkeyPatch, where: torch.device, waits: int
) -> None:
    order: list[str] = []
    monkeypatch.setattr(distributed, "device", lambda: where)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: order.append("waited"))
    profile: Any = object.__new__(profiling.StepProfiler)
    profile._during = SimpleNamespace(add_span=lambda name, seconds: order.append(name))
    with profile._listen("update"):
        order.append("launched")
    assert order == ["launched"] + ["waited"] * waits + ["update"]


def test_products_are_in_the_weights_own_type_off_the_cpu() -> None:
    """On the meta device as on a card; a CPU takes float32 instead, which has no hardware for bfloat16."""
    for device, expected in (("cpu", torch.float32), ("meta", torch.bfloat16)):
        weight = torch.zeros(2, 2, dtype=torch.bfloat16, device=device)
        assert head._product_dtype(weight) == expected
        assert low_rank._slow(weight) is (device == "cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_fast_path_of_adapters_gives_the_slow_ones_numbers(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """The path of a card, made to run on the CPU: one product with the sum inside it, rounded once."""
    torch.manual_seed(0)
    x, w, added = torch.randn(5, 64).to(dtype), torch.randn(7, 64).to(dtype), torch.randn(5, 7).to(dtype)
    slow = low_rank.add_linear(added.clone(), x, w, None, overwrite=True)
    monkeypatch.setattr(low_rank, "_slow", lambda x: False)
    for overwrite in (False, True):
        fast = low_rank.add_linear(added.clone(), x, w, None, overwrite=overwrite)
        assert torch.allclose(fast.float(), slow.float(), rtol=2**-7 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)


class Reached(Exception):
    """A collective was called with a tensor on this device."""


def reach(tensor: Tensor, *_: Any) -> None:
    raise Reached(tensor.device.type)


def test_values_between_ranks_are_made_on_the_mocked_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL takes no tensor of main memory. The meta device stands for the card."""
    monkeypatch.setattr(distributed, "device", lambda: torch.device("meta"))
    monkeypatch.setattr(distributed, "is_first", lambda: True)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed.dist, "all_reduce", reach)
    monkeypatch.setattr(distributed.dist, "broadcast", reach)
    monkeypatch.setattr(distributed.dist, "all_gather", lambda parts, own: [reach(part) for part in (*parts, own)])
    calls = (
        lambda: distributed.total(1.0),
        lambda: distributed.from_first({"a": 1}),
        lambda: distributed.from_every(2),
    )
    for call in calls:
        with pytest.raises(Reached, match="meta"):
            call()
