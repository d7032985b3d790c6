"""Finding, verifying and loading versions."""

import json
import os
import shutil

import pytest

from ddkeras.exceptions import ConfigError
from ddkeras.exporting import bundle
from ddkeras.runs.run import file_sha256
from ddkeras.serving import model_versions


def test_the_newest_export_is_served_by_default(tmp_path):
    for name, changed in (("a", 100), ("b", 200), ("c", 50), ("d", 300)):
        (tmp_path / "export" / name / "1").mkdir(parents=True)
        (tmp_path / "export" / name / "1" / ("saved_model.pb" if name != "d" else "model.onnx")).touch()
        os.utime(tmp_path / "export" / name / "1", (changed, changed))
    assert model_versions.newest_export(tmp_path / "export").name == "b"


def test_versions_are_numbered_folders_inside_the_base(base, tmp_path):
    shutil.copytree(base / "1", tmp_path / "elsewhere")
    (base / "9").symlink_to(tmp_path / "elsewhere")
    (base / "10").mkdir()
    (base / "5").touch()
    (base / ".7-partial-3").mkdir()
    assert [path.name for path in bundle.find_versions(base)] == ["10", "1"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda folder: (folder / "labels.txt").write_text("cats\n"), "labels.txt"),
        (lambda folder: (folder / "labels.txt").unlink(), "labels.txt"),
        (lambda folder: (folder / "more.txt").touch(), "more.txt"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "SHA256SUMS"),
        (lambda folder: (folder / "SHA256SUMS").write_text("nonsense\n"), "SHA256SUMS"),
        (lambda folder: (folder / "SHA256SUMS").write_text(""), "assets.extra"),
    ],
)
def test_an_export_with_a_changed_file_is_rejected(base, change, named):
    change(base / "1")
    with pytest.raises(ConfigError, match=rf"base/1 is not an export of ddk, or was changed since \({named}"):
        model_versions.Model(model_versions.highest_version(base))


def test_a_saved_model_without_a_model_card_is_rejected(base):
    (base / "1" / "model_card.json").unlink()
    sums = base / "1" / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.open() if "model_card" not in line))
    with pytest.raises(ConfigError, match=r"model_card\.json"):
        model_versions.Model(model_versions.highest_version(base))


def test_loading_a_version_warms_it_up(exported, monkeypatch):
    warmed = []
    monkeypatch.setattr(model_versions.Model, "_warm_up", lambda self, path: warmed.append(path.exists()))
    model_versions.Model(exported)
    assert warmed == [True]


@pytest.mark.parametrize("point", [{"temperature": -1.0}, {"limits": {"real_below": 2.0, "fake_from": 1.0}}])
def test_an_export_with_an_impossible_operating_point_is_rejected(base, point):
    card = base / "1" / "model_card.json"
    content = json.loads(card.read_text())
    content["operating_point"] |= point
    card.write_text(json.dumps(content))
    sums = base / "1" / "SHA256SUMS"
    old = next(line.split()[0] for line in sums.open() if "model_card" in line)
    sums.write_text(sums.read_text().replace(old, file_sha256(card)))
    for opened in (lambda: model_versions.Model(base / "1"), lambda: bundle.open_export(base)):
        with pytest.raises(ConfigError, match=r"model_card.json: th.*; export the run again: ddk export"):
            opened()
