"""`LLM.generate` in a process of its own, told over a connection what to answer; for `rollout.py`.

With `inside`, vLLM's engine runs in this process too, and what it does is timed by name.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
# A script beside this one is called like the package `rollout`.
sys.path[:] = [str(ROOT), *(p for p in sys.path if Path(p or ".").resolve() != HERE)]

ENGINE_HERE = "VLLM_ENABLE_V1_MULTIPROCESSING"


def main() -> None:
    """Answer what comes over the connection until it closes: a step's prompts, or None to forget keys and values."""
    job = json.loads(sys.argv[1])
    with Client(job["address"]) as connection:
        llm = started(job["arguments"])
        times = Timers()
        if os.environ[ENGINE_HERE] == "0":
            times.watch(llm)
        connection.send("ready")
        while True:
            try:
                asked = connection.recv()
            except EOFError:
                return
            if asked is None:
                connection.send(llm.reset_prefix_cache())
                continue
            times.clear()
            began = time.perf_counter()
            tokens = generate(llm, *asked)
            connection.send((tokens, dict(times) | {"all": time.perf_counter() - began}))


def started(arguments: list[str]) -> Any:
    """vLLM as a worker's command line describes it."""
    from vllm import LLM, EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    return LLM.from_engine_args(EngineArgs.from_cli_args(parser.parse_args(arguments)))


def generate(llm: Any, prompts: list[tuple[list[int], Path, int | None]], sampling: dict[str, Any]) -> list[Any]:
    """The token ids of each prompt's answers. Audio is given as a worker's media connector gives it."""
    from vllm import SamplingParams

    from rollout.clip_features import FileClip

    asked, parameters = [], []
    for token_ids, path, seed in prompts:
        state = path.stat()
        key = f"{path}:{state.st_mtime_ns}:{state.st_size}"
        clip = {"audio": [FileClip.of(path)]}
        asked.append({"prompt_token_ids": token_ids, "multi_modal_data": clip, "multi_modal_uuids": {"audio": [key]}})
        parameters.append(SamplingParams(**sampling, seed=seed))
    groups = llm.generate(asked, parameters, use_tqdm=False)
    return [[list(answer.token_ids) for answer in group.outputs] for group in groups]


class Timers(Counter[str]):
    """Seconds by name, in calls of an engine in this process."""

    def watch(self, llm: Any) -> None:
        """Time what the engine does from now on."""
        engine = llm.llm_engine
        core = engine.engine_core.engine_core
        self._time("processor", llm.renderer, "render_cmpl")
        self._time("requests", engine, "add_request")
        self._time("scheduler", core.scheduler, "schedule")
        self._time("scheduler", core.scheduler, "update_from_output")
        self._time("model", core.model_executor, "execute_model")
        self._time("sampler", core.model_executor, "sample_tokens")
        self._time("outputs", engine.output_processor, "process_outputs")

    def _time(self, name: str, owner: Any, method: str) -> None:
        work: Callable[..., Any] = getattr(owner, method)

        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*arguments, **named)
            finally:
                self[name] += time.perf_counter() - began
                self[f"{name}_calls"] += 1

        setattr(owner, method, timed)


if __name__ == "__main__":
    main()
