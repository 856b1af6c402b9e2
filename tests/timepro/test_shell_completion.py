"""What a shell offers, asked of bash itself with the script that `timepro completion` prints."""

from __future__ import annotations

import io
import shlex
import shutil
import subprocess
from contextlib import redirect_stdout

import pytest

from timepro.cli import COMMANDS, main

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
NAMES = {name for name, _, _ in COMMANDS}


@pytest.fixture(scope="module")
def script() -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        assert main(["completion", "bash"]) == 0
    return out.getvalue()


def offered(script: str, *words: str) -> set[str]:
    line = " ".join(shlex.quote(word) for word in ("timepro", *words))
    code = f'{script}\nCOMP_WORDS=({line})\nCOMP_CWORD={len(words)}\n_timepro\nprintf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert not done.stderr
    return set(done.stdout.split())


def test_bash_offers_what_the_parsers_take(script: str) -> None:
    assert offered(script, "") == NAMES
    assert offered(script, "tr") == {"train"}
    assert offered(script, "--v") == {"--version"}
    assert "sed_grpo" in offered(script, "train", "sed_")
    assert offered(script, "train", "sed_grpo", "--res") == {"--resume"}
    assert offered(script, "sweep", "sed_grpo_s") == {"sed_grpo_seeds"}
    assert offered(script, "runs", "--format", "") == {"text", "markdown", "latex"}
    assert {"table", "show", "desed"} <= offered(script, "data", "")
    assert offered(script, "data", "table", "--unl") == {"--unlisted"}
    assert offered(script, "data", "show", "--unl") == set()
    assert offered(script, "report", "x") == set()  # the shell's own: files


def test_zsh_gets_the_same_behind_its_reader_of_bash_completions(script: str, capsys) -> None:
    assert main(["completion", "zsh"]) == 0
    first, second, rest = capsys.readouterr().out.split("\n", 2)
    assert first.endswith("compinit") and second.endswith("bashcompinit") and rest == script
