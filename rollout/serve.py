"""vLLM's API server, ended by Linux when its launcher dies: `python -m rollout.serve ...`, arguments as vLLM's own."""

from __future__ import annotations

import runpy

from rollout.phases import say_phase
from timepro.system.processes import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    say_phase("importing vLLM")
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)
