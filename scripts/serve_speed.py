"""Throughput and latency of `ddk serve` against bare inference over the same files, as JSON.

    python scripts/serve_speed.py artifacts/export/<run> data/test
    python scripts/serve_speed.py artifacts/export/<run> data/test --minutes 30

- `bare`: a process that loads the SavedModel and calls it repeatedly with batches of 32 files.
- `beside`: the same for each export named by --beside, such as LiteRT or ONNX; TensorFlow decodes for these.
- `clients`: `ddk serve` in one process and a load generator in another, by number of connections; each connection
  sends one file, waits for the answer and sends the next. The load generator shares the cores with the server.

With --minutes, a soak test instead: 16 connections for that long, with a new model version deployed half-way.
`resident_mb` is the server's resident memory after each tenth of that time.
"""

import argparse
import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BATCH = 32
CLIENTS = (1, 4, 16, 64)
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")


def files_in(folder: Path) -> list[bytes]:
    """The contents of up to 1,000 images."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _IMAGES)
    return [path.read_bytes() for path in found[:1000]]


def bare(version: Path, files: list[bytes], seconds: float) -> dict:
    """Throughput of the SavedModel alone, decoding included."""
    import tensorflow as tf  # noqa: PLC0415

    score = tf.saved_model.load(version).signatures["serving_default"]
    batches = [tf.constant((files * BATCH)[at : at + BATCH]) for at in range(0, len(files), BATCH)]
    score(image_bytes=batches[0])
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        score(image_bytes=batches[done % len(batches)])["verdict"].numpy()
        done += 1
    return {"images_per_second": round(done * BATCH / (time.perf_counter() - begun), 1)}


def beside(model: Path, files: list[bytes], seconds: float) -> dict:
    """Throughput of another engine, with the decoding of `ddk predict`."""
    import tensorflow as tf  # noqa: PLC0415

    from ddkeras.inference.scorers import open_scorer  # noqa: PLC0415
    from pipelines.views import Squash, try_view  # noqa: PLC0415

    scorer = open_scorer(model)
    decode = tf.function(lambda contents: try_view(contents, Squash(scorer.image_size))[0])
    batches = [tf.constant((files * BATCH)[at : at + BATCH]) for at in range(0, len(files), BATCH)]
    scorer.score(decode(batches[0]).numpy())
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        scorer.score(decode(batches[done % len(batches)]).numpy())
        done += 1
    return {"images_per_second": round(done * BATCH / (time.perf_counter() - begun), 1)}


async def load(port: int, files: list[bytes], connections: int, seconds: float) -> dict:
    """Load the server from so many connections; without an HTTP library, which would need more CPU."""
    requests = [_request(file) for file in files]
    taken, codes = [], Counter()
    begun = time.perf_counter()

    async def connect(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        at = first
        while time.perf_counter() - begun < seconds:
            asked = time.perf_counter()
            try:
                writer.write(requests[at % len(requests)])
                codes[await _answer(reader)] += 1
                taken.append(time.perf_counter() - asked)
            except (OSError, asyncio.IncompleteReadError):
                codes["lost"] += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            at += connections
        writer.close()

    await asyncio.gather(*(connect(index) for index in range(connections)))
    elapsed = time.perf_counter() - begun
    ordered = sorted(taken)
    return {
        "images_per_second": round(codes[200] / elapsed, 1),
        "p50_ms": round(1000 * ordered[len(ordered) // 2], 1),
        "p99_ms": round(1000 * ordered[len(ordered) * 99 // 100], 1),
        "requests": sum(codes.values()),
        "failures": sum(count for code, count in codes.items() if code not in (200, 429)),
        "429": codes[429],
    }


def _request(file: bytes) -> bytes:
    body = b'{"instances":[{"b64":"' + base64.b64encode(file) + b'"}]}'
    head = b"POST /v1/models/ddk:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head + body


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.readexactly(int(re.search(rb"(?i)content-length: (\d+)", head)[1]))
    code = int(head.split(b" ", 2)[1])
    return -1 if code == 200 and b'"verdict": "error"' in body else code


@contextmanager
def server(base: Path) -> Iterator[int]:
    """Run `ddk serve` on a free port; yields the port once it is ready."""
    command = [sys.executable, "-c", "from ddkeras.cli import main; main()", "serve", os.fspath(base), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            line = next(line for line in process.stderr if line.startswith("serving "))
            yield int(re.search(r"://[^ ]+:(\d+)", line)[1])
        finally:
            process.terminate()
            process.communicate()
    if process.returncode:
        raise RuntimeError(f"ddk serve ended with {process.returncode}")


def measured(port: int, name: str) -> float:
    """One value of the server's Prometheus metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        return float(re.search(rf"(?m)^{name} (\S+)$", response.read().decode())[1])


def resident_mb(port: int) -> int:
    """Resident memory of the server."""
    return round(measured(port, "process_resident_memory_bytes") / 2**20)


def apart(options: argparse.Namespace, *words: str) -> dict:
    """Run one measurement of this script in a new process."""
    command = [sys.executable, __file__, os.fspath(options.export), os.fspath(options.folder), *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def speeds(options: argparse.Namespace) -> dict:
    """Measure every number of connections, and bare inference."""
    seconds = ["--seconds", str(options.seconds)]
    result = {"bare": apart(options, "--bare", *seconds), "beside": {}, "clients": {}}
    for model in options.beside:
        result["beside"][model.name] = apart(options, "--beside", os.fspath(model), "--bare", *seconds)
    with server(options.export) as port:
        apart(options, "--load", "16", "--port", str(port), "--seconds", "2")  # caches of the first batches
        for connections in CLIENTS:
            found = apart(options, "--load", str(connections), "--port", str(port), *seconds)
            ratio = found["images_per_second"] / result["bare"]["images_per_second"]
            result["clients"][connections] = {"of_bare": round(ratio, 2), **found}
    return result


def soak(options: argparse.Namespace) -> dict:
    """Load the server for long, and deploy a new version half-way."""
    seconds = options.minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        newest = newest_version(options.export)
        shutil.copytree(newest, base / "1")
        with server(base) as port:
            words = ["--load", "16", "--port", str(port), "--seconds", str(seconds)]
            command = [sys.executable, __file__, os.fspath(options.export), os.fspath(options.folder), *words]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as loading:
                resident = []
                for tenth in range(10):
                    time.sleep(seconds / 10)
                    resident.append(resident_mb(port))
                    if tenth == 4:
                        shutil.copytree(newest, base / ".2")
                        os.rename(base / ".2", base / "2")
                result = json.loads(loading.communicate()[0].splitlines()[-1])
            version = int(measured(port, "ddk_model_version"))
            return result | {"resident_mb": resident, "version_at_the_end": version}


def newest_version(base: Path) -> Path:
    """The folder of the newest version."""
    return max((path for path in base.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("export", type=Path, help="the folder of the versions")
    parser.add_argument("folder", type=Path, help="images")
    parser.add_argument("--beside", type=Path, action="append", default=[], help="an export of another format")
    parser.add_argument("--seconds", type=float, default=20, help="for each measurement")
    parser.add_argument("--minutes", type=float, help="a soak test of this length instead of the measurements")
    parser.add_argument("--bare", action="store_true", help="this alone, in this process")
    parser.add_argument("--load", type=int, metavar="CONNECTIONS", help="this alone, in this process")
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    from ddkeras.cli.environment import set_tensorflow_environment  # noqa: PLC0415

    set_tensorflow_environment()

    if options.bare and options.beside:
        print(json.dumps(beside(options.beside[0], files_in(options.folder), options.seconds)))
    elif options.bare:
        print(json.dumps(bare(newest_version(options.export), files_in(options.folder), options.seconds)))
    elif options.load:
        found = load(options.port, files_in(options.folder), options.load, options.seconds)
        print(json.dumps(asyncio.run(found)))
    else:
        print(json.dumps(soak(options) if options.minutes else speeds(options), indent=2))


if __name__ == "__main__":
    main()
