"""What a reward gives for a few answers, as a table to read: right, near, wrong, empty and unreadable ones."""

from __future__ import annotations

from rich.text import Text

from rewards.built import BuiltReward
from rewards.contract import ANSWERS, REFERENCES, group_of
from rewards.group import Group
from timepro.inspection import show_answer, show_events
from timepro.tables import plain_table, print_table

_REFERENCE, _ANSWERS = "two events", "mixed"


def print_sample_values(reward: BuiltReward, task: str, form: str = "text") -> None:
    """Print every answer of one group with its value, the parts it is made of, and how the answer was read.

    Where the reward fails on the group, each answer is scored alone, which shows the ones that it fails on.
    """
    group = group_of(ANSWERS[_ANSWERS], REFERENCES[_REFERENCE], task, "sample")
    how = "in one group"
    try:
        columns = {reward.name: [_number(v) for v in reward(group)]}
        columns |= {name: [_number(v) for v in part] for name, part in group.parts.items() if name != reward.name}
    except Exception:  # the user's code may raise anything; the contract's check tells what
        how = "each answer alone, since it fails on the group"
        columns = {reward.name: [_alone(reward, group, i) for i in range(len(group.completions))]}
    rows = []
    for i, completion in enumerate(group.completions):
        read = show_answer(completion.text)
        told = "as written" if read == completion.text else read
        texts = [values[i] for values in columns.values()]
        rows.append([Text(t) for t in (*texts, repr(completion.text), told, "; ".join(completion.answer.repairs))])
    title = f"what it gives, {how}, task {task}; right: {show_events(REFERENCES[_REFERENCE])}"
    print_table(plain_table(title, [*columns, "answer", "read as", "repairs"], rows, prose=3), form)


def _alone(reward: BuiltReward, group: Group, position: int) -> str:
    try:
        return _number(reward(group.only([position]))[0])
    except Exception as error:
        return f"{type(error).__name__}"


def _number(value: float) -> str:
    return f"{value:.3f}"
