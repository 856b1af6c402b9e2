"""A worker of the reward pool: `python -m rewards.worker FD`, started by `rewards.pool` with its end of a socket."""

from __future__ import annotations

import importlib
import logging
import signal
import socket
import sys
import traceback
from typing import Any

from rewards import build_reward
from rewards.built import BuiltReward
from rewards.places import IN_WORKER, full_place_of
from rewards.pool import Outcome, receive, send
from timepro.system.processes import end_with_parent
from timepro.tasks import find_task


def main() -> None:
    """Build rewards and score groups until the other end is closed."""
    # Closing the socket ends an idle worker; one that hangs in a reward needs the kernel.
    end_with_parent(signal.SIGKILL)
    logging.getLogger("rewards").setLevel(logging.ERROR)  # what was skipped is said by the other end
    rewards: dict[str, BuiltReward] = {}
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        while True:
            try:
                kind, key, *content = receive(connection, None)
            except EOFError:
                return
            try:
                if kind == "build":
                    rewards[key] = _build(*content)
                    answer: tuple[str, Any] = ("built", None)
                else:
                    answer = ("scored", _score(rewards[key], *content))
            except Exception as error:
                answer = ("failed", _failure(error))
            send(connection, answer, None)


def _build(
    spec: dict[str, Any], defaults: dict[str, Any], modules: tuple[str, ...], tasks: tuple[str, ...], path: list[str]
) -> BuiltReward:
    sys.path += [entry for entry in path if entry not in sys.path]
    for task in tasks:
        find_task(task)
    for name in modules:
        importlib.import_module(name)
    reward = build_reward(spec, defaults, inline=True)
    for node in reward.nodes():
        if start := getattr(node.reward, "start", None):
            start()
    return reward


def _score(reward: BuiltReward, group: Any) -> Outcome:
    values = reward(group)
    group.parts.pop(reward.name)  # recorded by the caller, after its own checks
    return Outcome(values, group.parts, group.skipped)


def _failure(error: Exception) -> Outcome:
    place = IN_WORKER + full_place_of(error)
    if isinstance(error, ValueError):
        return Outcome(error=str(error), users_fault=True, trace=place)
    summary = traceback.format_exception_only(error)[-1].strip()
    return Outcome(error=summary, trace=f"{place}\n{''.join(traceback.format_exception(error)).strip()}")


if __name__ == "__main__":
    main()
