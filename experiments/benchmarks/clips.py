"""What a clip costs the first time and later: decoding, features, encoder; an epoch over new clips beside a warm one.

    python experiments/benchmarks/clips.py [--clips 48] [--checkpoint FOLDER] [--gigabytes 4] [--without-worker]

Alone, in milliseconds of CPU time on one thread (`ms`), by kind of file: `decode` (with resampling), `mel`, `first`
(both, and keeping the features), `again` (from disk, in another process's place); `clip_kb` and `features_kb` on disk.

Through one real vLLM worker, in steps of 12 prompts x 8 answers, with the prefix cache reset before every epoch as
after a sync (`epochs`: seconds, and CPU seconds of all the worker's processes):

- `cold`: clips that nobody has seen;
- `warm`: the same clips again, as in every later epoch;
- `no_encoder`: again, but the encoder's frames forgotten: the encoder alone is cold;
- `no_worker`: new clips whose features the learner has left on disk: worker and encoder are cold, the disk is warm.

So `no_encoder` - `warm` is what the encoder takes, `cold` - `no_encoder` decoding, features and vLLM's own processing
of a clip, `cold` - `no_worker` what the disk spares. `of_warm` are ratios to `warm`; on a machine that others use,
those of CPU seconds say more, and the target is for them. `made_again` is how many clips were decoded and transformed
more than once, by learner and worker together. `learner_first_ms` is what the learner pays for a clip that nobody has
seen, `learner_ms` for one that the worker has.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:] = [str(ROOT), *(p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent)]

import numpy as np  # noqa: E402
import psutil  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402

from rollout.client import Prompt, RolloutPool, Sampling  # noqa: E402
from rollout.control import WorkerControl  # noqa: E402
from rollout.settings import WorkerConfig  # noqa: E402
from timepro.clip_reader import ClipReader  # noqa: E402
from timepro.data.audio import read_audio  # noqa: E402
from timepro.data.soundscape import SoundscapeConfig  # noqa: E402
from timepro.data.synth import write_split  # noqa: E402
from timepro.feature_cache import CachePlace  # noqa: E402
from timepro.features import Processor  # noqa: E402
from timepro.log_mel import log_mel  # noqa: E402
from timepro.tasks import find_task  # noqa: E402

TARGETS = {"cold_of_warm": 1.3, "made_again": 0}  # at most
FILES = (("flac", 5, 16000), ("flac", 10, 16000), ("flac", 10, 48000), ("mp3", 10, 48000))
PROMPTS, ANSWERS, TOKENS = 12, 8, 48
SETTLE_S = 2.5  # a file that changed just now is not yet known by its times


def main() -> int:
    """Measure, print a JSON line; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=48, help="of an epoch")
    parser.add_argument("--checkpoint", type=Path, help="by default a tiny one of random weights")
    parser.add_argument("--gigabytes", type=float, default=4.0, help="kept features; 0 keeps none")
    parser.add_argument("--without-worker", action="store_true", help="the files alone, without vLLM and targets")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    targets = {} if options.without_worker else TARGETS
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = options.checkpoint or build(Path(folder))
        if not options.without_worker:
            figures |= epochs(Path(folder) / "epochs", checkpoint, options.clips, options.gigabytes)
            figures |= {"cold_of_warm": figures["of_warm"]["cold"]["cpu_s"]}
        figures["ms"] = alone(Path(folder) / "alone", checkpoint)
    holds = all(figures[key] <= target for key, target in targets.items())
    print(json.dumps({"benchmark": "clips", "figures": figures, "targets": targets, "holds": holds}))
    return 0 if holds else 1


def build(folder: Path) -> Path:
    """The embedded model's architecture with random weights."""
    from timepro.data.sounds import SOUNDS
    from timepro.tasks.samples import tokenizer_texts
    from timepro.tiny.build import build_tiny_checkpoint
    from timepro.tiny.config import TinyModelConfig

    build_tiny_checkpoint(folder / "checkpoint", TinyModelConfig(), SOUNDS, tokenizer_texts())
    return folder / "checkpoint"


def alone(folder: Path, checkpoint: Path, clips: int = 12) -> dict[str, dict[str, float]]:
    """Milliseconds a clip without vLLM, and kilobytes, by kind of file."""
    folder.mkdir()
    extractor = Processor(checkpoint).extractor
    found = {}
    for ending, seconds, rate in FILES:
        files = [noise(folder / f"{number}-{seconds}-{rate}.{ending}", seconds, rate) for number in range(clips + 2)]
        time.sleep(SETTLE_S)
        waves = [read_audio(file) for file in files]
        reader = ClipReader(extractor, CachePlace(str(folder / "features"), 4.0))
        costs = {
            "decode": cpu_ms(read_audio, files),
            "mel": cpu_ms(lambda wave: log_mel(wave, extractor), waves),
            "first": cpu_ms(reader.read, files),
            "again": cpu_ms(ClipReader(extractor, CachePlace(str(folder / "features"), 4.0)).read, files),
            "clip_kb": files[0].stat().st_size / 1000,
            "features_kb": reader.read(files[0]).mel.nbytes / 1000,
        }
        found[f"{seconds} s {ending} {rate} Hz"] = {name: round(value, 2) for name, value in costs.items()}
    return found


def noise(path: Path, seconds: int, rate: int) -> Path:
    """A clip that is neither silent nor quickly packed."""
    rng = np.random.default_rng(abs(hash(path.name)) % 2**32)
    tone = np.sin(2 * np.pi * 440 * np.arange(seconds * rate) / rate)
    soundfile.write(path, (0.1 * tone + 0.02 * rng.normal(size=len(tone))).astype(np.float32), rate)
    return path


def cpu_ms(work: Callable[[Any], object], items: Sequence[Any]) -> float:
    """The median of all but the first two, which load libraries."""
    taken = []
    for item in items:
        began = time.process_time()
        work(item)
        taken.append(time.process_time() - began)
    return float(np.median(taken[2:])) * 1000


def epochs(folder: Path, checkpoint: Path, clips: int, gigabytes: float) -> dict[str, Any]:
    """An epoch of generation over the same number of clips, by what is cold."""
    from trainer.launcher.workers import WorkerSet

    audio = {name: made(folder, name, count) for name, count in (("first", PROMPTS), ("one", clips), ("two", clips))}
    place = CachePlace(str(folder / "features"), gigabytes)
    learner = Processor(checkpoint, place)
    time.sleep(SETTLE_S)
    costs = {"learner_first_ms": cpu_ms(learner.features, audio["two"])}
    config = WorkerConfig(threads=1, max_model_len=1024)
    workers = WorkerSet(config, checkpoint.resolve(), [folder.resolve()], folder / "logs", features=place)
    try:
        workers.wait()
        taken, kept = with_worker(Worker(workers, learner), audio, place)
    finally:
        workers.end()
    costs["learner_ms"] = cpu_ms(Processor(checkpoint, place).features, audio["one"])
    warm = {key: float(np.mean([times[key] for times in taken["warm"]])) for key in ("wall_s", "cpu_s")}
    found = {name: times[0] for name, times in taken.items()} | {"warm": warm}
    return {
        "clips": clips,
        "epochs": {name: rounded(times, 2) for name, times in found.items()},
        "of_warm": {name: rounded({k: v / warm[k] for k, v in times.items()}, 3) for name, times in found.items()},
        "made_again": PROMPTS + 2 * clips - len(kept & entries(place)),
    } | rounded(costs, 2)


def rounded(values: dict[str, float], digits: int) -> dict[str, float]:
    return {name: round(value, digits) for name, value in values.items()}


def entries(place: CachePlace) -> set[tuple[str, int]]:
    """The kept features, each with its inode: one that is computed again gets another."""
    return {(path.name, path.stat().st_ino) for path in Path(place.folder).glob("clips/*/*")}


class Worker:
    """A worker that serves, asked for whole epochs."""

    def __init__(self, workers: Any, learner: Processor) -> None:
        self.pool = RolloutPool(workers.urls, workers.token)
        self.control = WorkerControl(workers.urls, workers.token, 60.0)
        self._process = psutil.Process(workers.workers[0].process.pid)
        self._asked = learner.prompt_ids(find_task("sed").question(""))
        self._sampling = Sampling(ANSWERS, 1.0, TOKENS, (learner.eos_token_id,))

    def epoch(self, audio: Sequence[Path]) -> dict[str, float]:
        """Seconds, and the worker's CPU seconds, of answers to every clip, step by step."""
        self.control.reset_prefix_cache(self.control.urls)
        began, used = time.perf_counter(), self._cpu_seconds()
        for start in range(0, len(audio), PROMPTS):
            prompts = [Prompt(path.name, self._asked, path, seed=0) for path in audio[start : start + PROMPTS]]
            self.pool.generate(prompts, self._sampling)
        return {"wall_s": time.perf_counter() - began, "cpu_s": self._cpu_seconds() - used}

    def _cpu_seconds(self) -> float:
        times = [one.cpu_times() for one in (self._process, *self._process.children(recursive=True))]
        return float(sum(t.user + t.system for t in times))


def with_worker(
    worker: Worker, audio: dict[str, list[Path]], place: CachePlace
) -> tuple[dict[str, list[dict[str, float]]], set[tuple[str, int]]]:
    """What each epoch took, and the features that were kept when each clip had been seen once."""
    try:
        worker.epoch(audio["first"])
        taken = {"cold": [worker.epoch(audio["one"])]}
        kept = entries(place)
        taken["warm"] = [worker.epoch(audio["one"]) for _ in range(2)]
        worker.control.on_all(worker.control.urls, "reset_encoder_cache")
        taken["no_encoder"] = [worker.epoch(audio["one"])]
        taken["no_worker"] = [worker.epoch(audio["two"])]
    finally:
        worker.pool.close()
    return taken, kept


def made(folder: Path, name: str, count: int) -> list[Path]:
    """The audio of a split of soundscapes."""
    manifest = write_split(folder, name, count, 0, SoundscapeConfig(), workers=1)
    return sorted((manifest.parent / "audio").iterdir())


if __name__ == "__main__":
    sys.exit(main())
