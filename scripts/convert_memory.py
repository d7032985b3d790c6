"""Peak memory of `ddk make-tfrecords` by the number of images, as JSON; Linux only.

    python scripts/convert_memory.py DATA 10000 100000 400000

For each number, a folder of links to the labelled images of DATA, repeated, is converted in a new process. Every
50 ms the peaks of that process and of its workers are read from /proc.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipelines.datasets.layouts import read_layout


def link(data: Path, folder: Path, number: int) -> None:
    """Fill `folder` with `number` links, by split and label."""
    layout = read_layout(data)
    labelled = [example for example in layout.examples if example.label >= 0]
    made = set()
    for index, example in zip(range(number), itertools.cycle(labelled), strict=False):
        parent = folder / example.split / ("real", "fake")[example.label]
        if parent not in made:
            parent.mkdir(parents=True)
            made.add(parent)
        name = f"{index:07}{Path(example.path).suffix}"
        (parent / name).symlink_to((layout.root / example.path).resolve())


def peaks(session: int) -> dict[int, tuple[str, int]]:
    """Role and peak so far in MiB of every process in a session."""
    found = {}
    for process in Path("/proc").iterdir():
        try:
            if not process.name.isdigit() or os.getsid(int(process.name)) != session:
                continue
            lines = (process / "status").read_text().splitlines()
            command = (process / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        peak = next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), 0)
        found[int(process.name)] = ("main" if int(process.name) == session else "worker", peak)
        if "resource_tracker" in command:
            del found[int(process.name)]
    return found


def measure(data: Path, number: int) -> dict:
    """Peaks in MiB and seconds of one conversion of so many images."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        link(data, Path(folder) / "data", number)
        command = [Path(sys.executable).with_name("ddk"), "make-tfrecords", "data", "--output", "records"]
        start, highest = time.perf_counter(), {}
        with subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            while process.poll() is None:
                for found, (role, peak) in peaks(process.pid).items():  # 0 once a process has ended
                    highest[found] = role, max(peak, highest.get(found, (role, 0))[1])
                time.sleep(0.05)
        if process.returncode:
            raise SystemExit(f"the conversion of {number} images failed")
        roles = {role: max(peak for found, peak in highest.values() if found == role) for role in ("main", "worker")}
        return {"images": number, "seconds": round(time.perf_counter() - start, 1), "peak_mib": roles}


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="a folder that make-tfrecords understands")
    parser.add_argument("numbers", type=int, nargs="+")
    options = parser.parse_args()
    for number in options.numbers:
        print(json.dumps(measure(options.data, number)), flush=True)


if __name__ == "__main__":
    main()
