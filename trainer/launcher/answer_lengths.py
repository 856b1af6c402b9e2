"""Whether right answers fit into the tokens that a model may say: one that is cut off is never right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from timepro.features import Processor
from timepro.tasks import Sample, find_task
from timepro.tasks.samples import evaluation_samples
from trainer.launcher.console import console
from trainer.settings.experiment import ExperimentConfig


def note_answer_lengths(config: ExperimentConfig, data: Mapping[str, Path], checkpoint: Path) -> None:
    """Say how many right answers are longer than what the workers may answer.

    Args:
        data: manifests by split.
        checkpoint: whose tokenizer and way to write times count.
    """
    processor = Processor(checkpoint)
    for split, key, most in _asked(config):
        lengths = _lengths(processor, evaluation_samples(data[split], config.task))
        longer = sum(length > most for length in lengths)
        if longer:
            console.print(
                f"[bold]note[/]  {longer:,} of {len(lengths):,} right answers in the {split} set have more tokens than "
                f"{key}={most} and would be cut off; the longest has {max(lengths)}"
            )


def _asked(config: ExperimentConfig) -> Iterator[tuple[str, str, int]]:
    """The splits whose questions are asked, and the setting that bounds the answers."""
    if config.grpo.enabled:
        yield "rl", "grpo.groups.max_tokens", config.grpo.groups.max_tokens
        if config.grpo.validate_every:
            yield "validation", "evaluation.max_tokens", config.evaluation.max_tokens
    yield "test", "evaluation.max_tokens", config.evaluation.max_tokens


def _lengths(processor: Processor, samples: list[Sample]) -> list[int]:
    """Tokens of each right answer, its end among them."""
    layout = processor.layout
    texts = [find_task(s.task).write(list(s.reference), layout.answer_style, layout.vocabulary) for s in samples]
    return [len(ids) + 1 for ids in processor.tokenizer(texts, add_special_tokens=False).input_ids]
