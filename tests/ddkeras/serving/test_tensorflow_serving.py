"""`ddk serve --engine tfserving`."""

import configparser
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import yaml
from serving_client import GOOD, PREDICT, b64, failing_serve, post, send, wait_for
from tiny import REPOSITORY

from ddkeras import serving
from ddkeras.cli import main
from ddkeras.serving import tensorflow_serving


class Executed(Exception):  # noqa: N818  not an error
    """Raised in place of replacing this process."""


@pytest.fixture
def fake_server(tmp_path, monkeypatch):
    """A program named tensorflow_model_server on the PATH; executing it raises `Executed`."""
    program = tmp_path / "bin" / "tensorflow_model_server"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    def execv(path, arguments):
        assert path == arguments[0]
        raise Executed(arguments)

    monkeypatch.setattr(os, "execv", execv)
    return program


def test_the_command_becomes_tensorflow_serving(base, fake_server):
    options = ["--engine", "tfserving", "--host", "0.0.0.0", "--port", "9999"]
    with pytest.raises(Executed) as raised:
        main(["serve", str(base), *options], standalone_mode=False)
    (arguments,) = raised.value.args
    assert arguments[0] == str(fake_server)
    assert "--enable_batching" in arguments
    values = dict(argument.removeprefix("--").split("=") for argument in arguments if "=" in argument)
    assert (values["rest_api_port"], values["port"], values["model_name"]) == ("9999", "8500", "ddk")
    assert values["model_base_path"] == str(base.resolve())
    assert "max_batch_size" in Path(values["batching_parameters_file"]).read_text()
    assert "prometheus_config" in Path(values["monitoring_config_file"]).read_text()


def test_the_configurations_are_package_data_that_the_compose_file_mounts():
    configs = Path(serving.__file__).parent / "configs"
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    assert "serving/configs/*.config" in setup["options.package_data"]["ddkeras"].split()
    assert {path.name for path in configs.iterdir()} == {"batching.config", "models.config", "monitoring.config"}
    compose = yaml.safe_load((REPOSITORY / "scripts/serving/compose.yaml").read_text())["services"]["ddk"]
    (mounted,) = (volume.split(":")[0] for volume in compose["volumes"] if volume.endswith(":/config:ro"))
    assert (REPOSITORY / "scripts/serving" / mounted).resolve() == configs.resolve()
    for argument in compose["command"]:
        if "=/config/" in argument:
            assert (configs / argument.partition("=/config/")[2]).is_file()


def test_tensorflow_serving_does_not_listen_on_all_addresses_unasked(base, fake_server):
    assert "cannot be limited to 127.0.0.1" in failing_serve(base, "--engine", "tfserving")


def test_tensorflow_serving_has_to_be_installed(base, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    line = failing_serve(base, "--engine", "tfserving", "--host", "0.0.0.0")
    assert "tensorflow_model_server is not on the PATH" in line


@pytest.mark.skipif(not shutil.which("tensorflow_model_server"), reason="tensorflow_model_server is not on the PATH")
def test_tensorflow_serving_gives_the_same_answers(exported, client):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = tensorflow_serving.command(exported.parent, name="ddk", host="0.0.0.0", port=port)
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(port) and send(port, "GET", "/v1/models/ddk")[0] == 200, 60)
        request = {"instances": [GOOD, b64(b"rubbish")]}
        theirs = send(port, "POST", PREDICT, json.dumps(request).encode())[1]["predictions"]
        ours = post(client, request)["predictions"]
        assert [row["verdict"] for row in theirs] == [row["verdict"] for row in ours]
        assert theirs[0]["logit"] == pytest.approx(ours[0]["logit"], abs=1e-4)
    finally:
        process.terminate()
        process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
