"""Monitoring: what is shown, and the files in the run folder."""

import json
import os
import re
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from monitoring import HEADS, go_through, go_through_epochs, log, status, train_until

from ddkeras.training import monitor as monitor_module
from ddkeras.training.monitor import TrainingMonitor


def test_logs_are_read_twice_a_second_and_after_the_last_step(tmp_path, clock):
    asked = []
    with TrainingMonitor(tmp_path, epochs=1, steps=103, batch_size=8, verbose=0) as monitor:
        monitor.begin_epoch(0)
        returned = go_through(
            monitor, clock, steps=103, seconds=0.0625, read=lambda: asked.append(1) or {"loss": 0.5}
        )
    assert len(asked) == 13  # 6.4 seconds
    assert [step for step, logs in enumerate(returned, 1) if logs][-3:] == [88, 96, 103]
    assert returned[102] == {"loss": 0.5}


def test_the_history_has_a_row_per_epoch(tmp_path, clock):
    with TrainingMonitor(tmp_path, epochs=2, steps=10, batch_size=8, verbose=0) as monitor:
        go_through_epochs(monitor, clock, [{"loss": np.float64(2), "val_loss": 3}, {"loss": tf.constant(1.5)}])
    assert (tmp_path / "history.csv").read_text() == "epoch,loss,val_loss\n1,2.0,3.0\n2,1.5,\n"
    assert monitor.history == [{"epoch": 1, "loss": 2.0, "val_loss": 3.0}, {"epoch": 2, "loss": 1.5}]


def test_a_resumed_training_continues_the_history_without_duplicate_rows(tmp_path, clock):
    with TrainingMonitor(tmp_path, epochs=3, steps=10, batch_size=8, verbose=0) as monitor:
        go_through_epochs(monitor, clock, [{"loss": 3}, {"loss": 2}])
    rows = pd.read_csv(tmp_path / "history.csv").to_dict("records")
    with TrainingMonitor(tmp_path, epochs=3, steps=10, batch_size=8, verbose=0, history=rows) as monitor:
        assert status(tmp_path)["epoch"] == 3
        go_through_epochs(monitor, clock, [{"loss": 1.75}, {"loss": 1}], first=1)
    assert pd.read_csv(tmp_path / "history.csv").to_dict("list") == {"epoch": [1, 2, 3], "loss": [3, 1.75, 1]}
    assert "started: 3 epochs, 2 of them done, each 10 steps of 8 images" in log(tmp_path)


def test_the_log_has_events_and_where_the_time_went(tmp_path, clock):
    with TrainingMonitor(tmp_path, epochs=12, steps=10, batch_size=8, verbose=0) as monitor:
        monitor.note("augment", 0.1)
        monitor.log("weights are from scratch")
        go_through_epochs(monitor, clock, [{**HEADS, "learning_rate": 3e-4, "val_loss": 12.5}])
        monitor.begin_epoch(1, 4)
        go_through(monitor, clock, steps=6, seconds=700, first=4)
        monitor.end_epoch({"loss": 123.4})
    assert [re.sub(r"memory \d+\.\d\d GiB$", "memory", line) for line in log(tmp_path)] == [
        "started: 12 epochs, each 10 steps of 8 images",
        "weights are from scratch",
        "epoch 1/12  0:15  8.0 images/s  loss 1.79  authenticity 0.693 51.2%  category 1.10 34.5%  "
        "learning_rate 0.000300  validation: loss 12.5  time: step 100% (augment 10%); validation 5.0 s; memory",
        "epoch 2/12 resumed after step 4/10",
        "epoch 2/12  1:10:00  0.0 images/s  loss 123  time: step 100% (augment 0%); validation 0.0 s; memory",
        "finished after 1:10:15, in epoch 2/12 at step 10/10",
    ]
    begun = datetime.fromisoformat((tmp_path / "log.txt").read_text().split()[0])
    assert abs(datetime.now().astimezone() - begun).total_seconds() < 60


def test_the_status_has_the_state_of_the_training(tmp_path, clock):
    with TrainingMonitor(tmp_path, epochs=3, steps=10, batch_size=8, verbose=0) as monitor:
        begun = status(tmp_path)
        assert (begun["state"], begun["step"], begun["images_per_second"], begun["eta_seconds"]) == (
            "training",
            0,
            None,
            None,
        )
        go_through_epochs(monitor, clock, [{"loss": 2}])
        monitor.begin_epoch(1)
        go_through(monitor, clock, steps=5, seconds=2, read=lambda: {"loss": 1.5})
        found = status(tmp_path)
        assert datetime.fromisoformat(found.pop("updated")).tzinfo is not None
        assert found == {
            "state": "training",
            "epoch": 2,
            "epochs": 3,
            "step": 5,
            "steps": 10,
            "images_per_second": 4.0,
            "eta_seconds": 40.0,  # 15 steps of 2 seconds, and two validations of 5
            "seconds": 25.0,
            "logs": {"loss": 1.5},
            "process": os.getpid(),
        }
        go_through(monitor, clock, steps=5, seconds=2, first=5)
        assert status(tmp_path)["state"] == "validating"
        clock.advance(5)
        monitor.end_epoch({"val_loss": 4})
        after = status(tmp_path)
        assert (after["state"], after["eta_seconds"], after["logs"]) == ("training", 25.0, {"val_loss": 4.0})
    assert (status(tmp_path)["state"], status(tmp_path)["eta_seconds"]) == ("finished", 0.0)


def test_the_status_is_written_once_a_second_at_most(tmp_path, clock):
    seen = []

    def read():
        seen.append(status(tmp_path)["step"])
        return {"loss": 1}

    with TrainingMonitor(tmp_path, epochs=1, steps=50, batch_size=8, verbose=0) as monitor:
        monitor.begin_epoch(0)
        go_through(monitor, clock, steps=20, seconds=0.25, read=read)
    assert seen == [0, 0, 4, 4, 8, 8, 12, 12, 16, 16]


@pytest.mark.parametrize(
    ("error", "state", "line"),
    [
        (KeyboardInterrupt("stop"), "interrupted", None),
        (type("Told", (KeyboardInterrupt,), {})(), "interrupted", None),
        (ValueError("first\n  second"), "failed", "ValueError: first second"),
        (MemoryError(), "failed", "MemoryError"),
        (SystemExit(3), "failed", "SystemExit: 3"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_a_premature_end_is_reported(tmp_path, clock, error, state, line):
    with pytest.raises(type(error)) as raised:
        train_until(tmp_path, clock, error)
    assert raised.value is error
    found = status(tmp_path)
    assert (found["state"], found["epoch"], found["step"], found["eta_seconds"]) == (state, 2, 4, None)
    assert found.get("error") == line
    assert log(tmp_path)[-1] == f"{state} after 0:04, in epoch 2/3 at step 4/10" + (f": {line}" if line else "")


def test_nan_and_infinity_are_null(tmp_path, clock):
    with TrainingMonitor(tmp_path, epochs=1, steps=10, batch_size=8, verbose=0) as monitor:
        go_through_epochs(monitor, clock, [{"loss": float("nan"), "val_loss": float("inf")}])
    text = (tmp_path / "status.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["logs"] == {"loss": None, "val_loss": None}


def full(*_, **__):
    raise OSError(28, "No space left on device")


def test_a_full_disk_does_not_hide_the_error(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(monitor_module.atomic, "file", full)
    monkeypatch.setattr(monitor_module, "open", full, raising=False)
    with pytest.raises(ValueError, match="of the training"):
        train_until(tmp_path, clock, ValueError("of the training"))


def test_a_full_disk_is_an_error_only_for_the_history(tmp_path, clock, monkeypatch):
    with TrainingMonitor(tmp_path, epochs=1, steps=10, batch_size=8, verbose=0) as monitor:
        monkeypatch.setattr(monitor_module.atomic, "file", full)
        monkeypatch.setattr(monitor_module, "open", full, raising=False)
        monitor.begin_epoch(0)
        assert go_through(monitor, clock, steps=10, seconds=1)[-1] == HEADS
        with pytest.raises(OSError, match="No space left"):
            monitor.end_epoch({"loss": 1})


def test_a_worker_that_is_not_the_chief_writes_and_shows_nothing(tmp_path, clock, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with TrainingMonitor(None, epochs=1, steps=10, batch_size=8) as monitor:
        monitor.log("unheard")
        monitor.images("unseen", np.zeros((1, 4, 4, 3)))
        go_through_epochs(monitor, clock, [{"loss": 1.0}])
    assert monitor.history == [{"epoch": 1, "loss": 1.0}]
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_verbose_2_prints_a_header_and_a_line_per_epoch(tmp_path, clock, capsys):
    with TrainingMonitor(tmp_path, epochs=2, steps=10, batch_size=8, verbose=2) as monitor:
        go_through_epochs(monitor, clock, [HEADS, {"loss": 0.00041, "val_loss": 0.5}])
    assert capsys.readouterr().err.splitlines() == [
        "compiling the network: the first step takes longer",
        "                           training",
        "epoch      time  images/s     loss  authenticity  category",
        "  1/2      0:15       8.0     1.79         51.2%     34.5%",
        "  2/2      0:15       8.0  4.1e-04             -         -",
    ]


def test_verbose_0_is_silent(tmp_path, clock, capfd):
    with TrainingMonitor(tmp_path, epochs=1, steps=10, batch_size=8, verbose=0) as monitor:
        go_through_epochs(monitor, clock, [HEADS])
    assert capfd.readouterr() == ("", "")
