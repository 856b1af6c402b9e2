"""One rollout worker: vLLM's OpenAI-compatible server with this package's plugin, in a session of its own.

Its own session, because a killed API server leaves its engine behind: the whole process group is ended together.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import requests

from rollout.alive import FILE_VARIABLE, last_sign
from rollout.auth import TOKEN_VARIABLE
from rollout.media import CONNECTOR, MEDIA_VARIABLE
from rollout.settings import ADAPTERS_KEY, KEEP_WEIGHTS_KEY, AdapterShape, WorkerConfig, worker_gpus
from timepro.families import family_of
from timepro.feature_cache import FEATURES_VARIABLE, CachePlace
from timepro.hints import tool
from timepro.system import device, guard
from timepro.system.network import interface_of, is_loopback, own_addresses
from timepro.system.processes import group_alive, log_tail

SERVED_NAME = "policy"


def worker_command(
    config: WorkerConfig,
    folder: Path,
    port: int,
    adapters: AdapterShape | None = None,
    profile: Path | None = None,
    name: str = "0",
    deltas: bool = False,
) -> list[str]:
    """The command line of one worker.

    Args:
        folder: checkpoint folder.
        adapters: which the weight stream will bring; None where it brings whole weights.
        profile: where traces go when a profile is asked for; None: none ever is.
        name: of the worker among all of them.
        deltas: whether it may bring deltas of whole weights.
    """
    command = engine_arguments(config, folder)
    command += ["--served-model-name", SERVED_NAME]
    command += ["--host", config.host, "--port", str(port)]
    command += ["--middleware", "rollout.groups_route.GroupsRoute", "--middleware", "rollout.sync_routes.SyncRoutes"]
    command += ["--middleware", "rollout.auth.RequireToken"]  # the later one is the outer one: nothing gets past it
    command += ["--weight-transfer-config", json.dumps({"backend": "torch_dist"})]
    command += ["--worker-extension-cls", "rollout.receiver.WorkerExtension", "--enable-scale-out"]
    command += ["--disable-log-stats", "--disable-uvicorn-access-log"]
    if not config.seeded:  # else each request brings a seed; two workers with the same one would draw alike
        command += ["--seed", str(zlib.crc32(name.encode()) >> 1)]
    more: dict[str, Any] = {ADAPTERS_KEY: asdict(adapters)} if adapters is not None else {}
    if more := more | ({KEEP_WEIGHTS_KEY: True} if deltas else {}):
        command += ["--additional-config", json.dumps(more)]
    if profile is not None:
        # Of the engine alone: what the server does, which is to wait, would fill most of the trace.
        settings = {"profiler": "torch", "torch_profiler_dir": str(profile.resolve()), "ignore_frontend": True}
        command += ["--profiler-config", json.dumps(settings | {"torch_profiler_with_stack": False})]
    return command


def engine_arguments(config: WorkerConfig, folder: Path) -> list[str]:
    """The part of a server's command line that says how the model runs: the same for a worker and for `timepro serve`.

    Args:
        folder: checkpoint folder.
    """
    family = family_of(folder)
    command = [sys.executable, "-m", "rollout.serve", "--model", str(folder)]
    command += ["--hf-overrides", json.dumps({"architectures": [family.vllm_architecture]})]
    command += ["--dtype", config.resolved_dtype, "--max-model-len", str(config.max_model_len)]
    command += ["--max-num-seqs", str(config.max_sequences)]
    command += ["--max-num-batched-tokens", str(config.max_batched_tokens)]
    command += ["--tensor-parallel-size", str(config.tensor_parallel)]
    command += ["--limit-mm-per-prompt", json.dumps({"audio": config.clips_per_prompt, "image": 0, "video": 0})]
    # As the learner reads audio. Left to choose, vLLM tries a decoder that may not be there, with a warning a clip.
    command += ["--media-io-kwargs", json.dumps({"audio": {"audio_backend": "soundfile"}})]
    # Log-probabilities of what was really sampled from: after temperature and bans.
    command += ["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"]
    if not config.compile:
        command.append("--enforce-eager")
    if device.on_gpu():
        command += ["--gpu-memory-utilization", str(config.gpu_memory_fraction)]
    else:
        command += ["--kv-cache-memory-bytes", str(config.kv_cache_mib << 20), "--block-size", "32"]
        if config.tensor_parallel == 1:
            # As on a GPU, the model runs in the engine's process: vLLM would start another one on a CPU to bind its
            # threads to cores, which is off here. By its path, since "uni" is overruled.
            command += ["--distributed-executor-backend", "vllm.v1.executor.uniproc_executor.UniProcExecutor"]
    return command


def worker_environment(
    config: WorkerConfig,
    token: str,
    index: int = 0,
    media: Sequence[Path] = (),
    features: CachePlace | None = None,
) -> dict[str, str]:
    """The environment of one worker; the token travels here, where no process list shows it.

    Args:
        media: audio files below these folders may be given by path.
        features: where their features are kept; None: nowhere.
    """
    environment = device.environment_for_tensors() | {
        TOKEN_VARIABLE: token,
        MEDIA_VARIABLE: json.dumps([str(folder) for folder in media]),
        FEATURES_VARIABLE: features.to_text() if features is not None else "",
        "VLLM_MEDIA_CONNECTOR": CONNECTOR,
        "VLLM_SERVER_DEV_MODE": "1",  # the weight-update routes
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if device.on_gpu():
        if config.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = worker_gpus(config, index)
    else:
        environment |= {
            "TORCHDYNAMO_DISABLE": "1",  # else the first request compiles for many seconds
            "OMP_NUM_THREADS": str(config.threads),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # learner and worker take turns on the same cores
        }
        if is_loopback(config.host):
            environment["GLOO_SOCKET_IFNAME"] = "lo"
    if not is_loopback(config.host) and config.host in own_addresses():
        # What vLLM, gloo and NCCL would else find out on their own, and get wrong where there are several networks.
        environment["VLLM_HOST_IP"] = config.host
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            environment.setdefault(name, interface_of(config.host))
    return environment


def serve_line(config: WorkerConfig, folder: Path) -> str:
    """What to type to serve a checkpoint to OpenAI clients: vLLM's own command, which loads the plugin by itself.

    Prompts and precision are those of the run's workers: left to itself vLLM would halve a float32 checkpoint's.
    """
    words = [tool("vllm"), "serve", shlex.quote(str(folder)), "--max-model-len", str(config.max_model_len)]
    words += ["--dtype", config.resolved_dtype, "--generation-config", "vllm"]
    if not device.on_gpu():
        words = ["TORCHDYNAMO_DISABLE=1", "VLLM_CPU_OMP_THREADS_BIND=nobind", *words]
        words += ["--enforce-eager", "--block-size", "32", "--kv-cache-memory-bytes", str(config.kv_cache_mib << 20)]
        words += ["--max-num-batched-tokens", str(config.max_batched_tokens)]
    return " ".join(words)


class Worker:
    """A running worker process and what is known of it.

    Args:
        index: its number among the run's workers.
        title: what messages call it, where it is no rollout worker of a run.
    """

    def __init__(
        self, index: str, command: list[str], environment: dict[str, str], url: str, log: Path, title: str = ""
    ) -> None:
        self.index, self.url, self.log = index, url, log
        self.title = title or f"rollout worker {index}"
        self._limit_key = "" if title else "rollout.start_timeout_s="
        self._alive = log.with_suffix(".alive")
        self._command, self._environment = command, environment | {FILE_VARIABLE: str(self._alive.resolve())}
        self.restarts = 0
        self.asked: float | None = None  # since when the engine owes an answer
        self._start()

    def restart(self) -> None:
        """Start it again at the same address, after ending what is left of it."""
        self.end(grace_s=0.0)
        self.restarts += 1
        self._start()

    def _start(self) -> None:
        log = self.log
        self.started, self.asked = time.monotonic(), None
        self.served = False
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                self._command, env=self._environment, stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        guard.protect(self.process.pid)

    def ready(self, timeout_s: float) -> bool:
        """Whether the server answers its health route.

        Raises:
            RuntimeError: the process has ended, or `timeout_s` have passed since its start; the message quotes the end
                of its log.
        """
        code = self.process.poll()
        if code is not None:
            raise RuntimeError(
                f"{self.title} ended with exit code {code} before it was ready.\n"
                f"The end of its log ({self.log}):\n{log_tail(self.log)}"
            )
        if self.answers():
            return True
        if time.monotonic() > self.started + timeout_s:
            raise RuntimeError(
                f"{self.title} was not ready within {self._limit_key}{timeout_s:.0f} s.\n"
                f"The end of its log ({self.log}):\n{log_tail(self.log)}"
            )
        return False

    def answers(self) -> bool:
        """Ask the health route, which tells when the server is up."""
        well = self._ask("health", 2.0)
        self.served = self.served or well
        return well

    def engine_answers(self, timeout_s: float) -> bool:
        """Ask something that only the engine knows, as an engine that hangs leaves its server healthy.

        The engine answers between two steps. Before the server is up its health route is asked instead.
        """
        if not self.served:
            return self.answers()
        self.asked = self.asked or time.monotonic()
        well = self._ask("is_sleeping", timeout_s)
        if well:
            self.asked = None
        return well

    def _ask(self, route: str, timeout_s: float) -> bool:
        process, headers = self.process, {"Authorization": f"Bearer {self._environment[TOKEN_VARIABLE]}"}
        try:
            reply = requests.get(f"{self.url}/{route}", timeout=(2.0, timeout_s), headers=headers)
        except requests.RequestException:
            return False
        return reply.status_code == 200 and process is self.process  # not of the one before a restart

    def complaint(self, start_timeout_s: float, silence_timeout_s: float) -> str:
        """Why this worker must be started again; empty while it is well, or still starting."""
        code, now = self.process.poll(), time.monotonic()
        if code is not None:
            return f"ended (exit code {code})"
        silent_s = now - max(self.asked, last_sign(self._alive)) if self.asked else 0.0
        if self.served and silent_s > silence_timeout_s:
            return f"has not answered for {silent_s:.0f} s (rollout.silence_timeout_s={silence_timeout_s:g})"
        if not self.served and now - self.started > start_timeout_s:
            return f"was not ready within rollout.start_timeout_s={start_timeout_s:.0f} s"
        return ""

    def wait_ready(self, timeout_s: float, meanwhile: Callable[[], None] = lambda: None) -> float:
        """Wait until the server is up, calling `meanwhile` again and again; returns the seconds since its start.

        Raises:
            RuntimeError: the process ended, or the deadline passed.
        """
        while not self.ready(timeout_s):
            meanwhile()
            time.sleep(0.5)
        return time.monotonic() - self.started

    def end(self, grace_s: float = 5.0) -> None:
        """End the whole process group: ask first, then kill. Safe to call twice."""
        for sign, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
            if not group_alive(self.process.pid):
                break
            try:
                os.killpg(self.process.pid, sign)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + wait_s
            while time.monotonic() < deadline and group_alive(self.process.pid):
                self.process.poll()  # reaps the leader, which else counts as alive
                time.sleep(0.05)
        self.process.poll()
        if not group_alive(self.process.pid):
            guard.release(self.process.pid)
