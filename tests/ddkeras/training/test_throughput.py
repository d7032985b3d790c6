"""Images per second, and the time spent waiting for input."""

import pytest
from monitoring import HEADS, go_through, log, status

from ddkeras.training.monitor import TrainingMonitor


def test_waiting_for_images_is_warned_about_once(tmp_path, clock, capsys):
    def images():
        while True:
            clock.advance(0.25)
            yield "images"

    with TrainingMonitor(tmp_path, epochs=2, steps=4, batch_size=8, verbose=2) as monitor:
        for epoch in range(2):
            monitor.begin_epoch(epoch)
            for step, batch in zip(range(4), monitor.timed("input", images()), strict=False):
                assert batch == "images"
                clock.advance(0.75)
                monitor.after_step(step + 1, 8, lambda: HEADS)
            monitor.end_epoch(HEADS)
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
def test_waiting_while_the_device_is_busy_does_not_count(tmp_path, clock, input_seconds, device_seconds, times):
    device_is_done = clock.now

    def images():
        while True:
            clock.advance(input_seconds)
            yield "images"

    def read():
        clock.now = max(clock.now, device_is_done)
        return {"loss": 1}

    with TrainingMonitor(tmp_path, epochs=1, steps=100, batch_size=8, verbose=0) as monitor:
        monitor.begin_epoch(0)
        for step, _ in zip(range(100), monitor.timed("input", images()), strict=False):
            device_is_done = max(clock.now, device_is_done) + device_seconds  # a step is begun, and not waited for
            monitor.after_step(step + 1, 8, read)
        monitor.end_epoch({"loss": 1})
    assert f"time: {times}; " in log(tmp_path)[1]


def test_compilation_does_not_count_towards_the_speed(tmp_path, clock):
    with TrainingMonitor(tmp_path, epochs=1, steps=100, batch_size=8, verbose=0) as monitor:
        monitor.begin_epoch(0)
        go_through(monitor, clock, steps=1, seconds=60)
        assert status(tmp_path)["images_per_second"] is None
        go_through(monitor, clock, steps=5, seconds=1, first=1)
        assert status(tmp_path)["images_per_second"] == 8.0
