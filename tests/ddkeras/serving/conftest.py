"""One export, and one server and clients of it, for all tests of this folder."""

import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from serving_client import RunningServer, make_service, wait_until_ready

from ddkeras.exporting.saved_model import export_saved_model
from ddkeras.serving import app


@pytest.fixture(scope="session")
def exported(run, tmp_path_factory) -> Path:
    return export_saved_model(run, tmp_path_factory.mktemp("export"))


@pytest.fixture
def base(exported, tmp_path) -> Path:
    """A folder with version 1, to be changed."""
    shutil.copytree(exported, tmp_path / "base" / "1")
    return tmp_path / "base"


@pytest.fixture(scope="session")
def client(exported):
    """A client of an app with default limits, without a network in between."""
    with TestClient(app.make_app(make_service(exported.parent)), raise_server_exceptions=False) as client:
        yield wait_until_ready(client)


@pytest.fixture(scope="session")
def limited_client(exported):
    """A client of an app with low limits."""
    service = make_service(exported.parent, max_body=100_000, max_pixels=2000, max_images=5)
    with TestClient(app.make_app(service)) as client:
        yield wait_until_ready(client)


@pytest.fixture(scope="session")
def running(exported):
    """A server with a port."""
    with RunningServer(exported.parent) as running:
        yield running
