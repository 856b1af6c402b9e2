"""Host memory that a learner rank needs to load a checkpoint, whole as before and weight by weight.

    python experiments/benchmarks/loading.py [--millions 250] [--ranks 1,2]

It writes a random checkpoint of the real classes in bfloat16, in files of at most 200 MB with an index, and starts
learner ranks that bring it under ZeRO-3 in float32, each way in processes of its own. A rank's figure is the peak of
its resident memory above what it had before, over the size of the model (decoder and head in float32); what the
optimiser needs afterwards is the same both ways and is not in it. The largest of the ranks counts.

- `weight_by_weight_N`, `whole_N`: that figure with N ranks.
- `seconds_weight_by_weight_N`, `seconds_whole_N`: how long loading took.
- `allowed_N`: 1.3 / N of the model and one file, which is the target.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:] = [str(ROOT), str(ROOT / "tests"), *(p for p in sys.path if Path(p).resolve() != Path(__file__).parent)]

FILE_BYTES = 200 << 20


def main() -> int:
    """Measure, print a JSON line; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=int, default=250, help="parameters of decoder and head, about")
    parser.add_argument("--ranks", default="1,2", help="numbers of ranks, comma-separated")
    options = parser.parse_args()
    from ranks import run_ranks

    figures: dict[str, Any] = {}
    targets: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        folder, largest_file = write_checkpoint(Path(place) / "checkpoint", options.millions)
        for ranks in map(int, options.ranks.split(",")):
            for way in ("whole", "weight_by_weight"):
                outs = run_ranks(RANK, Path(__file__), folder, way, ranks=ranks, timeout_s=280.0)
                found = [json.loads(out.splitlines()[-1]) for out in outs]
                model = found[0]["model_bytes"]
                figures |= {"parameters": model // 4, "largest_file": largest_file / model}
                figures[f"{way}_{ranks}"] = max(one["peak_bytes"] for one in found) / model
                figures[f"seconds_{way}_{ranks}"] = max(one["seconds"] for one in found)
            targets[f"weight_by_weight_{ranks}"] = 1.3 / ranks + largest_file / model
    holds = all(figures[name] <= most for name, most in targets.items())
    print(json.dumps({"benchmark": "loading", "figures": figures, "targets": targets, "holds": holds}))
    return 0 if holds else 1


def write_checkpoint(folder: Path, millions: int) -> tuple[Path, int]:
    """A checkpoint of about so many million parameters; its folder, and the bytes of its largest file."""
    import torch
    from safetensors.torch import load_file, save_file

    from timepro.data.sounds import SOUNDS
    from timepro.tasks.samples import tokenizer_texts
    from timepro.tiny.build import build_tiny_checkpoint
    from timepro.tiny.config import TinyModelConfig

    width, vocabulary = 1024, 50_000  # of 12.6 million parameters a layer, and twice 51 million of embeddings and head
    layers = max(1, round((millions - 2 * 51.2) / 12.6))
    config = TinyModelConfig(
        hidden_size=width, layers=layers, heads=16, key_value_heads=8, feed_forward=3072, encoder_width=64,
        encoder_layers=1, encoder_heads=2, encoder_feed_forward=64, vocabulary=vocabulary,
    )  # fmt: skip
    build_tiny_checkpoint(folder, config, SOUNDS, tokenizer_texts())
    weights = load_file(folder / "model.safetensors")
    parts: list[dict[str, Any]] = [{}]
    for name, tensor in weights.items():
        if sum(t.numel() * 2 for t in parts[-1].values()) + tensor.numel() * 2 > FILE_BYTES and parts[-1]:
            parts.append({})
        parts[-1][name] = tensor.to(torch.bfloat16)
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05}-of-{len(parts):05}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder, max(path.stat().st_size for path in folder.glob("model-*.safetensors"))


# What a rank runs: this file again, as a module.
RANK = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("loading_benchmark", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.load(*sys.argv[2:])
"""


class Peak:
    """The most resident memory of this process while the context is open, above what it had before."""

    def __enter__(self) -> Peak:
        import psutil

        self._process, self.bytes = psutil.Process(os.getpid()), 0
        self._before, self._stop = self._process.memory_info().rss, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self._look()

    def _look(self) -> None:
        self.bytes = max(self.bytes, self._process.memory_info().rss - self._before)


def load(folder: str, way: str) -> None:
    """Bring the checkpoint under ZeRO-3 on this rank; prints what it took."""
    import torch

    from timepro.features import Processor
    from trainer.learner import distributed, zero
    from trainer.learner.loading import partition
    from trainer.learner.policy import load_policy
    from trainer.settings.optimiser import OptimiserConfig
    from trainer.settings.zero import ZeroConfig

    torch.set_num_threads(1)
    distributed.join(120.0)
    deepspeed = zero.import_deepspeed()
    deepspeed.init_distributed(dist_backend="gloo")
    processor = Processor(folder)
    processor.family.model_class()  # imported before memory is looked at
    config = zero.deepspeed_config(OptimiserConfig(), ZeroConfig(), torch.float32)
    begun = time.perf_counter()
    with Peak() as peak:
        policy, encoder = load_policy(
            Path(folder), processor.family, processor.layout, torch.float32, hollow=way == "weight_by_weight"
        )
        if policy.source is not None:
            partition(policy, policy.source, policy.published_names, config)
        else:  # as `deepspeed.initialize` does
            deepspeed.zero.Init(module=policy, config_dict_or_path=config)
    seconds = time.perf_counter() - begun
    model = sum(parameter.ds_numel * 4 for parameter in policy.parameters())
    print(json.dumps({"peak_bytes": peak.bytes, "model_bytes": model, "seconds": seconds}))


if __name__ == "__main__":
    sys.exit(main())
