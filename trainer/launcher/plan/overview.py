"""What fits on 1, 2, 8 and 16 cards of 40, 80 and 141 GB: every published checkpoint, all weights and adapters."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from timepro.config import experiment_folders, load_experiment
from timepro.families.published import PUBLISHED
from timepro.tables import plain_table
from trainer.launcher.plan.fit import as_typed, changed, nearest
from trainer.launcher.plan.layout import layout_for
from trainer.launcher.plan.machine import CARDS, Card, Machine
from trainer.launcher.plan.plan import plan_of
from trainer.settings.experiment import ExperimentConfig

COUNTS = (1, 2, 8, 16)
_A_NODE = 8
SECONDS = 10.0  # of a clip, DESED's
_BASE = "base/eight_gpus"  # the paper's settings
_TRAINED = {"adapters": [], "all": ["lora.rank=0", "lora.continue=false"]}
_SHORT = {
    "gradient_checkpointing": "checkpointing",
    "micro_batch_tokens": "micro-batch",
    "max_batched_tokens": "worker's pass",
    "gpu_memory_fraction": "worker's share",
    "offload_optimiser": "offload",
}


@dataclass(frozen=True)
class Cell:
    """A checkpoint on some cards.

    Args:
        gib: of a learner rank; `seconds`: of a step. Both 0 where it does not fit.
        changes: settings that it needs, as they are typed.
    """

    model: str
    trained: str
    cards: int
    gb: int
    fits: bool
    gib: float
    seconds: float
    changes: list[str]


def overview() -> list[Cell]:
    """Every combination, with the paper's settings as far as they fit."""
    return [
        _cell(published.name, trained, count, card)
        for published in PUBLISHED
        for trained in _TRAINED
        for count in COUNTS
        for card in CARDS
    ]


def settings_for(model: str, trained: str, machine: Machine) -> ExperimentConfig:
    """The paper's settings, laid out on a machine."""
    config = load_experiment(_BASE, _TRAINED[trained], ExperimentConfig, experiment_folders())
    config.model.path = f"checkpoints/{model}"
    return changed(config, list(layout_for(len(machine.cards), machine.nodes).items()))


def _cell(model: str, trained: str, cards: int, card: Card) -> Cell:
    machine = Machine(-(-cards // _A_NODE), (card.gib,) * min(cards, _A_NODE), card)
    config = settings_for(model, trained, machine)
    changes = nearest(config, machine, SECONDS)
    if changes is None or "lora.rank" in dict(changes):
        return Cell(model, trained, cards, card.gb, False, 0.0, 0.0, [])
    found = plan_of(changed(config, changes), machine, SECONDS)
    assert found.step is not None
    return Cell(model, trained, cards, card.gb, True, found.rank.total / 2**30, found.step.total, as_typed(changes))


def overview_table(cells: list[Cell]) -> Table:
    """A row a checkpoint, way of training and number of cards; a column a size of card."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        rows.setdefault((cell.model, cell.trained, str(cell.cards)), []).append(_text(cell))
    headings = ["checkpoint", "trained", "cards", *(f"{card.gb} GB" for card in CARDS)]
    texts = [[Text(value) for value in (*key, *shown)] for key, shown in rows.items()]
    return plain_table("", headings, texts, prose=len(CARDS))


def _text(cell: Cell) -> str:
    if not cell.fits:
        return "-"
    changes = ", ".join(dict.fromkeys(_short(change) for change in cell.changes))
    return f"{cell.gib:.0f} GiB, {cell.seconds:.1f} s{f' ({changes})' if changes else ''}"


def _short(change: str) -> str:
    key, _, value = change.partition("=")
    name = _SHORT[key.rpartition(".")[2]]
    return name if value == "true" else f"{name} {value}"
