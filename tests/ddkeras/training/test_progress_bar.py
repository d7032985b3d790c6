"""The progress bar in terminals of different widths."""

import fcntl
import os
import re
import struct
import termios

import pytest
from monitoring import HEADS, go_through, go_through_epochs, status, train_until

from ddkeras.training import progress_bar
from ddkeras.training.monitor import TrainingMonitor


def drawn(folder, clock, monkeypatch, *, columns, epochs=2, steps=10):
    """What a terminal of that width shows in the first epoch, split at carriage returns and newlines."""
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with open(its, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(progress_bar.sys, "stderr", terminal)
        with TrainingMonitor(folder, epochs=epochs, steps=steps, batch_size=8, verbose=1) as monitor:
            monitor.begin_epoch(0)
            go_through(monitor, clock, steps=1, seconds=60)
            go_through(monitor, clock, steps=1, seconds=0.5, first=1)
            go_through(monitor, clock, steps=1, seconds=4, first=steps - 1)
            monitor.end_epoch({"loss": 0.5})
        output = os.read(ours, 65536).decode()
    os.close(ours)
    return re.split(r"[\r\n]+", output)


def test_the_bar_is_redrawn_in_place_and_cleared_for_the_epoch_line(tmp_path, clock, monkeypatch):
    heads = "authenticity 0.693 51.2%  category 1.10 34.5%"
    lines = drawn(tmp_path, clock, monkeypatch, columns=120)
    assert [line.rstrip() for line in lines] == [
        "compiling the network: the first step takes longer",
        "epoch 1/2 ------------------------------  0/10  - images/s  -:--",
        f"epoch 1/2 ###---------------------------  1/10  - images/s  -:--  {heads}",
        f"epoch 1/2 ######------------------------  2/10  16 images/s  0:04  {heads}",
        f"epoch 1/2 ############################## 10/10  validating  {heads}",
        "",
        "                           training",
        "epoch      time  images/s     loss",
        "  1/2      1:04       3.6    0.500",
        "",
    ]


@pytest.mark.parametrize("columns", [20, 60, 80, 120, 240])
def test_the_bar_never_wraps(tmp_path, clock, monkeypatch, columns):
    _, *bars, _, _, _, _ = drawn(tmp_path, clock, monkeypatch, columns=columns, epochs=100, steps=12345)
    assert [len(bar) for bar in bars] == [columns - 1] * 5  # the last is blank, for the line that stays


def test_on_80_columns_the_bar_has_both_heads(tmp_path, clock, monkeypatch):
    lines = drawn(tmp_path, clock, monkeypatch, columns=80, epochs=12, steps=105)
    assert lines[3] == "1/12 -------   2/105  16/s  0:52  authenticity 0.693 51.2%  category 1.10 34.5%"


def test_the_bar_of_an_interrupted_training_stays(tmp_path, clock, capsys):
    with pytest.raises(KeyboardInterrupt):
        train_until(tmp_path, clock, KeyboardInterrupt(), verbose=1)
    assert capsys.readouterr().err.endswith(
        "\r2/3 ####-----  4/10  8.0/s  0:06  authenticity 0.693 51.2%  category 1.10 34.5%\n"
    )


def test_a_closed_terminal_does_not_end_the_training(tmp_path, clock, monkeypatch):
    class Gone:
        def write(self, *_):
            raise OSError(5, "Input/output error")

        flush = fileno = write

    with monkeypatch.context() as patch:
        patch.setattr(progress_bar.sys, "stderr", Gone())
        with TrainingMonitor(tmp_path, epochs=1, steps=10, batch_size=8, verbose=1) as monitor:
            go_through_epochs(monitor, clock, [HEADS])
    assert status(tmp_path)["state"] == "finished"
