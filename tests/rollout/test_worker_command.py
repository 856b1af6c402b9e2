"""What a worker is started with, and how its processes are ended."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rollout.alive import FILE_VARIABLE, signs_of_life
from rollout.auth import TOKEN_VARIABLE
from rollout.settings import WorkerConfig, worker_gpus
from rollout.worker import Worker, serve_line, worker_command, worker_environment
from timepro.system import device
from timepro.system.processes import group_alive, log_tail

TOKEN = "s3cret-token"


@pytest.fixture(params=[False, True], ids=["cpu", "gpu"])
def gpu(request, monkeypatch):
    monkeypatch.setattr(device, "on_gpu", lambda: request.param)
    return request.param


def option(command, name):
    assert command.count(name) == 1
    return command[command.index(name) + 1]


def test_the_command_listens_on_loopback_checks_tokens_and_holds_none(gpu, tiny_checkpoint, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    command = worker_command(WorkerConfig(), tiny_checkpoint, 4321)
    assert (option(command, "--host"), option(command, "--port")) == ("127.0.0.1", "4321")
    middleware = [command[i + 1] for i, word in enumerate(command) if word == "--middleware"]
    assert middleware[-1] == "rollout.auth.RequireToken"  # the last one is the outer one: nothing gets past it
    assert "--allowed-local-media-path" not in command  # our connector has the folders, several of them
    assert not any(TOKEN in part for part in command)
    assert "--api-key" not in command
    assert all(isinstance(part, str) for part in command)


def test_the_command_scores_what_was_sampled(gpu, tiny_checkpoint):
    command = worker_command(WorkerConfig(), tiny_checkpoint, 4321)
    assert option(command, "--logprobs-mode") == "processed_logprobs"
    assert option(command, "--generation-config") == "vllm"  # else the checkpoint's own sampling defaults apply
    assert json.loads(option(command, "--hf-overrides")) == {"architectures": ["TimeProQwen2_5OmniModel"]}
    assert json.loads(option(command, "--limit-mm-per-prompt"))["audio"] == 1
    two = worker_command(WorkerConfig(clips_per_prompt=2), tiny_checkpoint, 4321)
    assert json.loads(option(two, "--limit-mm-per-prompt"))["audio"] == 2


def test_the_line_that_serves_a_checkpoint_is_vllms_own_command(gpu, tmp_path):
    """It is run as printed in tests/e2e/test_one_answer_everywhere.py."""
    words = shlex.split(serve_line(WorkerConfig(max_model_len=4096), tmp_path / "my run" / "checkpoint"))
    assert ("TORCHDYNAMO_DISABLE=1" in words) is not gpu
    program = next(i for i, word in enumerate(words) if "=" not in word)
    assert Path(words[program]).name == "vllm"
    assert words[program + 1 : program + 3] == ["serve", str(tmp_path / "my run" / "checkpoint")]
    assert (option(words, "--max-model-len"), option(words, "--generation-config")) == ("4096", "vllm")
    assert option(words, "--dtype") == ("bfloat16" if gpu else "float32")  # as the workers: vLLM would halve float32


def test_a_worker_reads_audio_as_the_learner_does_and_warns_of_no_other_decoder(gpu, tiny_checkpoint, tmp_path, caplog):
    import soundfile
    from vllm.logger import init_logger
    from vllm.multimodal.media.audio import AudioMediaIO

    from timepro.data.audio import read_audio

    given = json.loads(option(worker_command(WorkerConfig(), tiny_checkpoint, 4321), "--media-io-kwargs"))["audio"]
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 16000), 16000)
    init_logger("vllm.multimodal.media.audio").addHandler(caplog.handler)
    samples, rate = AudioMediaIO(**given).load_file(path)
    assert rate == 16000 and np.array_equal(samples, read_audio(path))
    # What other parts of vLLM say when they are first imported is not about audio.
    assert not [record for record in caplog.records if record.name.startswith("vllm.multimodal")]


def test_the_command_fits_the_device(gpu, tiny_checkpoint):
    config = WorkerConfig(kv_cache_mib=64, gpu_memory_fraction=0.5)
    command = worker_command(config, tiny_checkpoint, 4321)
    assert option(command, "--dtype") == ("bfloat16" if gpu else "float32")
    if gpu:
        assert option(command, "--gpu-memory-utilization") == "0.5"
        assert "--kv-cache-memory-bytes" not in command
    else:
        assert option(command, "--kv-cache-memory-bytes") == str(64 * 2**20)
        assert option(command, "--distributed-executor-backend").endswith(".UniProcExecutor")  # a GPU's default
        assert "--gpu-memory-utilization" not in command
    fixed = worker_command(WorkerConfig(dtype="float16"), tiny_checkpoint, 4321)
    assert option(fixed, "--dtype") == "float16"


def test_compiling_is_asked_for(gpu, tiny_checkpoint):
    eager, compiled = (worker_command(WorkerConfig(compile=c), tiny_checkpoint, 1) for c in (False, True))
    assert "--enforce-eager" in eager
    assert "--enforce-eager" not in compiled


def test_a_folder_that_is_no_checkpoint_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(ValueError, match="is not a checkpoint folder"):
        worker_command(WorkerConfig(), tmp_path, 4321)


def test_the_token_travels_in_the_environment(gpu):
    environment = worker_environment(WorkerConfig(gpus="2,3", tensor_parallel=2), TOKEN)
    assert environment[TOKEN_VARIABLE] == TOKEN
    assert [name for name, value in environment.items() if TOKEN in value] == [TOKEN_VARIABLE]
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment.items() >= device.HUGE_PAGES.items()
    if gpu:
        assert environment["CUDA_VISIBLE_DEVICES"] == "2,3"
    else:
        assert environment["GLOO_SOCKET_IFNAME"] == "lo"


@pytest.mark.parametrize(
    ("gpus", "workers", "parallel", "expected"),
    [
        ("4,5,6,7", 4, 1, ["4", "5", "6", "7"]),
        ("4,5,6,7", 2, 2, ["4,5", "6,7"]),
        ("0", 2, 1, ["0", "0"]),  # one card for all
        (" 2, 3 ", 1, 2, ["2,3"]),
    ],
)
def test_workers_share_out_their_cards(gpus, workers, parallel, expected):
    config = WorkerConfig(gpus=gpus, workers=workers, tensor_parallel=parallel)
    assert [worker_gpus(config, index) for index in range(workers)] == expected


def test_cards_that_cannot_be_shared_out_are_refused():
    with pytest.raises(ValueError, match="names 3 cards, but 2 workers of tensor_parallel=2 need 4, or 2 to share"):
        worker_gpus(WorkerConfig(gpus="0,1,2", workers=2, tensor_parallel=2), 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_gloo_uses_loopback_for_loopback_addresses(monkeypatch, host):
    monkeypatch.setattr(device, "on_gpu", lambda: False)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    assert worker_environment(WorkerConfig(host=host), TOKEN)["GLOO_SOCKET_IFNAME"] == "lo"


def test_gloo_uses_the_users_interface_elsewhere(monkeypatch):
    monkeypatch.setattr(device, "on_gpu", lambda: False)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    assert worker_environment(WorkerConfig(host="10.0.0.5"), TOKEN)["GLOO_SOCKET_IFNAME"] == "eth7"
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    assert "GLOO_SOCKET_IFNAME" not in worker_environment(WorkerConfig(host="10.0.0.5"), TOKEN)


def python(program):
    return [sys.executable, "-S", "-c", program]


# The leader starts a child that ignores SIGTERM, then says so in the log.
STUBBORN = """
import subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(99)"
subprocess.Popen([sys.executable, "-S", "-c", child])
time.sleep(99)
"""


@pytest.fixture
def start(tmp_path):
    workers = []

    def _start(program):
        environment = worker_environment(WorkerConfig(), TOKEN)
        url = "http://127.0.0.1:9"  # the discard port: nothing answers
        workers.append(Worker(3, python(program), environment, url, tmp_path / "logs" / "worker.log"))
        return workers[-1]

    yield _start
    for worker in workers:
        worker.end(grace_s=0.1)


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_ending_a_worker_ends_its_children_too(start):
    worker = start(STUBBORN)
    wait_for(lambda: "ready" in worker.log.read_text())
    assert group_alive(worker.process.pid)
    assert TOKEN not in Path(f"/proc/{worker.process.pid}/cmdline").read_text()
    worker.end(grace_s=0.3)
    assert not group_alive(worker.process.pid)
    worker.end(grace_s=0.3)


def test_a_group_lives_while_any_member_does():
    program = "import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', 'input()'], stdin=sys.stdin)"
    leader = subprocess.Popen(python(program), start_new_session=True, stdin=subprocess.PIPE)
    leader.wait(timeout=20)
    assert group_alive(leader.pid)  # the orphaned child, whose leader is gone
    leader.stdin.close()
    wait_for(lambda: not group_alive(leader.pid))


def test_an_unwaited_dead_process_does_not_count_as_alive():
    dead = subprocess.Popen(python("pass"), start_new_session=True)
    wait_for(lambda: Path(f"/proc/{dead.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z")
    assert not group_alive(dead.pid)
    dead.wait()


def test_a_worker_that_ended_before_it_was_ready_shows_its_log(start):
    worker = start("print('out of memory'); raise SystemExit(3)")
    with pytest.raises(RuntimeError, match=r"worker 3 ended with exit code 3 before it was ready(.|\n)*out of memory"):
        worker.wait_ready(20)


def test_a_server_that_is_no_worker_of_a_run_is_called_by_its_title(tmp_path):
    server = Worker(
        "0",
        python("raise SystemExit(3)"),
        worker_environment(WorkerConfig(), TOKEN),
        "http://127.0.0.1:9",
        tmp_path / "log",
        "the server",
    )
    with pytest.raises(RuntimeError, match=r"^the server ended with exit code 3"):
        server.wait_ready(20)
    server = Worker(
        "0",
        python("import time; time.sleep(99)"),
        worker_environment(WorkerConfig(), TOKEN),
        "http://127.0.0.1:9",
        tmp_path / "log",
        "it",
    )
    try:
        with pytest.raises(RuntimeError, match=r"^it was not ready within 0 s"):  # no key of a run's settings
            server.wait_ready(0.1)
    finally:
        server.end()


def test_a_worker_that_never_answers_is_given_up_at_the_deadline(start):
    worker = start("import time; time.sleep(99)")
    with pytest.raises(RuntimeError, match=r"not ready within rollout\.start_timeout_s=1 s"):
        worker.wait_ready(1.0)


def test_the_end_of_a_log(tmp_path):
    assert log_tail(tmp_path / "none") == "(no log)"
    (tmp_path / "log").write_bytes(b"\n".join(b"line %d" % i for i in range(50)) + b"\n\xff")
    assert log_tail(tmp_path / "log", 3) == "line 48\nline 49\n\ufffd"


SERVER = """
import signal, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

hangs = False

def hang(number, frame):
    global hangs
    hangs = True

signal.signal(signal.SIGUSR1, hang)

class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/health":  # the engine's to answer
            time.sleep(99 if hangs else 0)
        allowed = self.path == "/health" or self.headers["Authorization"] == "Bearer TOKEN"
        self.send_response(200 if allowed else 401)
        self.end_headers()

    def log_message(self, *arguments):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Server).serve_forever()
""".replace("TOKEN", TOKEN)


@pytest.fixture
def server(tmp_path):
    """A worker whose process is a stand-in that knows two routes: the server's health and the engine's state."""
    from timepro.system.network import free_port

    port = free_port("127.0.0.1")
    command = [sys.executable, "-c", SERVER, str(port)]
    worker = Worker(0, command, {TOKEN_VARIABLE: TOKEN}, f"http://127.0.0.1:{port}", tmp_path / "worker.log")
    worker.wait_ready(30)
    yield worker
    worker.end()


LIMITS = {"start_timeout_s": 30.0, "silence_timeout_s": 0.5}


def test_a_worker_that_ended_or_fell_silent_is_complained_of_and_started_again_with_a_stand_in(server):
    assert server.engine_answers(5.0) and not server.complaint(**LIMITS)
    first = server.process.pid
    server.process.kill()
    server.process.wait()
    assert server.complaint(**LIMITS) == "ended (exit code -9)"
    server.restart()
    assert server.process.pid != first and server.restarts == 1
    assert not server.complaint(**LIMITS)  # starting is no silence
    server.wait_ready(30)
    server.process.send_signal(signal.SIGSTOP)
    time.sleep(0.6)
    assert not server.complaint(**LIMITS)  # nobody has asked it
    assert not server.engine_answers(0.6)
    assert "has not answered for 1 s (rollout.silence_timeout_s=0.5)" in server.complaint(**LIMITS)
    server.restart()
    server.wait_ready(30)
    assert server.restarts == 2 and not server.complaint(**LIMITS)


def test_an_engine_that_hangs_behind_a_healthy_server_is_complained_of_with_a_stand_in(server):
    assert server.engine_answers(5.0)
    server.process.send_signal(signal.SIGUSR1)
    assert not server.engine_answers(0.6)
    assert server.answers()
    assert "has not answered for" in server.complaint(**LIMITS)


def test_a_worker_that_takes_in_weights_gives_signs_of_life_instead(server, monkeypatch):
    server.process.send_signal(signal.SIGUSR1)
    monkeypatch.setenv(FILE_VARIABLE, str(server.log.with_suffix(".alive")))
    with signs_of_life(60.0):  # as the process would that takes them in
        assert not server.engine_answers(0.6)
        assert not server.complaint(**LIMITS)
    time.sleep(0.6)
    assert "has not answered for" in server.complaint(**LIMITS)


def test_a_worker_that_never_gets_ready_is_complained_of(tmp_path):
    worker = Worker(
        0,
        [sys.executable, "-c", "import time; time.sleep(60)"],
        {TOKEN_VARIABLE: TOKEN},
        "http://127.0.0.1:9",
        tmp_path / "log",
    )
    try:
        assert not worker.complaint(5.0, 0.1)
        worker.started -= 6.0
        assert "was not ready within rollout.start_timeout_s=5 s" in worker.complaint(5.0, 0.1)
    finally:
        worker.end()


def test_a_worker_can_be_profiled_only_where_a_run_asks_for_it(tiny_checkpoint, tmp_path, monkeypatch) -> None:
    from vllm.config import ProfilerConfig

    monkeypatch.chdir(tmp_path)
    assert "--profiler-config" not in worker_command(WorkerConfig(), tiny_checkpoint, 4321)
    command = worker_command(WorkerConfig(), tiny_checkpoint, 4321, profile=Path("profile/worker-0"))
    given = json.loads(option(command, "--profiler-config"))
    assert given["torch_profiler_dir"] == str(tmp_path / "profile" / "worker-0")
    found = ProfilerConfig(**given)  # vLLM's own, which refuses what it does not know
    assert found.profiler == "torch" and not found.should_profile_frontend
