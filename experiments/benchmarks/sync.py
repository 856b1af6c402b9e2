"""Weights to the workers: whole, as a delta and as adapters; each stage alone, and end to end.

    python experiments/benchmarks/sync.py [--parameters 0.05] [--ranks 1] [--workers 1] [--dtype bfloat16]

In one run, with real vLLM workers and real ZeRO-3 ranks on this machine (random weights; `--parameters` is in billions
and met within some per cent). Stages, each alone:

- `gather`: making ZeRO-3's partitioned parameters whole and packing them into buckets;
- `wire`: the buckets' broadcast to as many processes as there are workers, which throw them away;
- `load`: a worker's loading of what it has received (its own count, from the syncs end to end);
- `find`: comparing a rank's slices with what was last sent, packing what changed, summing all of it;
- `apply`: a worker's part of a delta: putting numbers in, summing all weights, preparing layers anew (its own count);
- `calls`: asking the workers what they have, and of a dense sync what is before and behind their receiving.

End to end, to the moment when the workers answer with the new weights: `dense`, `delta` (of `--changed` of all numbers,
drawn at random, which is the worst for memory) and `adapters` (rank 8 on every linear layer). `paused_s` is for how
long the workers did not generate. `of_slowest` is dense's bandwidth over that of its slowest stage,
`over_per_parameter` over that of the same stream with a bucket for every tensor. `delta_over_dense` and
`adapters_over_dense` are ratios of seconds; their targets are meant for a quarter of a billion parameters in bfloat16.
`extra_mib` is what dense syncs add to rank 0's peak memory. `estimate_7b`: see `sync_estimate.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path[:] = [str(ROOT), *(p for p in sys.path if Path(p).resolve() != HERE), str(HERE)]

import torch  # noqa: E402
from sync_estimate import estimates  # noqa: E402

from timepro.system.device import environment_for_tensors  # noqa: E402
from trainer import messages  # noqa: E402
from trainer.settings.lora import LoraConfig  # noqa: E402
from trainer.settings.optimiser import OptimiserConfig  # noqa: E402
from trainer.settings.sync import SyncConfig  # noqa: E402
from trainer.settings.zero import ZeroConfig  # noqa: E402

TARGETS = {"of_slowest": 0.85, "over_per_parameter": 1.3, "delta_over_dense": 5.0, "adapters_over_dense": 20.0}
MODES = ("dense", "delta", "adapters")
REPEATS = 5
LORA = LoraConfig(rank=8)


def main() -> int:
    """Measure, print a JSON line; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=float, default=0.05, help="billions")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--modes", default=",".join(MODES), help=f"some of {','.join(MODES)}")
    parser.add_argument("--changed", type=float, default=0.01, help="share of the numbers, for delta")
    parser.add_argument("--bucket-mib", type=float, default=32.0)
    parser.add_argument("--role", choices=("rank", "sink"), help=argparse.SUPPRESS)
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "sink":
        return sink(options.job)
    if options.role == "rank":
        rank(options.job)
    modes = [mode for mode in MODES if mode in options.modes.split(",")]
    figures: dict[str, Any] = {
        "ranks": options.ranks, "workers": options.workers, "dtype": options.dtype, "changed": options.changed
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = build(Path(folder), options.parameters * 1e9)
        whole = [mode for mode in modes if mode != "adapters"]
        for of_these in (whole, ["adapters"] if "adapters" in modes else []):
            if of_these:
                figures |= measure(Path(folder), checkpoint, options, of_these)
                print(f"so far: {json.dumps(figures)}", file=sys.stderr)
    figures |= ratios(figures)
    targets = {key: target for key, target in TARGETS.items() if key in figures}
    holds = all(figures[key] >= target for key, target in targets.items())
    print(json.dumps({"benchmark": "sync", "figures": figures, "targets": targets, "holds": holds}))
    return 0 if holds else 1


def ratios(figures: dict[str, Any]) -> dict[str, Any]:
    """What is compared, of what was measured."""
    found: dict[str, Any] = {}
    if "dense_s" not in figures:
        return found
    mib = figures["mib"]
    for stage in ("gather", "wire", "load", "dense"):
        found[f"{stage}_mib_s"] = mib / figures[f"{stage}_s"]
    found["of_slowest"] = found["dense_mib_s"] / min(found[f"{stage}_mib_s"] for stage in ("gather", "wire", "load"))
    found["over_per_parameter"] = figures["per_parameter_s"] / figures["dense_s"]
    for mode in ("delta", "adapters"):
        if f"{mode}_s" in figures:
            found[f"{mode}_over_dense"] = figures["dense_s"] / figures[f"{mode}_s"]
    return found | {"estimate_7b": estimates(figures["calls_s"])}


def measure(folder: Path, checkpoint: Path, options: argparse.Namespace, modes: Sequence[str]) -> dict[str, Any]:
    """Start workers and ranks; rank 0's figures."""
    from rollout import stream
    from rollout.auth import TOKEN_VARIABLE
    from rollout.settings import WorkerConfig
    from trainer.launcher.workers import WorkerSet

    store = stream.host_store("127.0.0.1", 0, 600.0)
    config = WorkerConfig(threads=1, max_model_len=512, workers=options.workers, dtype=options.dtype, kv_cache_mib=64)
    shape = LORA.shape if "adapters" in modes else None
    workers = WorkerSet(config, checkpoint, [folder], folder / "logs", adapters=shape, deltas="delta" in modes)
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        workers.wait()
        job = {"checkpoint": str(checkpoint), "urls": workers.urls, "out": str(folder / "figures.json"),
               "bucket_mib": options.bucket_mib, "dtype": options.dtype, "changed": options.changed,
               "modes": modes}  # fmt: skip
        for number in range(options.ranks):
            environment = environment_for_tensors() | {
                messages.RANK: str(number), messages.LOCAL_RANK: str(number),
                messages.WORLD_SIZE: str(options.ranks), messages.STORE_HOST: "127.0.0.1",
                messages.STORE_PORT: str(store.port), TOKEN_VARIABLE: workers.token, "GLOO_SOCKET_IFNAME": "lo",
                "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu",
            }  # fmt: skip
            command = [sys.executable, __file__, "--role", "rank", "--job", json.dumps(job)]
            ranks.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
        if codes := [code for process in ranks if (code := process.wait(3600))]:
            raise RuntimeError(f"a rank ended with exit code {codes[0]}; see above")
    finally:
        for process in ranks:
            process.kill()
        workers.end()
    return json.loads((folder / "figures.json").read_text())


def build(folder: Path, parameters: float) -> Path:
    """A checkpoint of the embedded model's kind with about as many parameters."""
    from timepro.data.sounds import SOUNDS
    from timepro.tasks.samples import tokenizer_texts
    from timepro.tiny.build import build_tiny_checkpoint
    from timepro.tiny.config import TinyModelConfig

    layers = 12 if parameters < 2e8 else 16
    # A layer has 2 w^2 for queries and output, w^2 for half as many keys and values, 12 w^2 in its feed-forward part.
    width = max(128, round((parameters / layers / 15) ** 0.5 / 128) * 128)
    config = TinyModelConfig(hidden_size=width, layers=layers, heads=width // 64, key_value_heads=width // 128)
    config.feed_forward = 4 * width
    build_tiny_checkpoint(folder / "checkpoint", config, SOUNDS, tokenizer_texts())
    return folder / "checkpoint"


class Rank:
    """A learner rank: the policy under ZeRO-3."""

    def __init__(self, job: dict[str, Any]) -> None:
        from timepro.features import Processor
        from trainer.learner import distributed, zero
        from trainer.learner.policy import load_policy

        torch.set_num_threads(1)
        distributed.join(1800.0)
        self.job, self.first, self.version, self.figures = job, distributed.is_first(), 0, dict[str, float]()
        config, lora = ZeroConfig(dtype=job["dtype"]), LORA if "adapters" in job["modes"] else None
        processor, folder = Processor(Path(job["checkpoint"])), Path(job["checkpoint"])
        policy, _ = load_policy(folder, processor.family, processor.layout, zero.compute_dtype(config), lora)
        # No sync touches the optimiser, which would take most of the memory; that of adapters is small.
        self.engine = (
            zero.initialise(policy, OptimiserConfig(), config) if lora else zero.initialise_frozen(policy, config)
        )
        self.parameters = [tensor.parameters[0] for tensor in policy.streamed()]
        self._draw = torch.Generator().manual_seed(distributed.rank())

    def sender(self, **settings: Any) -> Any:
        """A sender that has met the workers."""
        from rollout.auth import TOKEN_VARIABLE
        from trainer.learner.sender import WeightSender

        config = replace(SyncConfig(bucket_mib=self.job["bucket_mib"], timeout_s=600.0), **settings)
        made = WeightSender(self.engine, self.job["urls"], os.environ[TOKEN_VARIABLE], config, own_gpus=False)
        made.connect()
        return made

    def syncs(self, sender: Any, name: str, mode: str, before: Callable[[], object] = lambda: None) -> None:
        """Several syncs after one that is not counted."""
        reports, loads, calls = [], [], []
        for _ in range(REPEATS + 1):
            before()
            self.version += 1
            reports.append(sender.deliver(self.version))
            if self.first:
                replies = sender.control.on_all(self.job["urls"], "collective_rpc", {"method": "timepro_last_update"})
                updates = [reply["results"][0] for reply in replies]
                loads.append(max(update["load_seconds"] for update in updates))
                calls.append(reports[-1].seconds - max(update["seconds"] for update in updates))
        if odd := {report.mode for report in reports[1:]} - {mode}:
            raise RuntimeError(f"{name} went as {odd}")
        seconds = {
            "s": [report.seconds for report in reports], "paused_s": [report.paused_seconds for report in reports],
            "gather_s": [report.gather_seconds for report in reports], "load_s": loads or [0.0] * len(reports),
            "calls_s": calls or [0.0] * len(reports),
        }  # fmt: skip
        self.figures |= {f"{name}_{key}": statistics.median(values[1:]) for key, values in seconds.items()}
        self.figures[f"{name}_mib"] = reports[-1].bytes / 2**20

    def dense(self) -> None:
        """Whole streams: stages, end to end, and one bucket a tensor."""
        from trainer.learner import distributed

        memory = peak_mib()
        sender = self.sender(mode="dense")
        self.syncs(sender, "dense", "dense")
        self.figures |= {
            "extra_mib": peak_mib() - memory,
            "mib": sender._bytes / 2**20,
            "buckets": len(sender._buckets),
        }
        self.figures["parameters"] = sum(p.ds_numel for p in self.engine.module.parameters())
        gather = [timed(lambda: self.gather(sender)) for _ in range(REPEATS)]
        self.figures |= {"gather_s": statistics.median(gather), "load_s": self.figures["dense_load_s"]}
        if self.first:
            self.figures["wire_s"] = wire_seconds([b.size for b in sender._buckets], len(self.job["urls"]))
            asking = [timed(sender.control.answering) for _ in range(REPEATS)]
            self.figures["calls_s"] = self.figures["dense_calls_s"] + statistics.median(asking)
        distributed.barrier()
        sender.close()
        single = self.sender(mode="dense", bucket_mib=1e-6)
        self.syncs(single, "per_parameter", "dense")
        single.close()

    def gather(self, sender: Any) -> None:
        """Every bucket, into the stream's own buffers, as a sync does."""
        for bucket in sender._buckets:
            if (buffer := sender._gather(bucket, self.first)) is not None:
                sender._buffers.give(buffer)

    def delta(self) -> None:
        """Deltas of some numbers at random places."""
        sender = self.sender(mode="delta")
        self.syncs(sender, "delta", "delta", self.change)
        self.change()
        finds = [timed(sender._last_sent.changes) for _ in range(REPEATS)]
        self.figures |= {"find_s": statistics.median(finds), "apply_s": self.figures["delta_load_s"]}
        sender.close()

    def adapters(self) -> None:
        """Adapters alone."""
        sender = self.sender(mode="adapters")
        self.syncs(sender, "adapters", "adapters")
        sender.close()

    def change(self) -> None:
        """Flip the last bit of some of this rank's numbers."""
        from rollout.delta import bits
        from trainer.learner import zero

        for parameter in self.parameters:
            _, own = zero.own_slice(parameter)
            count = round(own.numel() * self.job["changed"])
            places = torch.randint(max(1, own.numel()), (count,), generator=self._draw)
            bits(own)[places] ^= 1


def rank(job: dict[str, Any]) -> NoReturn:
    """One learner rank; rank 0 writes the figures. Ends the process."""
    from trainer.learner import distributed

    one = Rank(job)
    for mode in job["modes"]:
        getattr(one, mode)()
    if one.first:
        Path(job["out"]).write_text(json.dumps(one.figures))
    distributed.barrier()
    distributed.leave(0)


def wire_seconds(sizes: list[int], receivers: int) -> float:
    """Seconds to broadcast buckets of these sizes to other processes, some of them under way at a time."""
    from rollout import stream

    store, taken = stream.host_store("127.0.0.1", 0, 600.0), []
    others = []
    for number in range(receivers):
        job = {"port": store.port, "sizes": sizes, "rank": number + 1, "world": receivers + 1}
        others.append(subprocess.Popen([sys.executable, __file__, "--role", "sink", "--job", json.dumps(job)]))
    group = stream.join_group(store, "wire", 0, receivers + 1, 600.0, torch.device("cpu"))
    buffers = [torch.ones(size, dtype=torch.uint8) for size in sizes]
    for _ in range(REPEATS + 1):
        taken.append(timed(lambda: broadcast(group, buffers)))
    for other in others:
        other.wait(60)
    return statistics.median(taken[1:])


def broadcast(group: Any, buffers: list[Any]) -> None:
    from rollout import stream

    pending: list[Any] = []
    for buffer in buffers:
        if len(pending) == stream.IN_FLIGHT:
            stream.finish(pending.pop(0), 600.0)
        pending.append(stream.start_broadcast(group, buffer, 600.0))
    for work in pending:
        stream.finish(work, 600.0)


def sink(job: dict[str, Any]) -> int:
    """Another end of `wire_seconds`."""
    from rollout import stream

    store = stream.join_store("127.0.0.1", job["port"], 600.0)
    group = stream.join_group(store, "wire", job["rank"], job["world"], 600.0, torch.device("cpu"))
    # Some that are used again, as by a worker.
    memory = [torch.empty(max(job["sizes"]), dtype=torch.uint8) for _ in range(stream.IN_FLIGHT + 1)]
    for _ in range(REPEATS + 1):
        broadcast(group, [memory[number % len(memory)][:size] for number, size in enumerate(job["sizes"])])
    return 0


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def peak_mib() -> float:
    """This process's peak memory."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
