"""A process that has joined a group ends without taking the interpreter down, and loses nothing by it."""

from __future__ import annotations

import pytest

from ranks import ended_ranks

PROGRAM = """
import atexit, logging, sys
from trainer.learner import distributed

class Late:
    def __del__(self):  # what the interpreter would call while it is taken down
        print("taken down", flush=True)

late = Late()
atexit.register(lambda: print("tidied"))
if sys.argv[1] == "joined":
    distributed.join(60.0)
    distributed.barrier()
sys.stdout.write("said without a flush, ")
distributed.leave(int(sys.argv[2]))
"""


@pytest.mark.parametrize("code", [0, 143])
@pytest.mark.parametrize("joined", ["joined", "alone"])
def test_leaving_flushes_tidies_up_and_keeps_the_exit_code(joined: str, code: int) -> None:
    for rank in ended_ranks(PROGRAM, joined, code):
        assert (rank.exit_code, rank.out) == (code, "said without a flush, tidied\n"), rank.log
