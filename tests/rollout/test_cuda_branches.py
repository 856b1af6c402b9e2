"""What a worker does on a card only, without one: a fake NCCL, mocked streams. See trainer/README.md."""

from __future__ import annotations

import os
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rollout import checksum, delta, stream

CARD = torch.device("cuda", 1)


class FakeNccl(torch.distributed.ProcessGroupGloo):
    """NCCL's interface over gloo: what it was asked for is kept."""

    made: list[FakeNccl] = []

    class Options:
        _timeout = timedelta(minutes=10)

    def __init__(self, store: Any, rank: int, size: int, options: Options) -> None:
        super().__init__(store, rank, size, options._timeout)
        self.timeout, self.connected = options._timeout, None
        self.environment = {name: os.environ.get(name) for name in ("TORCH_NCCL_BLOCKING_WAIT",)}
        FakeNccl.made.append(self)

    def eager_connect_single_device(self, device: torch.device) -> None:
        self.connected = device


@pytest.fixture
def fake_nccl(monkeypatch: pytest.MonkeyPatch) -> list[FakeNccl]:
    FakeNccl.made = []
    monkeypatch.setattr(torch.distributed, "ProcessGroupNCCL", FakeNccl, raising=False)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    return FakeNccl.made


def test_a_fake_nccl_group_has_the_streams_deadline_and_connects_while_everybody_is_there(fake_nccl) -> None:
    store = stream.host_store("127.0.0.1", 0, 10)
    group = stream.join_group(store, "weights", 0, 1, 7.0, CARD)
    (made,) = fake_nccl
    assert made.timeout == timedelta(seconds=7) and made.connected == CARD
    assert made.environment == {"TORCH_NCCL_BLOCKING_WAIT": "1"}
    assert os.environ.get("TORCH_NCCL_BLOCKING_WAIT") is None
    assert group.size() == 1


def test_peers_that_do_not_come_are_missed_before_a_fake_nccl_is_made(fake_nccl) -> None:
    store = stream.host_store("127.0.0.1", 0, 10)
    with pytest.raises(stream.PeersMissing):
        stream.join_group(store, "weights", 0, 2, 0.2, CARD)
    assert not fake_nccl


def test_a_mocked_cards_bytes_are_summed_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the host only the sums arrive, never the bytes. The part says that it is on a card."""
    part = torch.arange(4096, dtype=torch.int64).view(torch.uint8)
    sums = checksum.weighted_sums(part)
    on_card = SimpleNamespace(device=CARD, numel=part.numel)
    monkeypatch.setattr(checksum, "host_sum", lambda given: pytest.fail("the bytes were brought to the host"))
    monkeypatch.setattr(checksum, "weighted_sums", lambda given: sums if given is on_card else None)
    found = checksum.slice_sum(on_card)  # type: ignore[arg-type]
    assert found == part.numel().to_bytes(8, "little") + sums.numpy().tobytes()


@pytest.mark.parametrize(("where", "sizes"), [("meta", [16, 3]), ("cpu", [4, 4, 8, 3])])
def test_small_shares_are_joined_before_they_are_summed_off_the_cpu(
    monkeypatch: pytest.MonkeyPatch, where: str, sizes: list[int]
) -> None:
    """The meta device stands for the card."""
    summed: list[int] = []
    monkeypatch.setattr(delta, "_JOINED_BYTES", 16)
    share: Any = object.__new__(delta.ShareChecksum)
    share._waiting, share._sum = [], SimpleNamespace(add=lambda part: summed.append(part.numel()), value=lambda: 7)
    for size in (4, 4, 8, 0, 3):
        share.add(torch.empty(size, dtype=torch.uint8, device=where))
    assert share.value() == 7 and summed == sizes


class TestReceiver:
    """The worker's end, without an engine around it."""

    @pytest.fixture
    def receiver(self) -> Any:
        receiver_module = pytest.importorskip("rollout.receiver")
        made = object.__new__(receiver_module.TorchDistReceiver)
        made._group = made._store = made._info = None
        made.model = torch.nn.Linear(1, 1)
        made.parallel_config = SimpleNamespace(data_parallel_index=1, world_size=2, rank=1)
        return made

    @pytest.mark.parametrize(
        ("own", "told", "buffers"), [("cuda:1", "cuda", "cuda:1"), ("cuda:1", "cpu", "cpu"), ("cpu", "cpu", "cpu")]
    )
    def test_buffers_lie_where_the_learner_says_on_the_mocked_card_of_the_worker(
        self, receiver: Any, monkeypatch: pytest.MonkeyPatch, own: str, told: str, buffers: str
    ) -> None:
        from rollout.receiver import GroupInfo

        joined: list[Any] = []
        monkeypatch.setattr(stream, "join_store", lambda *args: "store")
        monkeypatch.setattr(stream, "join_group", lambda *args: joined.append(args) or "group")
        receiver.device = torch.device(own)
        info = GroupInfo(
            host="127.0.0.1", port=1, prefix="p", first_rank=3, world_size=9, timeout_s=1.0, bucket_bytes=8,
            adapters=False, device=told,
        )  # fmt: skip
        receiver.init_transfer_engine(info)
        ((_, _, rank, world, _, device),) = joined
        assert (rank, world, device) == (3 + 1 * 2 + 1, 9, torch.device(buffers))

    @pytest.mark.parametrize(("own", "waits"), [("cuda:1", 1), ("cpu", 0)])
    def test_an_update_ends_when_the_mocked_stream_has_copied_everything(
        self, receiver: Any, monkeypatch: pytest.MonkeyPatch, own: str, waits: int
    ) -> None:
        """A reply before that would let the engine answer from half of the new weights."""
        order: list[str] = []
        monkeypatch.setattr(torch.accelerator, "synchronize", lambda: order.append("synchronised"))
        monkeypatch.setattr(type(receiver), "parse_update_info", lambda self, info: info)
        monkeypatch.setattr(type(receiver), "receive_weights", lambda self, info, progress: order.append("received"))
        receiver.device = torch.device(own)
        receiver.update_weights({})
        assert order == ["received"] + ["synchronised"] * waits
