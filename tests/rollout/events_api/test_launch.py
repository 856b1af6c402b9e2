"""How `timepro serve` starts its server: the command line, the token, what it refuses before a model is loaded."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from rollout.auth import TOKEN_VARIABLE
from rollout.events_api.launch import (
    OWN_TOKEN_VARIABLE,
    read_token,
    server_command,
    server_config,
    server_environment,
)
from rollout.events_api.settings import SETTINGS_VARIABLE, ServeSettings, own_address
from rollout.media import MEDIA_VARIABLE
from timepro.cli import main
from timepro.system.network import listening_socket

SECRET = "a-secret-of-some-length"


def test_the_server_has_the_guard_outermost_and_no_route_that_takes_weights(tiny_checkpoint: Path) -> None:
    settings = ServeSettings(checkpoint=str(tiny_checkpoint), port=4321)
    config = server_config(tiny_checkpoint, 1)
    command = server_command(config, settings, ["--seed", "1"])
    middleware = [command[i + 1] for i, word in enumerate(command) if word == "--middleware"]
    assert middleware == ["rollout.events_api.mount.EventsRoutes", "rollout.events_api.guard.Guard"]
    assert not any("weight" in word for word in command) and command[-2:] == ["--seed", "1"]
    names = command[command.index("--served-model-name") + 1 :][:2]
    assert names == [tiny_checkpoint.name, "policy"]
    environment = server_environment(config, settings, SECRET)
    assert "VLLM_SERVER_DEV_MODE" not in environment and json.loads(environment[MEDIA_VARIABLE]) == []
    assert environment[TOKEN_VARIABLE] == SECRET and not any(SECRET in word for word in command)
    assert ServeSettings.from_json(environment[SETTINGS_VARIABLE]) == settings
    assert SECRET not in environment[SETTINGS_VARIABLE]


def test_there_is_room_for_the_longest_clip_of_the_encoder(tiny_checkpoint: Path) -> None:
    config = server_config(tiny_checkpoint, 1)
    assert config.max_model_len >= 30 * 25 + 512 + 256 and config.max_batched_tokens >= config.max_model_len


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("10.0.0.5", "http://10.0.0.5:80"),
    ],
)
def test_it_reaches_itself(host: str, address: str) -> None:
    assert own_address(ServeSettings(checkpoint="", host=host, port=80)) == address


def test_a_missing_token_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    token, told = read_token(file, "0.0.0.0")
    assert len(token) >= 32 and str(file) in told and token not in told
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_token(file, "0.0.0.0") == (token, "")


@pytest.mark.parametrize("text", ["", "short", "two words of some length", "\xe4" * 20])
def test_tokens_that_are_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
    with pytest.raises(ValueError, match="token"):
        read_token(file, "127.0.0.1")


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(SECRET, encoding="utf-8")
    file.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        read_token(file, "127.0.0.1")


def test_beyond_this_machine_a_token_is_a_must(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OWN_TOKEN_VARIABLE, raising=False)
    assert read_token(None, "127.0.0.1") == ("", "")
    with pytest.raises(ValueError, match="--token-file"):
        read_token(None, "0.0.0.0")
    monkeypatch.setenv(OWN_TOKEN_VARIABLE, SECRET)
    assert read_token(None, "0.0.0.0") == (SECRET, "")


def test_what_the_user_can_put_right_is_said_at_once(tiny_checkpoint: Path, tmp_path: Path, capsys) -> None:
    with listening_socket("127.0.0.1") as taken:
        port = str(taken.getsockname()[1])
        for words, said in (
            ([str(tmp_path)], "config.json"),
            ([str(tiny_checkpoint), "--host", "0.0.0.0"], "--token-file"),
            ([str(tiny_checkpoint), "--port", port], "give --port another one"),
        ):
            assert main(["serve", *words]) == 2
            assert said in capsys.readouterr().err
