"""TensorFlow Serving's own server in place of the embedded one, with the configuration in `configs/`."""

import os
import shutil
from importlib import resources
from pathlib import Path
from typing import NoReturn

from ddkeras.exceptions import ConfigError

BINARY = "tensorflow_model_server"
_CONFIGS = resources.files("ddkeras.serving") / "configs"
_GRPC_PORT = 8500
_ALL_ADDRESSES = ("0.0.0.0", "::")


def command(base: Path, *, name: str, host: str, port: int) -> list[str]:
    """The command line that serves the versions in `base`.

    Raises:
        ConfigError: the server is not installed, or it cannot listen on `host` alone.
    """
    server = shutil.which(BINARY)
    if not server:
        raise ConfigError(
            f"{BINARY} is not on the PATH; install it, or use the image in scripts/serving/compose.yaml"
        )
    if host not in _ALL_ADDRESSES:
        raise ConfigError(
            f"TensorFlow Serving listens on all addresses and cannot be limited to {host}; to allow that, give: "
            "--host 0.0.0.0"
        )
    return [
        server,
        f"--rest_api_port={port}",
        f"--port={_GRPC_PORT}",
        f"--model_name={name}",
        f"--model_base_path={base.resolve()}",
        "--enable_batching",
        f"--batching_parameters_file={_CONFIGS / 'batching.config'}",
        f"--monitoring_config_file={_CONFIGS / 'monitoring.config'}",
    ]


def replace_this_process(arguments: list[str]) -> NoReturn:
    """Replace this process with the command, which then receives its signals and determines its exit code."""
    os.execv(arguments[0], arguments)
