"""Watching a training: what is shown, and what the run folder holds of it."""

import fcntl
import json
import os
import re
import struct
import termios
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from ddkeras.training import monitor, throughput
from ddkeras.training.monitor import TrainingMonitor

HEADS = {
    "loss": 1.7917,
    "authenticity_loss": 0.6931,
    "authenticity_accuracy": 0.512,
    "category_loss": 1.0986,
    "category_accuracy": 0.345,
}


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (monitor, throughput):
        monkeypatch.setattr(module, "monotonic", clock)
    return clock


def go_through(watch, clock, *, steps, seconds, read=lambda: HEADS, first=0):
    """So many steps of 8 images each, that take so long each; what the watch gave back for them."""
    returned = []
    for step in range(first, first + steps):
        clock.advance(seconds)
        returned.append(watch.after_step(step + 1, 8, read))
    return returned


def go_through_epochs(watch, clock, logs, *, first=0):
    """An epoch of ten steps, each a second long, for each of `logs`."""
    for epoch, numbers in enumerate(logs, first):
        watch.begin_epoch(epoch)
        go_through(watch, clock, steps=10, seconds=1)
        clock.advance(5)  # validation
        watch.end_epoch(numbers)


def status(folder):
    return json.loads((folder / "status.json").read_text())


def log(folder):
    """The lines of log.txt, without their times."""
    return [line.partition(" ")[2] for line in (folder / "log.txt").read_text().splitlines()]


def events(folder):
    """All values of all event files, as (step, value)."""
    files = sorted(str(path) for path in (folder / "tensorboard").iterdir())
    found = [tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(files)]
    return [(event.step, value) for event in found for value in event.summary.value]


def scalars(folder, name):
    """The numbers of that name, as {step: number}."""
    return {step: round(value.simple_value, 4) for step, value in events(folder) if value.tag == name}


def test_the_device_is_asked_twice_a_second_and_after_the_last_step(tmp_path, clock):
    asked = []
    with TrainingMonitor(tmp_path, epochs=1, steps=103, batch_size=8, verbose=0) as watch:
        watch.begin_epoch(0)
        returned = go_through(watch, clock, steps=103, seconds=0.0625, read=lambda: asked.append(1) or {"loss": 0.5})
    assert len(asked) == 13  # 6.4 seconds
    assert [step for step, logs in enumerate(returned, 1) if logs][-3:] == [88, 96, 103]
    assert returned[102] == {"loss": 0.5}


def test_the_history_has_a_row_per_epoch(tmp_path, clock):
    with TrainingMonitor(tmp_path, epochs=2, steps=10, batch_size=8, verbose=0) as watch:
        go_through_epochs(watch, clock, [{"loss": np.float64(2), "val_loss": 3}, {"loss": tf.constant(1.5)}])
    assert (tmp_path / "history.csv").read_text() == "epoch,loss,val_loss\n0,2.0,3.0\n1,1.5,\n"
    assert watch.history == [{"epoch": 0, "loss": 2.0, "val_loss": 3.0}, {"epoch": 1, "loss": 1.5}]


def test_a_resumed_training_goes_on_with_the_history_and_has_no_row_twice(tmp_path, clock):
    with TrainingMonitor(tmp_path, epochs=3, steps=10, batch_size=8, verbose=0) as watch:
        go_through_epochs(watch, clock, [{"loss": 3}, {"loss": 2}])
    rows = pd.read_csv(tmp_path / "history.csv").to_dict("records")
    with TrainingMonitor(tmp_path, epochs=3, steps=10, batch_size=8, verbose=0, history=rows) as watch:
        assert status(tmp_path)["epoch"] == 3
        go_through_epochs(watch, clock, [{"loss": 1.75}, {"loss": 1}], first=1)
    assert pd.read_csv(tmp_path / "history.csv").to_dict("list") == {"epoch": [0, 1, 2], "loss": [3, 1.75, 1]}
    assert "begun: 3 epochs, 2 of which are over, each 10 steps of 8 images" in log(tmp_path)


def test_the_log_says_what_happened_and_where_the_time_went(tmp_path, clock):
    with TrainingMonitor(tmp_path, epochs=12, steps=10, batch_size=8, verbose=0) as watch:
        watch.note("augment", 0.1)
        watch.log("weights are from scratch")
        go_through_epochs(watch, clock, [{**HEADS, "learning_rate": 3e-4, "val_loss": 12.5}])
        watch.begin_epoch(1, 4)
        go_through(watch, clock, steps=6, seconds=700, first=4)
        watch.end_epoch({"loss": 123.4})
    assert [re.sub(r"memory \d+\.\d\d GiB$", "memory", line) for line in log(tmp_path)] == [
        "begun: 12 epochs, each 10 steps of 8 images",
        "weights are from scratch",
        "epoch 1/12  0:15  8.0 images/s  loss 1.79  authenticity 0.693 51.2%  category 1.10 34.5%  "
        "learning_rate 0.000300  validation: loss 12.5  time: step 100% (augment 10%); validation 5.0 s; memory",
        "epoch 2/12 goes on after step 4/10",
        "epoch 2/12  1:10:00  0.0 images/s  loss 123  time: step 100% (augment 0%); validation 0.0 s; memory",
        "finished after 1:10:15, in epoch 2/12 at step 10/10",
    ]
    begun = datetime.fromisoformat((tmp_path / "log.txt").read_text().split()[0])
    assert abs(datetime.now().astimezone() - begun).total_seconds() < 60


def test_who_waits_for_images_is_told_so_once(tmp_path, clock, capsys):
    def images():
        while True:
            clock.advance(0.25)
            yield "images"

    with TrainingMonitor(tmp_path, epochs=2, steps=4, batch_size=8, verbose=2) as watch:
        for epoch in range(2):
            watch.begin_epoch(epoch)
            for step, batch in zip(range(4), watch.timed("input", images()), strict=False):
                assert batch == "images"
                clock.advance(0.75)
                watch.after_step(step + 1, 8, lambda: HEADS)
            watch.end_epoch(HEADS)
    warning = (
        "the accelerator waited for images 25% of the time; if that lasts, --cache keeps images decoded, "
        "and --data-service has other machines decode them"
    )
    assert [line for line in log(tmp_path) if "waited" in line] == [warning, warning]
    assert capsys.readouterr().err.count(warning) == 1
    assert "time: input 25%, step 75%; validation 0.0 s" in log(tmp_path)[1]


@pytest.mark.parametrize(
    ("input_seconds", "device_seconds", "times"),
    [(0.04, 0.1, "input 0%, step 100%"), (0.1, 0.02, "input 96%, step 4%")],
    ids=["the device is slower", "the input is slower"],
)
def test_waiting_while_the_device_has_work_costs_nothing(tmp_path, clock, input_seconds, device_seconds, times):
    device_is_done = clock.now

    def images():
        while True:
            clock.advance(input_seconds)
            yield "images"

    def read():
        clock.now = max(clock.now, device_is_done)
        return {"loss": 1}

    with TrainingMonitor(tmp_path, epochs=1, steps=100, batch_size=8, verbose=0) as watch:
        watch.begin_epoch(0)
        for step, _ in zip(range(100), watch.timed("input", images()), strict=False):
            device_is_done = max(clock.now, device_is_done) + device_seconds  # a step is begun, and not waited for
            watch.after_step(step + 1, 8, read)
        watch.end_epoch({"loss": 1})
    assert f"time: {times}; " in log(tmp_path)[1]


def test_the_status_says_where_the_training_stands(tmp_path, clock):
    with TrainingMonitor(tmp_path, epochs=3, steps=10, batch_size=8, verbose=0) as watch:
        begun = status(tmp_path)
        assert (begun["state"], begun["step"], begun["images_per_second"], begun["eta_seconds"]) == (
            "training",
            0,
            None,
            None,
        )
        go_through_epochs(watch, clock, [{"loss": 2}])
        watch.begin_epoch(1)
        go_through(watch, clock, steps=5, seconds=2, read=lambda: {"loss": 1.5})
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
        go_through(watch, clock, steps=5, seconds=2, first=5)
        assert status(tmp_path)["state"] == "validating"
        clock.advance(5)
        watch.end_epoch({"val_loss": 4})
        after = status(tmp_path)
        assert (after["state"], after["eta_seconds"], after["logs"]) == ("training", 25.0, {"val_loss": 4.0})
    assert (status(tmp_path)["state"], status(tmp_path)["eta_seconds"]) == ("finished", 0.0)


def test_the_status_is_written_once_a_second_at_most(tmp_path, clock):
    seen = []

    def read():
        seen.append(status(tmp_path)["step"])
        return {"loss": 1}

    with TrainingMonitor(tmp_path, epochs=1, steps=50, batch_size=8, verbose=0) as watch:
        watch.begin_epoch(0)
        go_through(watch, clock, steps=20, seconds=0.25, read=read)
    assert seen == [0, 0, 4, 4, 8, 8, 12, 12, 16, 16]


def test_what_compiles_does_not_count_for_the_speed(tmp_path, clock):
    with TrainingMonitor(tmp_path, epochs=1, steps=100, batch_size=8, verbose=0) as watch:
        watch.begin_epoch(0)
        go_through(watch, clock, steps=1, seconds=60)
        assert status(tmp_path)["images_per_second"] is None
        go_through(watch, clock, steps=5, seconds=1, first=1)
        assert status(tmp_path)["images_per_second"] == 8.0


def train_until(folder, clock, error, verbose=0):
    """Four steps of the second epoch of three, and then `error`."""
    with TrainingMonitor(folder, epochs=3, steps=10, batch_size=8, verbose=verbose) as watch:
        watch.begin_epoch(1)
        go_through(watch, clock, steps=4, seconds=1)
        raise error


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
def test_an_end_before_its_time_is_told(tmp_path, clock, error, state, line):
    with pytest.raises(type(error)) as raised:
        train_until(tmp_path, clock, error)
    assert raised.value is error
    found = status(tmp_path)
    assert (found["state"], found["epoch"], found["step"], found["eta_seconds"]) == (state, 2, 4, None)
    assert found.get("error") == line
    assert log(tmp_path)[-1] == f"{state} after 0:04, in epoch 2/3 at step 4/10" + (f": {line}" if line else "")


def test_numbers_that_json_lacks_are_null(tmp_path, clock):
    with TrainingMonitor(tmp_path, epochs=1, steps=10, batch_size=8, verbose=0) as watch:
        go_through_epochs(watch, clock, [{"loss": float("nan"), "val_loss": float("inf")}])
    text = (tmp_path / "status.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["logs"] == {"loss": None, "val_loss": None}


def full(*_, **__):
    raise OSError(28, "No space left on device")


def test_a_full_disk_hides_no_error(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(monitor.atomic, "file", full)
    monkeypatch.setattr(monitor, "open", full, raising=False)
    with pytest.raises(ValueError, match="of the training"):
        train_until(tmp_path, clock, ValueError("of the training"))


def test_a_full_disk_is_an_error_for_the_history_alone(tmp_path, clock, monkeypatch):
    with TrainingMonitor(tmp_path, epochs=1, steps=10, batch_size=8, verbose=0) as watch:
        monkeypatch.setattr(monitor.atomic, "file", full)
        monkeypatch.setattr(monitor, "open", full, raising=False)
        watch.begin_epoch(0)
        assert go_through(watch, clock, steps=10, seconds=1)[-1] == HEADS
        with pytest.raises(OSError, match="No space left"):
            watch.end_epoch({"loss": 1})


def test_the_events_have_the_numbers_of_epochs_and_of_steps(tmp_path, clock):
    with TrainingMonitor(tmp_path, epochs=2, steps=10, batch_size=8, verbose=0) as watch:
        go_through_epochs(watch, clock, [{"loss": 2, "val_loss": 3}, {"loss": 1, "val_loss": 2.5}])
    assert scalars(tmp_path, "loss") == {0: 2.0, 1: 1.0}
    assert scalars(tmp_path, "val_loss") == {0: 3.0, 1: 2.5}
    assert scalars(tmp_path, "images_per_second") == {0: 8.0, 1: 8.0}
    assert scalars(tmp_path, "step/category_loss") == dict.fromkeys(range(1, 21), 1.0986)


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_the_events_have_the_first_images_of_a_batch(tmp_path, kind):
    batch = np.random.default_rng(0).integers(0, 256, (9, 6, 5, 3)).astype(kind)
    with TrainingMonitor(tmp_path, epochs=2, steps=10, batch_size=9, verbose=0) as watch:
        watch.begin_epoch(1)
        watch.images("augmented", tf.constant(batch))
    found = {value.tag: value.image.encoded_image_string for step, value in events(tmp_path) if step == 10}
    assert list(found) == [f"augmented/image/{number}" for number in range(8)]
    np.testing.assert_array_equal(tf.io.decode_png(found["augmented/image/7"]), batch[7])


def test_colours_out_of_range_are_cut_off(tmp_path):
    with TrainingMonitor(tmp_path, epochs=1, steps=1, batch_size=1, verbose=0) as watch:
        watch.images("one", tf.constant([[[[-3.0, 0.6, 300.0]]]], "bfloat16"))
    ((_, value),) = events(tmp_path)
    assert tf.io.decode_png(value.image.encoded_image_string).numpy().tolist() == [[[0, 1, 255]]]


def test_a_worker_that_is_not_the_chief_writes_and_shows_nothing(tmp_path, clock, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with TrainingMonitor(None, epochs=1, steps=10, batch_size=8) as watch:
        watch.log("unheard")
        watch.images("unseen", np.zeros((1, 4, 4, 3)))
        go_through_epochs(watch, clock, [{"loss": 1.0}])
    assert watch.history == [{"epoch": 0, "loss": 1.0}]
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_in_a_log_there_is_a_line_per_epoch(tmp_path, clock, capsys):
    with TrainingMonitor(tmp_path, epochs=2, steps=10, batch_size=8, verbose=2) as watch:
        go_through_epochs(watch, clock, [HEADS, {"loss": 0.00041, "val_loss": 0.5}])
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1/2  0:15  8.0 images/s  loss 1.79  authenticity 0.693 51.2%  category 1.10 34.5%",
        "epoch 2/2  0:15  8.0 images/s  loss 0.000410  validation: loss 0.500",
    ]


def test_silent_is_silent(tmp_path, clock, capfd):
    with TrainingMonitor(tmp_path, epochs=1, steps=10, batch_size=8, verbose=0) as watch:
        go_through_epochs(watch, clock, [HEADS])
    assert capfd.readouterr() == ("", "")


def drawn(folder, clock, monkeypatch, *, columns, epochs=2, steps=10):
    """What a terminal so wide is told in the first epoch: what each carriage return or newline ends."""
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with open(its, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(monitor.sys, "stderr", terminal)
        with TrainingMonitor(folder, epochs=epochs, steps=steps, batch_size=8, verbose=1) as watch:
            watch.begin_epoch(0)
            go_through(watch, clock, steps=1, seconds=60)
            go_through(watch, clock, steps=1, seconds=0.5, first=1)
            go_through(watch, clock, steps=1, seconds=4, first=steps - 1)
            watch.end_epoch({"loss": 0.5})
        told = os.read(ours, 65536).decode()
    os.close(ours)
    return re.split(r"[\r\n]+", told)


def test_the_bar_moves_in_place_and_gives_way_to_the_epochs_line(tmp_path, clock, monkeypatch):
    heads = "authenticity 0.693 51.2%  category 1.10 34.5%"
    told = drawn(tmp_path, clock, monkeypatch, columns=120)
    assert [line.rstrip() for line in told] == [
        "",
        "epoch 1/2 ------------------------------  0/10  - images/s  -:--",
        f"epoch 1/2 ###---------------------------  1/10  - images/s  -:--  {heads}",
        f"epoch 1/2 ######------------------------  2/10  16 images/s  0:04  {heads}",
        f"epoch 1/2 ############################## 10/10  validating  {heads}",
        "",
        "epoch 1/2  1:04  3.6 images/s  loss 0.500",
        "",
    ]


@pytest.mark.parametrize("columns", [20, 60, 80, 120, 240])
def test_the_bar_never_wraps(tmp_path, clock, monkeypatch, columns):
    _, *bars, _, _ = drawn(tmp_path, clock, monkeypatch, columns=columns, epochs=100, steps=12345)
    assert [len(bar) for bar in bars] == [columns - 1] * 5  # the last is blank, for the line that stays


def test_on_80_columns_the_bar_has_both_heads(tmp_path, clock, monkeypatch):
    told = drawn(tmp_path, clock, monkeypatch, columns=80, epochs=12, steps=105)
    assert told[3] == "1/12 -------   2/105  16/s  0:52  authenticity 0.693 51.2%  category 1.10 34.5%"


def test_the_bar_of_a_training_that_ends_before_its_time_stays(tmp_path, clock, capsys):
    with pytest.raises(KeyboardInterrupt):
        train_until(tmp_path, clock, KeyboardInterrupt(), verbose=1)
    assert capsys.readouterr().err.endswith(
        "\r2/3 ####-----  4/10  8.0/s  0:06  authenticity 0.693 51.2%  category 1.10 34.5%\n"
    )


def test_a_terminal_that_is_gone_ends_no_training(tmp_path, clock, monkeypatch):
    class Gone:
        def write(self, *_):
            raise OSError(5, "Input/output error")

        flush = fileno = write

    with monkeypatch.context() as patch:
        patch.setattr(monitor.sys, "stderr", Gone())
        with TrainingMonitor(tmp_path, epochs=1, steps=10, batch_size=8, verbose=1) as watch:
            go_through_epochs(watch, clock, [HEADS])
    assert status(tmp_path)["state"] == "finished"
