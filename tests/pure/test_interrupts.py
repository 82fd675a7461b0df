"""Ctrl-C at any moment of a command: one line or none, an exit code that says so, and never a traceback."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rowfs.cli import main, signals

COMMAND = str(Path(sys.executable).parent / "rowfs")  # as installed
STEPS, DEADLINE_S = 15, 120.0


@pytest.mark.parametrize("words", [["--help"], ["check", "/nonexistent"]])
def test_an_interrupt_at_any_moment_of_the_start_shows_no_traceback(words: list[str]) -> None:
    begun = time.monotonic()
    subprocess.run([COMMAND, *words], capture_output=True, check=False)
    whole_s, ended, steps = time.monotonic() - begun, set[int](), itertools.count()
    for step in steps:
        if step >= STEPS and (main.INTERRUPTED in ended or time.monotonic() - begun > DEADLINE_S):
            break  # on a busy machine no two of these take the same time
        process = subprocess.Popen([COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(whole_s * (step % STEPS) / STEPS)  # not for anything to happen: it is the moment that is looked at
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
        ended.add(process.returncode)
        assert process.returncode in (-signal.SIGINT, main.INTERRUPTED, main.DONE, main.FAILED, main.WRONG_USAGE)
        assert said.strip() == "rowfs: interrupted" if process.returncode == main.INTERRUPTED else len(said) < 200, said
    assert main.INTERRUPTED in ended


def test_an_ignored_interrupt_stays_ignored() -> None:
    done = subprocess.run(
        ["sh", "-c", f"trap '' INT; {COMMAND} --version & kill -INT $!; wait $!"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("rowfs ")


def test_an_interrupt_that_is_kept_back_comes_afterwards() -> None:
    begun = []
    with pytest.raises(KeyboardInterrupt), signals.uninterrupted():
        signal.raise_signal(signal.SIGINT)  # to this thread: another one would take it
        begun.append("the rest of the block")
    assert begun
    with signals.uninterrupted(), pytest.raises(KeyboardInterrupt), signals.interruptible():
        signal.raise_signal(signal.SIGINT)
        time.sleep(1)


def test_an_interrupt_that_fell_into_a_destructor_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Owner:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = signal.getsignal(signal.SIGALRM)
    signals.keep_interrupts()
    try:
        with pytest.raises(KeyboardInterrupt):
            Owner()
            time.sleep(1)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_what_came_of_an_interrupt_is_one() -> None:
    try:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as interrupt:
            raise RuntimeError("Error calling __set_name__") from interrupt
    except RuntimeError as error:
        assert signals.is_interrupt(error)
    assert not signals.is_interrupt(RuntimeError())
