"""Running a sweep here: one process a trial, several at a time, even if some of them fail."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from timepro.progress import clock
from timepro.sweeps import Sweep, Trial
from timepro.system import guard
from timepro.system.processes import log_tail
from trainer.launcher.console import console
from trainer.launcher.ranks import end_ranks
from trainer.launcher.runfolder import is_finished
from trainer.launcher.trials import trial_command, trial_folder

_STOP_S = 120.0  # from a signal to a trial's saved checkpoint


@dataclass
class Running:
    """A trial's process."""

    folder: Path
    process: subprocess.Popen[bytes]
    log: Path
    started: float


def run_sweep(
    sweep: Sweep, trials: Sequence[Trial], runs: Path, slots: int, extra: Sequence[str], poll_s: float = 0.5
) -> dict[str, str]:
    """Run all trials that are not finished, `slots` at a time.

    Args:
        extra: `key=value` arguments that every trial gets.

    Returns:
        the trials that failed, by name, each with why. A failure does not stop the others.

    Raises:
        Interrupted: a signal came; the trials have saved their checkpoints, and the same call goes on from there.
    """
    from trainer.launcher.signals import signals_raise

    waiting = [trial for trial in trials if not is_finished(trial_folder(runs, sweep, trial, extra))]
    if len(waiting) < len(trials):
        console.print(f"{len(trials) - len(waiting)} of {len(trials)} trials are finished already")
    running: list[Running] = []
    failed: dict[str, str] = {}
    done, began = 0, time.monotonic()
    with signals_raise():
        try:
            while waiting or running:
                while waiting and len(running) < slots:
                    running.append(_start(sweep, waiting.pop(0), runs, extra))
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    guard.release(one.process.pid)
                    done += 1
                    why = _outcome(one)
                    if why:
                        failed[one.folder.name] = why
                    left = len(waiting) + len(running)
                    eta = (time.monotonic() - began) / done * left
                    console.print(
                        f"[bold]{one.folder.name}[/]  {'FAILED' if why else 'done'} in "
                        f"{clock(time.monotonic() - one.started)}; {left} left"
                        + (f", ETA {clock(eta)}" if left else "")
                    )
                time.sleep(poll_s)
        finally:
            end_ranks([one.process for one in running], signal.SIGINT, _STOP_S)
    return failed


def _start(sweep: Sweep, trial: Trial, runs: Path, extra: Sequence[str]) -> Running:
    folder = trial_folder(runs, sweep, trial, extra)
    log = runs / sweep.name / "logs" / f"{folder.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = trial_command(sweep, trial, runs, extra)
    resumed = any(folder.glob("checkpoints/step-*/state.json"))
    console.print(f"[bold]{folder.name}[/]  {'resumed' if resumed else 'started'}; its output: {log}")
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [*command, "--resume"] if resumed else command,
            stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    guard.protect(process.pid)
    return Running(folder, process, log, time.monotonic())


def _outcome(one: Running) -> str:
    """Why a trial that has ended counts as failed; empty where it does not."""
    code, folder = one.process.returncode, one.folder
    if code == 0 and is_finished(folder):
        return ""
    if code == 0:
        return f"it ended without a result in {folder}; does the sweep's command say --sweep {folder.parent.name}?"
    said = [line for line in log_tail(one.log, 40).splitlines() if line.startswith("timepro: ")]
    return f"exit code {code}: " + (said[-1].removeprefix("timepro: ") if said else f"see {one.log}")
