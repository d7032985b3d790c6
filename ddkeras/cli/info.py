"""`ddk info`."""

import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from ddkeras import __version__
from ddkeras.cli import console
from ddkeras.cli.environment import load_tensorflow
from ddkeras.serving.tensorflow_serving import BINARY

_PACKAGES = ("tensorflow", "keras", "keras-cv", "numpy", "pandas", "scikit-learn", "Pillow", "pillow-heif")
# The extras of setup.cfg that users install for a command: what each is for, and its packages.
EXTRAS = {
    "demo": ("ddk demo", ("gradio",)),
    "faces": ("ddk predict --faces", ("opencv-python-headless",)),
    "litert": ("LiteRT: predict; export --to litert-int8", ("ai-edge-litert", "ai-edge-quantizer")),
    "onnx": ("ONNX: predict; export --to onnx", ("onnx", "onnxruntime", "tf2onnx")),
    "parquet": ("ddk predict --output NAME.parquet", ("pyarrow",)),
    "provenance": ("C2PA manifests: predict, demo", ("c2pa-python",)),
    "serve": ("ddk serve", ("fastapi", "prometheus-client", "uvicorn")),
    "tune": ("ddk tune", ("optuna",)),
    "video": ("ddk predict VIDEO", ("av",)),
}


def _format_result(result: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version or 'missing'}" for name, version in result["packages"].items())
    half = packages.index(", ", len(packages) // 2) + 2
    lines = [
        f"ddkeras   {result['ddkeras']}, in {result['folder']}",
        f"Python    {result['python']}, {result['executable']}",
        f"system    {result['system']}; {result['cores']} cores, {result['memory_gib']} GiB of memory",
        f"packages  {packages[:half].rstrip()}",
        f"          {packages[half:]}",
        *_format_devices(result),
        f"server    {BINARY}, for ddk serve --engine tfserving: {result['model_server'] or 'not found'}",
        "extras",
    ]
    for name, extra in result["extras"].items():
        versions = ", ".join(f"{package} {version}" for package, version in extra["packages"].items() if version)
        state = versions if extra["installed"] else f'missing; pip install "ddkeras[{name}]"'
        lines.append(f"  {name:10}  {extra['for']:40}  {state}")
    return "\n".join(lines)


def _format_devices(result: dict[str, Any]) -> list[str]:
    if error := result["tensorflow_error"]:
        return [f"devices   unknown, as TensorFlow cannot be loaded: {error}"]
    devices = [f"{device['type']} {device['description'] or ''}".rstrip() for device in result["devices"]]
    lines = [f"devices   {', '.join(devices)}"]
    if not any(device["type"] == "GPU" for device in result["devices"]):
        lines.append('          no GPU; where there is an NVIDIA one: pip install "ddkeras[gpu]"')
    return lines


@console.command("info", format_result=_format_result)
def info() -> dict[str, Any]:
    """Show versions, devices and extras, for a report of an error.

    Versions of ddkeras, Python and the packages whose versions matter; the devices that TensorFlow finds; and what
    each extra is for, whether it is installed, and the command that installs it.

    \b
    Examples:
      ddk info
      ddk info --json
    """
    import psutil

    devices, error = _devices()
    return {
        "ddkeras": __version__,
        "folder": str(Path(__file__).parents[1]),
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "packages": _versions(_PACKAGES),
        "devices": devices,
        "tensorflow_error": error,
        "model_server": shutil.which(BINARY),
        "extras": {name: _extra(purpose, packages) for name, (purpose, packages) in EXTRAS.items()},
    }


def _devices() -> tuple[list[dict[str, Any]], str | None]:
    """The devices that TensorFlow finds, or why it cannot be loaded."""
    try:
        load_tensorflow()
    except ImportError as error:
        return [], " ".join(str(error).split())
    import tensorflow as tf

    found = []
    for device in tf.config.list_physical_devices():
        details = tf.config.experimental.get_device_details(device) if device.device_type == "GPU" else {}
        found.append({"type": device.device_type, "name": device.name, "description": details.get("device_name")})
    return found, None


def _extra(purpose: str, packages: tuple[str, ...]) -> dict[str, Any]:
    versions = _versions(packages)
    return {"for": purpose, "installed": all(versions.values()), "packages": versions}


def _versions(packages: tuple[str, ...]) -> dict[str, str | None]:
    """The version of each package, None where it is not installed."""
    return {name: _version(name) for name in packages}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
