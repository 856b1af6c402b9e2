"""How much memory the processes of a run take at least, from the sizes of its checkpoint's files: nothing is loaded.

Counted are weights, gradients, the optimiser's state and the workers' caches. Activations, encoded audio and the
libraries themselves come on top, so what does not fit by these numbers does not fit.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from rollout.settings import worker_gpus
from timepro.tiny.base import base_folder
from timepro.tiny.config import TinyModelConfig
from trainer.settings.experiment import ExperimentConfig
from trainer.settings.model import ModelConfig

_GIB = 2**30
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Needs:
    """Memory in GiB, at least.

    Args:
        parameters: of the model.
        rank: of one learner rank, where it computes.
        rank_host: of one learner rank, in main memory, where the optimiser's state is kept there.
        worker: weights of one rollout worker, over all of its cards.
        cache: a worker's key-value cache on a CPU.
        together: whether ranks and workers run at the same time; without GRPO the workers evaluate after the learner.
    """

    parameters: float
    rank: float
    rank_host: float
    worker: float
    cache: float
    together: bool


def needs_of(config: ExperimentConfig, n_ranks: int, gpu: bool) -> Needs:
    """What the processes of a run need.

    Args:
        n_ranks: learner ranks on all nodes: ZeRO-3 shares weights, gradients and state among them.

    Raises:
        ValueError: a checkpoint folder without weights.
    """
    count = _parameters(config.model)
    weight = _BYTES.get(config.zero.dtype, 2 if gpu else 4)
    served = _BYTES.get(config.rollout.dtype, 2 if gpu else 4)
    state = 0 if config.lora.rank else 8 if weight == 4 else 12  # Adam's two moments, and the weights in float32
    gradients = 0 if config.lora.rank else weight
    reference = weight if config.grpo.enabled and config.grpo.kl.coefficient and not config.lora.rank else 0
    offloaded = state if config.zero.offload_optimiser else 0
    share = count / n_ranks / _GIB
    return Needs(
        parameters=count,
        rank=(weight + gradients + state + reference - offloaded) * share,
        rank_host=offloaded * share,
        worker=served * count / _GIB,
        cache=0.0 if gpu else config.rollout.kv_cache_mib / 1024,
        together=config.grpo.enabled,
    )


def parameters_of(folder: Path) -> float:
    """About how many parameters a checkpoint holds, by the sizes of its weight files and its stated dtype.

    Raises:
        ValueError: no weight files.
    """
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if not size:
        raise ValueError(f"{folder} holds no *.safetensors files, so what a run needs of memory is not known")
    config = (
        json.loads((folder / "config.json").read_text(encoding="utf-8")) if (folder / "config.json").is_file() else {}
    )
    inner = config.get("thinker_config", {})
    stated = [part.get(key) for part in (config, inner) for key in ("dtype", "torch_dtype") if part.get(key)]
    return size / _BYTES.get(str(stated[0]) if stated else "float32", 4)


def host_gib(needs: Needs, n_ranks: int, n_workers: int, gpu: bool) -> float:
    """Main memory that the processes of one node take at least."""
    if gpu:
        return n_ranks * needs.rank_host
    return _at_once(needs, n_ranks * (needs.rank + needs.rank_host), n_workers * (needs.worker + needs.cache))


def card_problems(
    config: ExperimentConfig, needs: Needs, cards: list[float], n_ranks: int, n_workers: int
) -> list[str]:
    """What does not fit on the cards of a node.

    Args:
        cards: memory of each in GiB.
        n_ranks, n_workers: those of this node.
    """
    if not cards:
        return []
    learner_load: dict[int, float] = defaultdict(float)
    worker_load: dict[int, float] = defaultdict(float)
    problems = []
    learning = _cards(config.learner.gpus, len(cards))
    for rank in range(n_ranks):
        learner_load[learning[rank % len(learning)]] += needs.rank
    width, fraction = config.rollout.tensor_parallel, config.rollout.gpu_memory_fraction
    for index in range(n_workers):
        own = _cards(worker_gpus(config.rollout, index) if config.rollout.gpus else "", len(cards))[:width]
        for card in own:
            worker_load[card] += fraction * cards[card]
            if needs.worker / width > fraction * cards[card]:
                problems.append(
                    f"a worker's weights take {needs.worker / width:.1f} GiB of card {card}, but "
                    f"rollout.gpu_memory_fraction={fraction:g} leaves it {fraction * cards[card]:.1f} of "
                    f"{cards[card]:.1f} GiB"
                )
    for card in sorted(learner_load.keys() | worker_load.keys()):
        load = _at_once(needs, learner_load[card], worker_load[card])
        if load > cards[card]:
            problems.append(
                f"card {card} has {cards[card]:.1f} GiB, but the ranks and workers on it take at least {load:.1f}: "
                "give them cards of their own (learner.gpus, rollout.gpus), more ranks, or zero.offload_optimiser=true"
            )
    return list(dict.fromkeys(problems))


def _at_once(needs: Needs, ranks: float, workers: float) -> float:
    return ranks + workers if needs.together else max(ranks, workers)


def _cards(named: str, present: int) -> list[int]:
    """The cards that a setting names, or all; those that are not there are another check's."""
    cards = [int(card) for card in named.split(",") if card.strip().isdigit() and int(card) < present]
    return cards or list(range(present))


def _parameters(model: ModelConfig) -> float:
    if model.path:
        return parameters_of(Path(model.path))
    return _tiny_parameters(model.tiny) if model.tiny.from_scratch else parameters_of(base_folder(model.tiny))


def _tiny_parameters(config: TinyModelConfig) -> float:
    """About how many parameters the model built here has, its small vocabulary left out."""
    layer = 4 * config.hidden_size**2 + 3 * config.hidden_size * config.feed_forward
    encoder = 4 * config.encoder_width**2 + 2 * config.encoder_width * config.encoder_feed_forward
    return config.layers * layer + config.encoder_layers * encoder
