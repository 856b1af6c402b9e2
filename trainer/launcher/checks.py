"""What is found in the first second instead of after hours, and what a run would do (`--dry-run`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rewards import build_reward
from rollout.media import media_folders
from rollout.settings import WorkerConfig, worker_gpus
from timepro.adapter_folder import adapter_base
from timepro.checks.limits import ModelLimits
from timepro.checks.samples import Purpose, SampleProblem, check_samples, label_notes, label_times, problems_text
from timepro.data.manifest import iter_manifest
from timepro.data.soundbank.layout import problems_at_once, read_layout
from timepro.data.soundbank.settings import check_bank_config
from timepro.data.soundscape import check_soundscape
from timepro.families import family_of
from timepro.names import check_run_name
from timepro.plugins import import_object
from timepro.system.network import require_free
from timepro.tasks.samples import evaluation_samples, resolved_times, task_weights
from timepro.tiny.base import base_folder
from trainer.launcher.nodes.node import check_nodes, generating, learning
from trainer.launcher.plan.fit import nearest
from trainer.launcher.plan.machine import machine_of
from trainer.launcher.plan.plan import plan_of
from trainer.launcher.plan.show import in_short
from trainer.launcher.ranks import learner_for
from trainer.settings.data import SPLITS
from trainer.settings.experiment import ExperimentConfig


def check(config: ExperimentConfig, n_nodes: int = 1) -> None:
    """Find what would fail later, in the first second.

    Raises:
        ValueError: naming the key and what to set.
    """
    check_run_name(config.name)
    tasks = task_weights(config.task)  # first, since the rewards may name the tasks that it finds
    reward = build_reward(config.rewards)
    parts = reward.part_names
    for task in tasks if config.grpo.enabled else ():
        reward.check_task(task)
    if unknown := [name for name in config.grpo.advantage.parts if name not in parts]:
        raise ValueError(
            f"grpo.advantage.parts names {', '.join(unknown)}; the configured reward records {', '.join(parts)}"
        )
    check_nodes(config.nodes, n_nodes)
    _check_learner(config, len(learning(config.nodes, n_nodes)))
    _check_lora(config)
    config.grpo.check()
    _check_own_code(config)
    config.sft.checkpoints.check("sft.checkpoints")
    config.sft.encoder_warmup.check()
    for task in tasks:
        resolved_times([], task, config.sft.label_times)
    config.zero.check()
    _check_noise(config)
    _check_sync(config)
    config.wandb.check()
    _check_workers(config.rollout, total_workers(config, n_nodes))
    if config.model.path:
        family_of(config.model.path)
    _check_data(config)
    _check_control(config)
    if config.sft.keep_best and not config.sft.validate_every:
        raise ValueError("sft.keep_best needs sft.validate_every: the best is chosen by validation losses")


def _check_noise(config: ExperimentConfig) -> None:
    extra = config.zero.extra.get("zero_optimization", {})
    offloading = {
        "zero.offload_optimiser": config.zero.offload_optimiser,
        "zero.extra.zero_optimization.offload_optimizer": isinstance(extra, dict) and extra.get("offload_optimizer"),
    }
    for key in (key for key, asked in offloading.items() if asked and config.grpo.noise_every):
        raise ValueError(
            "grpo.noise_every reads half an update's gradient, which an optimiser in main memory never has; set it to "
            f"0, or take {key} back"
        )


def _check_learner(config: ExperimentConfig, n_learning: int) -> None:
    ranks = config.learner.ranks * n_learning
    where = f"learner.ranks={config.learner.ranks}" + (f" on each of {n_learning} nodes" if n_learning > 1 else "")
    for key, batch in (
        ("grpo.groups.prompts_per_step", config.grpo.groups.prompts_per_step),
        ("sft.batch_size", config.sft.batch_size),
    ):
        if batch < ranks:
            raise ValueError(f"{key} is {batch}, less than {where}: a rank would have no work")


def _check_own_code(config: ExperimentConfig) -> None:
    """What is named by import path is there."""
    order, objective = config.grpo.groups.order, config.grpo.objective.name
    for key, kind, name in (("grpo.groups.order", "order", order), ("grpo.objective.name", "objective", objective)):
        if ":" in name:
            import_object(name, kind, key)


def _check_lora(config: ExperimentConfig) -> None:
    lora = config.lora
    if lora.rank and not lora.targets:
        raise ValueError("lora.targets is empty; name the linear layers that get an adapter, or set lora.rank=0")
    if not lora.continue_:
        return
    if not lora.rank:
        raise ValueError("lora.continue=true goes on with the adapter of SFT, but lora.rank=0 trains all weights")
    if config.sft.enabled and config.sft.encoder_warmup.steps:
        raise ValueError(
            "lora.continue=true starts RL from the checkpoint before SFT, whose audio encoder SFT must leave as it is: "
            "set sft.encoder_warmup.steps=0, or lora.continue=false"
        )
    if config.model.path and not config.sft.enabled:
        adapter_base(Path(config.model.path), lora.rank, lora.alpha)


def _check_sync(config: ExperimentConfig) -> None:
    if not config.grpo.enabled:
        return config.sync.check()
    if not config.sends_deltas or config.sync.mode != "delta":
        return
    learner, workers = config.zero.resolved_dtype, config.rollout.resolved_dtype
    if learner != workers:
        raise ValueError(
            f"sync.mode=delta sends the bits that have changed, but the learner trains {learner} (zero.dtype) and the "
            f"workers keep {workers} (rollout.dtype); set both alike, or sync.mode=auto"
        )
    if config.rollout.tensor_parallel > 1:
        raise ValueError(
            "sync.mode=delta needs workers of one process, which hold every tensor whole: set "
            "rollout.tensor_parallel=1, or sync.mode=auto, which sends weights whole here"
        )


def _check_control(config: ExperimentConfig) -> None:
    control = config.control
    control.check()
    if not control.enabled:
        return
    if not config.grpo.enabled:
        raise ValueError("control.enabled needs grpo.enabled, whose control it is; set control.enabled=false")
    if control.clips == "sft" and not config.sft.enabled:
        raise ValueError("control.clips=sft needs sft.enabled: it goes on with SFT's clips; set control.enabled=false")


def _check_workers(config: WorkerConfig, n_workers: int) -> None:
    config.check()
    if config.min_workers > n_workers:
        raise ValueError(f"rollout.min_workers is {config.min_workers}; there are only {n_workers}")
    if config.gpus:
        worker_gpus(config, 0)
    if config.base_port:
        for index in range(config.workers):
            require_free(config.host, config.base_port + index)


def _check_data(config: ExperimentConfig) -> None:
    check_soundscape(config.data.soundscape)
    _check_bank(config)
    named = [getattr(config.data, split) for split in SPLITS]
    if any(named) and not all(named):
        missing = [f"data.{split}" for split, path in zip(SPLITS, named, strict=True) if not path]
        raise ValueError(f"some manifests are named and others are not; set {', '.join(missing)} too, or none at all")
    limits = limits_of(config)
    if not all(named):
        if problem := limits.clip_problem(config.data.soundscape.max_duration):
            raise ValueError(f"data.soundscape.max_duration: the longest clip {problem}")
        _check_longest_row(config, limits)
        return
    # Read here, so that a bad clip is not found after hours of another stage.
    tasks = list(task_weights(config.task))
    purposes = [
        Purpose("data.sft", tasks, config.sft.label_times),
        Purpose(
            "data.rl", tasks, max_tokens=config.grpo.groups.max_tokens, row_tokens=config.grpo.batch.micro_batch_tokens
        ),
        Purpose("data.validation", tasks, config.sft.label_times, config.evaluation.max_tokens),
        Purpose("data.test", tasks, max_tokens=config.evaluation.max_tokens),
    ]
    problems: list[SampleProblem] = []
    for path, purpose in zip(named, purposes, strict=True):
        problems += check_samples(Path(path), purpose, limits, config.rollout.max_model_len)
    if problems:
        raise ValueError(problems_text(list(dict.fromkeys(problems))))  # a manifest may serve several splits
    audio_folders({split: Path(path) for split, path in zip(SPLITS, named, strict=True)})


def _check_bank(config: ExperimentConfig) -> None:
    """What the names in a sound bank's folder show; its recordings are opened in the data stage."""
    data = config.data
    if not data.soundbank:
        return
    check_bank_config(data.bank)
    if named := [f"data.{split}" for split in SPLITS if getattr(data, split)]:
        raise ValueError(
            f"data.soundbank is set, and {named[0]} too; manifests need no bank: set one of them to nothing"
        )
    try:
        problems = problems_at_once(read_layout(Path(data.soundbank), data.bank.classes))
    except FileNotFoundError as error:
        raise ValueError(f"data.soundbank: {error}") from None
    if problems:
        raise ValueError("data.soundbank: " + "\n  ".join([f"{data.soundbank} cannot be used", *problems[:20]]))


def _check_longest_row(config: ExperimentConfig, limits: ModelLimits) -> None:
    """Of soundscapes that are yet to be made: the longest with one answer must fit a micro-batch."""
    audio, answer = limits.audio_tokens(config.data.soundscape.max_duration), config.grpo.groups.max_tokens
    budget = config.grpo.batch.micro_batch_tokens
    if audio + answer > budget:
        raise ValueError(
            f"grpo.batch.micro_batch_tokens is {budget}; the longest soundscape ({audio} tokens of audio and "
            f"timestamps) and an answer of grpo.groups.max_tokens={answer} do not fit"
        )


def audio_folders(manifests: Mapping[str, Path]) -> list[Path]:
    """The folders of the audio that rollout workers are asked about, which they may read.

    Args:
        manifests: by split.

    Raises:
        ValueError: audio that lies where a worker cannot be let read.
    """
    splits = [manifests[split] for split in ("rl", "validation", "test")]
    return media_folders(clip.audio for path in splits for clip in iter_manifest(path, check_audio=False))


def limits_of(config: ExperimentConfig) -> ModelLimits:
    """What bounds clips and answers of the model that a run starts from. Raises ValueError for wrong settings of it."""
    if config.model.path:
        return ModelLimits.of_checkpoint(Path(config.model.path))
    if not config.model.tiny.from_scratch:
        base_folder(config.model.tiny)  # its settings, before anything is made
    return ModelLimits.of_tiny(config.model.tiny)


def total_ranks(config: ExperimentConfig, n_nodes: int, kind: str = "grpo") -> int:
    """Learner ranks of all nodes in a job of this kind ("sft" or "grpo")."""
    return learner_for(kind, config).ranks * len(learning(config.nodes, n_nodes))


def total_workers(config: ExperimentConfig, n_nodes: int) -> int:
    """Rollout workers of all nodes."""
    return config.rollout.workers * len(generating(config.nodes, n_nodes))


def _validation_lines(config: ExperimentConfig) -> list[str]:
    """How often GRPO is validated, and on how much."""
    every = config.grpo.validate_every
    if not every:
        return []
    named, most = config.data.validation, config.evaluation.validation_clips
    there = len(evaluation_samples(named, config.task)) if named else config.data.validation_clips
    on = f"{min(most or there, there)} greedy answers"
    return [f"validation             every {every} steps, {config.grpo.max_steps // every} times, {on}"]


def describe(config: ExperimentConfig, n_nodes: int = 1) -> str:
    """What a run would do and need, for `--dry-run`.

    Raises:
        ValueError: as `trainer.launcher.plan.plan.plan_of`.
    """
    machine = machine_of(config, nodes=n_nodes)
    plan = plan_of(config, machine)
    grpo, ranks = config.grpo, plan.roles.ranks
    answers = grpo.groups.prompts_per_step * grpo.groups.group_size
    per_rank = -(-grpo.groups.prompts_per_step // ranks)
    tasks = list(task_weights(config.task))
    manifest = Path(config.data.sft) if config.data.sft else None
    lines = [
        f"label times in SFT     {label_times(manifest, tasks, config.sft.label_times)}",
        f"clips a step in SFT    {config.sft.batch_size} ({total_ranks(config, n_nodes, 'sft')} ranks)",
        f"prompts a step         {grpo.groups.prompts_per_step} ({per_rank} a rank, {ranks} ranks)",
        f"answers a step         {answers} (groups of {grpo.groups.group_size})",
        f"steps                  {grpo.max_steps} ({grpo.max_steps * answers} answers in all)",
        *_validation_lines(config),
        f"rollout workers        {plan.roles.workers} (goes on with {config.rollout.min_workers} or more)",
        *in_short(plan, nearest(config, machine) if plan.problems else []),
    ]
    if config.data.test:
        folders = audio_folders({split: Path(getattr(config.data, split)) for split in SPLITS})
        lines.append(f"workers may read       {', '.join(map(str, folders))}")
        lines += [f"note: {note}" for note in label_notes(Path(config.data.sft), Path(config.data.test), tasks)]
    return "\n".join(lines)
