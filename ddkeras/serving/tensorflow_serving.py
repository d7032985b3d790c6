"""TensorFlow Serving's own server in place of ours, with the configuration in scripts/serving."""

import os
import shutil
from pathlib import Path

from ddkeras.exceptions import ConfigError

CONFIGS = Path(__file__).parents[1] / "scripts" / "serving"
_GRPC_PORT = 8500
_EVERYWHERE = ("0.0.0.0", "::")


def command(base: Path, *, name: str, host: str, port: int) -> list[str]:
    """The command line that serves the versions in `base`.

    Raises:
        ConfigError: there is no such server, or it would listen where it was not asked to.
    """
    server = shutil.which("tensorflow_model_server")
    if not server:
        raise ConfigError(
            "tensorflow_model_server is not on the PATH; install it, or use the image in scripts/serving/compose.yaml"
        )
    if host not in _EVERYWHERE:
        raise ConfigError(
            f"TensorFlow Serving listens on all addresses and cannot be kept to {host}; if that is fine, say so "
            "with: --host 0.0.0.0"
        )
    if not CONFIGS.is_dir():
        raise ConfigError(f"{CONFIGS} is not there; run ddk from a checkout of its repository")
    return [
        server,
        f"--rest_api_port={port}",
        f"--port={_GRPC_PORT}",
        f"--model_name={name}",
        f"--model_base_path={base.resolve()}",
        "--enable_batching",
        f"--batching_parameters_file={CONFIGS / 'batching.config'}",
        f"--monitoring_config_file={CONFIGS / 'monitoring.config'}",
    ]


def replace_this_process(words: list[str]) -> None:
    """Become that command: signals and the exit code are its own."""
    os.execv(words[0], words)
