"""An experiment from its configuration to the final table: data, model, SFT, GRPO, control, evaluation."""

from __future__ import annotations

import math
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rollout.evaluation import evaluate
from timepro.adapter_folder import ADAPTER_FOLDER, adapter_base
from timepro.checks.samples import label_times
from timepro.config import save_resolved
from timepro.evaluation import save_scored
from timepro.features import Processor
from timepro.progress import ProgressBar, clock
from timepro.runs import read_identity, record_classes
from timepro.tasks import find_task
from timepro.tasks.samples import evaluation_samples, task_weights, tokenizer_texts
from timepro.tiny.base import build_on_base
from timepro.tiny.build import build_tiny_checkpoint
from timepro.tiny.config import TinyModelConfig
from trainer.launcher.answer_lengths import note_answer_lengths
from trainer.launcher.checks import audio_folders, limits_of, total_ranks, total_workers
from trainer.launcher.clips import class_words, write_clips
from trainer.launcher.conditions import Conditions
from trainer.launcher.console import console
from trainer.launcher.forecast import Forecast, clips_in, forecast, parts_of, write_rates
from trainer.launcher.jobs import run_learner
from trainer.launcher.node_watch import NodeWatch
from trainer.launcher.nodes.head import Nodes
from trainer.launcher.nodes.node import Node
from trainer.launcher.result_card import write_result_card
from trainer.launcher.runfolder import bind_start, link_records, opened_run
from trainer.launcher.signals import signals_raise
from trainer.launcher.stage_keys import data_key, file_key, folder_key, model_key, sft_key
from trainer.launcher.stages import StageLog, cached_stage, is_kept, require_disk, take_result
from trainer.launcher.summary import print_results, write_summary
from trainer.launcher.vllm_start import wait_for_vllm
from trainer.launcher.workers import Fleet
from trainer.messages import CHECKPOINTS, RESULT_FILE, JobSpec, read_result
from trainer.settings.data import SPLITS
from trainer.settings.experiment import ExperimentConfig
from trainer.settings.sft import UNBOUNDED

_GIB_PER_CLIP = 2.5e-4  # a FLAC clip of the default lengths, with a margin


def run_experiment(config: ExperimentConfig, resume: bool, node: Node | None = None, form: str = "text") -> Path:
    """Run all stages of a configuration that `check` has let pass; returns the run's folder.

    Args:
        node: this one, node 0 of several; by default it is alone.
        form: of the results that are printed: text, markdown, latex or json.

    Raises:
        ValueError: bad data.
        RuntimeError: a process failed.
        Interrupted: a signal ended the run; `resume` continues it.
    """
    require_disk(Path(config.runs), 1.0 + _GIB_PER_CLIP * _clips_to_write(config))
    here = node or Node()
    with (
        signals_raise(),
        NodeWatch(here.rank, here.count) as watch,
        Nodes(config, here, watch) as nodes,
        opened_run(config, resume) as run,
    ):
        nodes.report_to(run)
        pipeline = Pipeline(config, nodes, run, resume)
        pipeline.run_stages()
        peaks = watch.node_peaks_gib()
    if not resume:
        write_rates(pipeline.forecast.parts, pipeline.log.seconds, pipeline.cache)
    write_summary(config, run, pipeline.log, peaks, pipeline.data["test"])
    write_result_card(config, run, pipeline.data)
    print_results(config, run, pipeline.data["test"], form)
    return run


class Pipeline:
    """The stages of one run, each kept by the content of its inputs, and what they have made so far.

    Attributes:
        data: the four manifests.
        log: seconds of each stage.
    """

    def __init__(self, config: ExperimentConfig, nodes: Nodes, run: Path, resume: bool) -> None:
        self.config, self.nodes, self.run, self.resume = config, nodes, run, resume
        self.cache = Path(config.runs) / "cache"
        self.log = StageLog(nodes.watch.take_peak_gib, nodes.watch.at, run / "stages.json")
        self.data: dict[str, Path] = {}
        self.conditions = Conditions(config, run)
        self.forecast = self._forecast()
        seconds = self.forecast.seconds
        data = {name: s for name, s in seconds.items() if name.startswith("data-")}
        nodes.watch.expect(data | {"model": 0.0} | dict(seconds))

    def run_stages(self) -> None:
        """All of them, in order."""
        config = self.config
        if not self.resume:
            console.print(f"[bold]{config.name}[/]  {self.forecast.as_text()}")
        self.prepare_data()
        self.conditions.prepare(self.data["test"], limits_of(config), self.cache, self.log)
        tasks = task_weights(config.task)
        if any(find_task(task).labels_are_classes for task in tasks):
            record_classes(self.run, self.data.values(), tasks)
        base, base_key = self.prepare_model()
        note_answer_lengths(config, self.data, base)
        own = self.own_start() if self.resume and config.sft.enabled else None
        start, start_key = own or self.fine_tune(base, base_key)
        bind_start(self.run, start_key)
        if config.grpo.enabled:
            self.post_train(start)
        else:
            self.evaluate_alone(start, "sft")
            if config.sft.enabled:
                take_result(start, self.run / "checkpoint")
        if config.control.enabled:
            self.control_arm(start)

    def _forecast(self) -> Forecast:
        config, missing, sft = self.config, {}, Path(self.config.data.sft)
        if not config.data.test:
            keys = {split: data_key(config, split) for split in SPLITS}
            kept = {split: is_kept(f"data-{split}", self.cache, key) for split, key in keys.items()}
            missing = {split: 0 if kept[split] else getattr(config.data, f"{split}_clips") for split in SPLITS}
            sft = self.cache / f"data-sft-{keys['sft']}" / "sft" / "sft.jsonl"
        steps = 0
        if config.sft.enabled and not (
            sft.is_file() and is_kept("sft", self.cache, self._sft_key(self._base()[1], sft))
        ):
            steps = config.sft.max_steps
            if config.sft.epochs:
                clips = missing.get("sft") or clips_in(sft)
                steps = math.ceil(config.sft.epochs * clips / config.sft.batch_size)
        return forecast(parts_of(config, missing, steps, self.nodes.node.count), self.cache)

    def prepare_data(self) -> None:
        """The four manifests: as named, or made of generated sounds or of a bank's recordings."""
        config = self.config
        if config.data.test:
            self.data = {split: Path(getattr(config.data, split)) for split in SPLITS}
            return
        for split in SPLITS:
            count = getattr(config.data, f"{split}_clips")
            of = f" of the recordings in {config.data.soundbank}" if config.data.soundbank else ""
            what = f"{count} soundscapes{of} with exact times"

            def work(folder: Path, split: str = split, count: int = count) -> Mapping[str, Any]:
                return write_clips(folder, split, count, config.data, self.cache)

            folder, _ = cached_stage(f"data-{split}", self.cache, data_key(config, split), work, self.log, what)
            self.data[split] = folder / split / f"{split}.jsonl"

    def prepare_model(self) -> tuple[Path, str]:
        """The checkpoint to start from, and a key that names its content."""
        config = self.config
        tiny, key = self._base()
        if tiny is None:
            return Path(config.model.path), key

        def work(folder: Path) -> Mapping[str, Any]:
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)
            if not tiny[0].from_scratch:
                return {"said": build_on_base(folder / "checkpoint", tiny[0])}
            build_tiny_checkpoint(folder / "checkpoint", *tiny, as_published=tiny[0].published)
            return {}

        what = f"a tiny random {tiny[0].family} checkpoint, and its tokenizer"
        if not tiny[0].from_scratch:
            what = f"the shipped small base ({tiny[0].family}), with timestamps added"
        folder, _ = cached_stage("model", self.cache, key, work, self.log, what)
        return folder / "checkpoint", key

    def _base(self) -> tuple[tuple[TinyModelConfig, list[str], list[str]] | None, str]:
        """What a tiny checkpoint is made of (None where one is given), and the key of what training starts from."""
        config = self.config
        if config.model.path:
            return None, folder_key(Path(config.model.path))
        labels, texts = class_words(config.data)
        texts += tokenizer_texts(task_weights(config.task))
        # Another seed is another random start.
        tiny = replace(config.model.tiny, seed=config.model.tiny.seed + config.seed)
        return (tiny, labels, texts), model_key(tiny, labels, texts)

    def fine_tune(self, base: Path, base_key: str) -> tuple[Path, str]:
        """The checkpoint after SFT, kept for other runs with the same settings."""
        config = self.config
        if not config.sft.enabled:
            return base, base_key
        key = self._sft_key(base_key, self.data["sft"])
        times = label_times(self.data["sft"], list(task_weights(config.task)), config.sft.label_times)
        folder, _ = cached_stage(
            "sft", self.cache, key, lambda folder: self._sft_job(base, "", folder, 0.0, "SFT"), self.log,
            f"supervised fine-tuning on {times} times{self._share('sft')}",
        )  # fmt: skip
        link_records(self.run, folder / "work")
        return folder / "checkpoint", key

    def _sft_key(self, base_key: str, manifest: Path) -> str:
        config = self.config
        inputs = {
            "base": base_key, "sft": asdict(config.sft), "data": str(manifest.resolve()), "task": config.task,
            "data_key": file_key(manifest), "seed": config.seed,
            "ranks": total_ranks(config, self.nodes.node.count, "sft"),
            "zero": asdict(config.zero), "lora": asdict(replace(config.lora, continue_=False)),  # which is RL's alone
        }  # fmt: skip
        return sft_key(inputs, task_weights(config.task))

    def own_start(self) -> tuple[Path, str] | None:
        """The fine-tuned checkpoint that a run to be resumed has started from, where it is still kept.

        It stays the run's own, whatever code, settings or number of ranks would make of it today.
        """
        key = read_identity(self.run).get("start", "")
        if not key or not is_kept("sft", self.cache, key):
            return None
        folder = self.cache / f"sft-{key}"
        console.print(f"[bold]sft[/]  this run's own ({folder})")
        self.log.kept("sft")
        return folder / "checkpoint", key

    def post_train(self, start: Path) -> None:
        """GRPO with its rollout workers; evaluates before and after."""
        run, groups, nodes = self.run, self.config.grpo.groups, self.nodes
        if (run / "eval" / "grpo.jsonl").is_file() and (run / "checkpoint").is_dir():
            console.print("[bold]grpo[/]  already finished in this run")
            self._ask_what_lacks("grpo", run / "checkpoint")
            return
        console.print(
            f"[bold]grpo[/]  {total_workers(self.config, nodes.node.count)} rollout worker(s), "
            f"{total_ranks(self.config, nodes.node.count)} learner rank(s), "
            f"{groups.prompts_per_step} x {groups.group_size} answers a step{self._share('grpo')}"
        )
        with self.log.stage("grpo"):
            self._run_grpo(start)

    def _run_grpo(self, start: Path) -> None:
        run, nodes = self.run, self.nodes
        checkpoint, adapter = self._adapter_start(start)
        if adapter:  # the workers below have the base alone until the first sync
            self._ask_what_lacks("sft", start)
        with self._workers(checkpoint) as workers:
            job = JobSpec(
                kind="grpo",
                config=str(run / "config.yaml"),
                checkpoint=str(checkpoint),
                adapter=adapter,
                manifest=str(self.data["rl"]),
                test=str(self.data["test"]),
                validation=str(self.data["validation"]),
                output=str(run / "checkpoint"),
                work=str(run),
                title="GRPO",
                run_id=read_identity(run)["wandb_id"],
                workers=workers.urls,
                resume=self.resume,
            )
            self.conditions.ask("sft", workers, start)
            run_learner(job, self.config, workers, nodes)
            self.conditions.ask("grpo", workers, start)

    def evaluate_alone(self, checkpoint: Path, name: str) -> None:
        """Evaluate a checkpoint through workers that load it from its folder; once in a run, however often resumed."""
        if (self.run / "eval" / f"{name}.jsonl").is_file():
            console.print(f"[bold]evaluate-{name}[/]  already done in this run")
            self._ask_what_lacks(name, checkpoint)
            return
        samples = evaluation_samples(self.data["test"], self.config.task)
        with self.log.stage(f"evaluate-{name}"), self._workers(checkpoint) as workers:
            with workers.pool() as pool, ProgressBar(f"evaluating ({name})", len(samples), "clips") as bar:
                most = self.config.evaluation.max_tokens
                scored = evaluate(pool, Processor(checkpoint), samples, most, bar.advance)
            self.conditions.ask(name, workers, checkpoint)
            save_scored(scored, self.run / "eval" / f"{name}.jsonl")

    def _ask_what_lacks(self, name: str, checkpoint: Path) -> None:
        """Ask a stage in other conditions that were set after it, by workers of its own."""
        if self.conditions.lacks(name):
            with self._workers(checkpoint) as workers:
                self.conditions.ask(name, workers, checkpoint)

    def control_arm(self, start: Path) -> None:
        """Continue SFT, at most for as long as GRPO took, and evaluate: what its time or labels bring without RL."""
        if (self.run / "eval" / "control.jsonl").is_file():
            console.print("[bold]control[/]  already finished in this run")
            self._ask_what_lacks("control", self.run / "control" / "checkpoint")
            return
        folder = self.run / "control"
        if _is_trained(folder / "work"):  # and was interrupted while it was evaluated
            console.print("[bold]control[/]  already trained in this run")
        else:
            self._train_control(start, folder)
        self.evaluate_alone(folder / "checkpoint", "control")

    def _train_control(self, start: Path, folder: Path) -> None:
        seconds, settings = float(read_result(self.run)["grpo"]["elapsed"]), self.config.control
        these = "GRPO's clips with exact times" if settings.clips == "rl" else "SFT's clips"
        steps = f"{settings.max_steps} steps, at most " if settings.max_steps else ""
        console.print(
            f"[bold]control[/]  SFT continued on {these} for {steps}{clock(seconds)}, as long as GRPO took"
            f"{self._share('control')}"
        )
        own, clips = control_config(self.config), self.data[settings.clips]
        with self.log.stage("control"):
            folder.mkdir(exist_ok=True)
            self._sft_job(*self._adapter_start(start), folder, seconds, "SFT continued", own, clips)
            link_records(self.run, folder / "work")

    def _adapter_start(self, start: Path) -> tuple[Path, str]:
        """Where a stage after SFT starts: its checkpoint, and the adapter over it to go on with (empty: none)."""
        lora = self.config.lora
        if not lora.continue_:
            return start, ""
        return adapter_base(start, lora.rank, lora.alpha), str(start / ADAPTER_FOLDER)

    def _sft_job(
        self,
        base: Path,
        adapter: str,
        folder: Path,
        max_seconds: float,
        title: str,
        own: ExperimentConfig | None = None,
        manifest: Path | None = None,
    ) -> Mapping[str, Any]:
        """Run SFT in a stage's folder, with the run's configuration and clips or with others."""
        config = own or self.config
        save_resolved(config, folder / "config.yaml")
        job = JobSpec(
            kind="sft",
            config=str(folder / "config.yaml"),
            checkpoint=str(base),
            adapter=adapter,
            manifest=str(manifest or self.data["sft"]),
            validation=str(self.data["validation"]),
            output=str(folder / "checkpoint"),
            work=str(folder / "work"),
            title=title,
            run_id=secrets.token_hex(4),
            max_seconds=max_seconds,
            resume=any((folder / "work" / CHECKPOINTS).glob("step-*")),
        )
        run_learner(job, config, None, self.nodes)
        shutil.rmtree(folder / "work" / CHECKPOINTS, ignore_errors=True)  # the stage has its result
        return read_result(folder / "work")

    def _share(self, stage: str) -> str:
        share = "" if self.resume else self.forecast.share(stage)
        return share and f" ({share})"

    @contextmanager
    def _workers(self, checkpoint: Path) -> Iterator[Fleet]:
        """The rollout workers, from the moment they serve; ended whatever happens."""
        media = [*audio_folders(self.data), *self.conditions.folders]
        workers = Fleet(self.config, checkpoint.resolve(), media, self.run / "logs", self.nodes)
        with ExitStack() as undo:
            undo.callback(workers.end)
            model = self.config.model.path or "tiny"
            wait_for_vllm(
                workers, self.cache, f"{model}, {total_workers(self.config, self.nodes.node.count)} worker(s)"
            )
            console.print(f"  vLLM serves on {', '.join(workers.urls)}")
            yield workers


def control_config(config: ExperimentConfig) -> ExperimentConfig:
    """The configuration of the control's SFT job: the run's, with what `control` says in the place of SFT's own."""
    control, sft = config.control, config.sft
    changed = replace(
        sft,
        epochs=0.0,
        max_steps=control.max_steps or UNBOUNDED,
        optimiser=replace(sft.optimiser, learning_rate=control.learning_rate or sft.optimiser.learning_rate),
        label_times="exact" if control.clips == "rl" else sft.label_times,
        validate_every=control.validate_every or sft.validate_every,
        keep_best=bool(control.validate_every),
    )
    return replace(config, sft=changed)


def _is_trained(work: Path) -> bool:
    """Whether an SFT job has ended well on all ranks: with a report, and its resumable checkpoints are removed."""
    return (work / RESULT_FILE).is_file() and not (work / CHECKPOINTS).exists()


def _clips_to_write(config: ExperimentConfig) -> int:
    """Clips that `Pipeline.prepare_data` will write: those of the splits that are not kept yet."""
    if config.data.test:
        return 0
    cache = Path(config.runs) / "cache"
    missing = [split for split in SPLITS if not is_kept(f"data-{split}", cache, data_key(config, split))]
    return sum(getattr(config.data, f"{split}_clips") for split in missing)
