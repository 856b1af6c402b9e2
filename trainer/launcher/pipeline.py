"""An experiment from its configuration to the final table: data, model, SFT, GRPO, evaluation."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rollout.client import RolloutPool
from rollout.evaluation import evaluate
from timepro import timestamps
from timepro.config import save_resolved
from timepro.data.sounds import SOUNDS
from timepro.data.synth import write_split
from timepro.evaluation import save_scored
from timepro.features import Processor
from timepro.progress import ProgressBar, clock
from timepro.runs import record_classes
from timepro.tasks import find_task
from timepro.tasks.registry import source_of
from timepro.tasks.samples import evaluation_samples, task_weights, tokenizer_texts
from timepro.tiny import build_tiny_checkpoint
from trainer.launcher.checks import SPLITS, check, total_ranks, total_workers
from trainer.launcher.console import console
from trainer.launcher.jobs import run_learner
from trainer.launcher.memory import MemoryWatch
from trainer.launcher.nodes.head import Nodes
from trainer.launcher.nodes.node import Node
from trainer.launcher.runfolder import bind_start, open_run, read_identity
from trainer.launcher.signals import signals_raise
from trainer.launcher.stages import StageLog, cached_stage, digest, is_kept, require_disk
from trainer.launcher.summary import print_results, write_summary
from trainer.launcher.workers import Fleet
from trainer.messages import CHECKPOINTS, JobSpec, read_result
from trainer.settings.experiment import ExperimentConfig

_PACKAGE = Path(timestamps.__file__).parent
_LEARNER = _PACKAGE.parent / "trainer" / "learner"
_GIB_PER_CLIP = 2.5e-4  # a FLAC clip of the default lengths, with a margin


def run_experiment(config: ExperimentConfig, resume: bool, node: Node | None = None) -> Path:
    """Run all stages; returns the run's folder.

    Args:
        node: this one, node 0 of several; by default it is alone.

    Raises:
        ValueError: a bad configuration or bad data.
        RuntimeError: a process failed.
        Interrupted: a signal ended the run; `resume` continues it.
    """
    check(config, node.count if node else 1)
    cache = Path(config.runs) / "cache"
    require_disk(Path(config.runs), 1.0 + _GIB_PER_CLIP * _clips_to_write(config, cache))
    log = StageLog()
    with signals_raise(), MemoryWatch() as memory, Nodes(config, node or Node()) as nodes:
        run = open_run(config, resume)
        data = prepare_data(config, cache, log)
        if any(find_task(task).labels_are_classes for task in task_weights(config.task)):
            record_classes(run, data.values())
        base, base_key = prepare_model(config, cache, log)
        own = own_start(run, cache, log) if resume and config.sft.enabled else None
        start, start_key = own or fine_tune(config, data, base, base_key, cache, log, nodes)
        bind_start(run, start_key)
        if config.grpo.enabled:
            post_train(config, data, start, run, resume, log, nodes)
        else:
            evaluate_alone(config, data, start, run, "sft", log, nodes)
        if config.control.enabled:
            control_arm(config, data, start, run, log, nodes)
    write_summary(config, run, log.seconds, memory.peak_bytes / 2**30, data["test"])
    print_results(config, run, data["test"])
    return run


def prepare_data(config: ExperimentConfig, cache: Path, log: StageLog) -> dict[str, Path]:
    """The four manifests: as named, or synthesised."""
    if config.data.test:
        return {split: Path(getattr(config.data, split)) for split in SPLITS}
    counts = {split: getattr(config.data, f"{split}_clips") for split in SPLITS}
    paths = {}
    for split, count in counts.items():

        def work(folder: Path, split: str = split, count: int = count) -> Mapping[str, Any]:
            shutil.rmtree(folder / split, ignore_errors=True)
            with ProgressBar(f"synthesising {split}", count, "clips") as bar:

                def advance(done: int) -> None:
                    bar.advance(done - bar.done)

                write_split(
                    folder, split, count, config.data.seed, config.data.soundscape, workers=os.cpu_count() or 1,
                    progress=advance,
                )  # fmt: skip
            return {"clips": count}

        folder, _ = cached_stage(
            f"data-{split}", cache, _data_key(config, split), work, log, f"{count} soundscapes with exact times"
        )
        paths[split] = folder / split / f"{split}.jsonl"
    return paths


def prepare_model(config: ExperimentConfig, cache: Path, log: StageLog) -> tuple[Path, str]:
    """The checkpoint to start from, and a key that names its content."""
    if config.model.path:
        folder = Path(config.model.path)
        weights = [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in sorted(folder.glob("*.safetensors"))]
        return folder, digest({"path": str(folder.resolve()), "weights": weights}, [])
    labels = list(config.data.soundscape.classes)
    captions = [c for label in labels for c in (SOUNDS[label].spoken, *SOUNDS[label].captions)]
    texts = captions + tokenizer_texts(task_weights(config.task))
    sources = [_PACKAGE / name for name in ("tiny", "embeddings.py", "timestamps.py", "astp.py")]
    tiny = replace(config.model.tiny, seed=config.model.tiny.seed + config.seed)  # another seed is another random start
    key = digest({"tiny": asdict(tiny), "labels": labels, "texts": texts}, sources)

    def work(folder: Path) -> Mapping[str, Any]:
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        build_tiny_checkpoint(folder / "checkpoint", tiny, labels, texts)
        return {}

    what = "a tiny random checkpoint of the Qwen2.5-Omni thinker, and its tokenizer"
    folder, _ = cached_stage("model", cache, key, work, log, what)
    return folder / "checkpoint", key


def fine_tune(
    config: ExperimentConfig,
    data: Mapping[str, Path],
    base: Path,
    base_key: str,
    cache: Path,
    log: StageLog,
    nodes: Nodes,
) -> tuple[Path, str]:
    """The checkpoint after SFT, kept for other runs with the same settings."""
    if not config.sft.enabled:
        return base, base_key
    inputs = {
        "base": base_key, "sft": asdict(config.sft), "data": str(data["sft"].resolve()), "task": config.task,
        "data_key": _manifest_key(data["sft"]), "seed": config.seed,
        "ranks": total_ranks(config, nodes.node.count),
        "zero": asdict(config.zero), "lora": asdict(config.lora),
    }  # fmt: skip
    modules = (
        "sft",
        "learner",
        "warmup",
        "policy",
        "lora",
        "rows",
        "soft_time",
        "losses",
        "zero",
        "schedule",
        "cursor",
        "frames",
    )
    method = [_PACKAGE / name for name in ("families", "answers", "astp.py", "events.py", "features.py", "tasks")]
    method += [file for task in task_weights(config.task) if (file := source_of(task)) is not None]
    key = digest(inputs, [*(_LEARNER / f"{name}.py" for name in modules), *method])
    folder, _ = cached_stage(
        "sft", cache, key, lambda f: sft_job(config, data, base, f, 0.0, "SFT", nodes), log,
        f"supervised fine-tuning on {config.sft.label_times} times",
    )  # fmt: skip
    return folder / "checkpoint", key


def own_start(run: Path, cache: Path, log: StageLog) -> tuple[Path, str] | None:
    """The fine-tuned checkpoint that a run to be resumed has started from, where it is still kept.

    It stays the run's own, whatever code, settings or number of ranks would make of it today.
    """
    key = read_identity(run).get("start", "")
    if not key or not is_kept("sft", cache, key):
        return None
    folder = cache / f"sft-{key}"
    console.print(f"[bold]sft[/]  this run's own ({folder})")
    log.seconds["sft"] = 0.0
    return folder / "checkpoint", key


def sft_job(
    config: ExperimentConfig,
    data: Mapping[str, Path],
    base: Path,
    folder: Path,
    max_seconds: float,
    title: str,
    nodes: Nodes,
) -> Mapping[str, Any]:
    """Run SFT in a stage's folder."""
    save_resolved(config, folder / "config.yaml")
    job = JobSpec(
        kind="sft",
        config=str(folder / "config.yaml"),
        checkpoint=str(base),
        manifest=str(data["sft"]),
        validation=str(data["validation"]),
        output=str(folder / "checkpoint"),
        work=str(folder / "work"),
        title=title,
        run_id=secrets.token_hex(4),
        max_seconds=max_seconds,
        resume=any((folder / "work" / CHECKPOINTS).glob("step-*")),
    )
    run_learner(job, config, None, nodes)
    shutil.rmtree(folder / "work" / CHECKPOINTS, ignore_errors=True)  # the stage has its result
    return read_result(folder / "work")


def post_train(
    config: ExperimentConfig,
    data: Mapping[str, Path],
    start: Path,
    run: Path,
    resume: bool,
    log: StageLog,
    nodes: Nodes,
) -> None:
    """GRPO with its rollout workers; evaluates before and after."""
    if (run / "eval" / "grpo.jsonl").is_file() and (run / "checkpoint").is_dir():
        console.print("[bold]grpo[/]  already finished in this run")
        return
    console.print(
        f"[bold]grpo[/]  {total_workers(config, nodes.node.count)} rollout worker(s), "
        f"{total_ranks(config, nodes.node.count)} learner rank(s), "
        f"{config.grpo.groups.prompts_per_step} x {config.grpo.groups.group_size} answers a step"
    )
    started = time.monotonic()
    workers = start_workers(config, start, data, run, nodes)
    try:
        job = JobSpec(
            kind="grpo",
            config=str(run / "config.yaml"),
            checkpoint=str(start),
            manifest=str(data["rl"]),
            test=str(data["test"]),
            validation=str(data["validation"]),
            output=str(run / "checkpoint"),
            work=str(run),
            title="GRPO",
            run_id=read_identity(run)["wandb_id"],
            workers=workers.urls,
            resume=resume,
        )
        run_learner(job, config, workers, nodes)
    finally:
        workers.end()
    log.seconds["grpo"] = time.monotonic() - started
    console.print(f"[bold]grpo[/]  done in {clock(log.seconds['grpo'])}")


def start_workers(
    config: ExperimentConfig, checkpoint: Path, data: Mapping[str, Path], run: Path, nodes: Nodes
) -> Fleet:
    """Start the rollout workers and wait until they serve."""
    media_root = Path(os.path.commonpath([str(path.resolve().parent) for path in data.values()]))
    workers = Fleet(config, checkpoint.resolve(), media_root, run / "logs", nodes)
    with ExitStack() as undo:
        undo.callback(workers.end)
        with console.status("starting vLLM"):
            workers.wait()
        undo.pop_all()
    console.print(f"  vLLM serves on {', '.join(workers.urls)}")
    return workers


def evaluate_alone(
    config: ExperimentConfig,
    data: Mapping[str, Path],
    checkpoint: Path,
    run: Path,
    name: str,
    log: StageLog,
    nodes: Nodes,
) -> None:
    """Evaluate a checkpoint through workers that load it from its folder."""
    started = time.monotonic()
    workers = start_workers(config, checkpoint, data, run, nodes)
    try:
        rollout = config.rollout
        pool = RolloutPool(
            workers.urls, workers.token, rollout.request_timeout_s, rollout.max_in_flight, rollout.retries
        )
        samples = evaluation_samples(data["test"], config.task)
        try:
            with ProgressBar(f"evaluating ({name})", len(samples), "clips") as bar:
                scored = evaluate(pool, Processor(checkpoint), samples, config.evaluation.max_tokens, bar.advance)
        finally:
            pool.close()
        save_scored(scored, run / "eval" / f"{name}.jsonl")
    finally:
        workers.end()
    log.seconds[f"evaluate-{name}"] = time.monotonic() - started


def control_arm(
    config: ExperimentConfig,
    data: Mapping[str, Path],
    start: Path,
    run: Path,
    log: StageLog,
    nodes: Nodes,
) -> None:
    """Continue SFT for as long as GRPO took, and evaluate: what the same time would have bought without RL."""
    if (run / "eval" / "control.jsonl").is_file():
        console.print("[bold]control[/]  already finished in this run")
        return
    seconds = float(read_result(run)["grpo"]["elapsed"])
    console.print(f"[bold]control[/]  SFT continued for {clock(seconds)}, as long as GRPO took")
    started = time.monotonic()
    folder = run / "control"
    folder.mkdir(exist_ok=True)
    sft_job(config, data, start, folder, seconds, "SFT continued", nodes)
    log.seconds["control"] = time.monotonic() - started
    evaluate_alone(config, data, folder / "checkpoint", run, "control", log, nodes)


def _clips_to_write(config: ExperimentConfig, cache: Path) -> int:
    """Clips that `prepare_data` will write: those of the splits that are not kept yet."""
    if config.data.test:
        return 0
    missing = [s for s in SPLITS if not is_kept(f"data-{s}", cache, _data_key(config, s))]
    return sum(getattr(config.data, f"{split}_clips") for split in missing)


def _data_key(config: ExperimentConfig, split: str) -> str:
    count = getattr(config.data, f"{split}_clips")
    soundscape = asdict(config.data.soundscape)
    sources = [_PACKAGE / "data" / name for name in ("synth.py", "sounds.py", "manifest.py")]
    return digest({"soundscape": soundscape, "n": count, "seed": config.data.seed}, sources)


def _manifest_key(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
