"""`timepro serve`: the server's command line and environment, its start, and its end with the command."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rollout.events_api.settings import SETTINGS_VARIABLE, ServeSettings, own_address
from rollout.media import MEDIA_VARIABLE
from rollout.phases import read_phase
from rollout.settings import WorkerConfig
from rollout.worker import SERVED_NAME, Worker, engine_arguments, worker_environment
from timepro.card import read_card
from timepro.checks.limits import ModelLimits
from timepro.system.network import free_port, is_loopback, require_free
from timepro.system.processes import log_tail

OWN_TOKEN_VARIABLE = "TIMEPRO_SERVE_TOKEN"
_LEAST_TOKEN = 16
_QUESTION, _ANSWER, _ROUND = 512, 256, 64  # tokens; a longest sequence is rounded up to a multiple
_GPU_FRACTION = 0.85
_STEP_S = 0.5


def serve(options: argparse.Namespace) -> int:
    """Start the server, say when it is ready, and wait for its end; returns the exit code.

    Raises:
        ValueError: what the user can put right, before the model is loaded.
        RuntimeError: the server did not start, or ended by itself, with the end of its log.
    """
    token, told = read_token(options.token_file, options.host)
    if options.port:
        require_free(options.host, options.port, "the server", "give --port another one, or 0 for a free one")
    settings = ServeSettings(
        checkpoint=str(options.checkpoint.resolve()), host=options.host,
        port=options.port or free_port(options.host), at_once=options.at_once, queue=options.queue,
        max_upload_mib=options.max_upload_mib, max_audio_s=options.max_audio, time_limit_s=options.time_limit,
    )  # fmt: skip
    config = server_config(Path(settings.checkpoint), options.threads)
    command, environment = server_command(config, settings, options.vllm), server_environment(config, settings, token)
    if told:
        _say(told)
    logs = None if options.log else Path(tempfile.mkdtemp(prefix="timepro-serve-"))
    log: Path = options.log if logs is None else logs / "server.log"
    with _ended_by_signals():
        server = Worker("0", command, environment, own_address(settings), log, title="the server")
        try:
            _wait_ready(server, config.start_timeout_s)
            _say(f"ready: {_shown_address(settings)} ({'with' if token else 'without'} a token); log: {log}")
            while server.process.poll() is None:
                time.sleep(_STEP_S)
        except KeyboardInterrupt:
            _say("stopped")
            server.end()
            if logs is not None:
                shutil.rmtree(logs)
            return 0
        finally:
            server.end()
    code = server.process.returncode
    raise RuntimeError(f"the server has ended by itself (exit code {code}).\nThe end of {log}:\n{log_tail(log)}")


def server_config(folder: Path, threads: int) -> WorkerConfig:
    """How the model runs: with a card of its own, and room for the longest clip that its encoder takes.

    Raises:
        ValueError: a file of the folder that is missing or damaged.
    """
    limits = ModelLimits.of_checkpoint(folder)
    room = -(-(limits.audio_tokens(limits.seconds) + _QUESTION + _ANSWER) // _ROUND) * _ROUND
    plain = WorkerConfig(threads=threads, gpu_memory_fraction=_GPU_FRACTION)
    return replace(plain, max_model_len=room, max_batched_tokens=max(room, plain.max_batched_tokens))


def _wait_ready(server: Worker, timeout_s: float) -> None:
    said = ""
    while not server.ready(timeout_s):
        phase = read_phase(server.log)
        if phase and phase != said:
            _say(f"{phase} ({time.monotonic() - server.started:.0f} s)")
            said = phase
        time.sleep(_STEP_S)


def _say(text: str) -> None:
    print(f"timepro: {text}", file=sys.stderr, flush=True)


def _shown_address(settings: ServeSettings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def server_command(config: WorkerConfig, settings: ServeSettings, more: list[str]) -> list[str]:
    """The command line: vLLM's own server with our plugin, without what is a worker's alone (taking in weights).

    Args:
        more: further options of vLLM; the last one of a name counts.
    """
    folder = Path(settings.checkpoint)
    card = read_card(folder)
    name = card.name if card else folder.name
    command = engine_arguments(config, folder)
    command += ["--served-model-name", name, *([SERVED_NAME] if name != SERVED_NAME else [])]
    command += ["--host", settings.host, "--port", str(settings.port)]
    # The later one is the outer one: nothing gets past the guard.
    for middleware in ("rollout.events_api.mount.EventsRoutes", "rollout.events_api.guard.Guard"):
        command += ["--middleware", middleware]
    # No page of another site may read an answer, nor make the server fetch from elsewhere; /docs asks nobody else.
    command += ["--allowed-origins", "[]", "--enable-offline-docs", "--disable-uvicorn-access-log"]
    return [*command, *more]


def server_environment(config: WorkerConfig, settings: ServeSettings, token: str) -> dict[str, str]:
    """The environment; the token travels here, where no process list shows it."""
    environment = worker_environment(config, token) | {SETTINGS_VARIABLE: settings.to_json()}
    environment.pop("VLLM_SERVER_DEV_MODE")  # its routes change weights
    environment.pop(OWN_TOKEN_VARIABLE, None)
    environment[MEDIA_VARIABLE] = json.dumps([])  # no file of this machine by its path
    return environment


def read_token(file: Path | None, host: str) -> tuple[str, str]:
    """The token that requests must bring; empty where none is needed.

    Args:
        file: holds it; it is made, with a fresh one, where it is missing.

    Returns:
        the token, and what the user should be told of it.

    Raises:
        ValueError: no token for an address beyond this machine, one that others can read, or one that is too short.
    """
    told = ""
    if file is None:
        token = os.environ.get(OWN_TOKEN_VARIABLE, "").strip()
        where = OWN_TOKEN_VARIABLE
    else:
        if not file.exists():
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(secrets.token_urlsafe(32) + "\n")
            told = f"a fresh token is in {file}, which only you can read"
        if file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            raise ValueError(f"{file} can be read by others on this machine; chmod 600 {file}")
        token, where = file.read_text(encoding="utf-8").strip(), str(file)
        if not token:
            raise ValueError(f"{file} holds no token; write one into it, or remove it and a fresh one is made")
    if not token and not is_loopback(host):
        raise ValueError(
            f"--host {host} can be reached from other machines, and there is no token; give --token-file FILE (made "
            f"where it is missing) or set {OWN_TOKEN_VARIABLE}"
        )
    if token and (len(token) < _LEAST_TOKEN or not token.isascii() or any(c.isspace() for c in token)):
        raise ValueError(f"the token of {where} must be one word of at least {_LEAST_TOKEN} ASCII characters")
    return token, told
