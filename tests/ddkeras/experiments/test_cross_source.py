"""Each source of fakes held out in turn: which runs are trained or reused, and the files."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import schemas
from tiny import encode

from ddkeras.exceptions import ConfigError
from ddkeras.experiments import cross_source
from ddkeras.runs.run import open_run
from ddkeras.training import loop
from pipelines.datasets.layouts import read_layout
from pipelines.records.conversion import write_records
from pipelines.records.store import open_records


@pytest.fixture(scope="module")
def sourced(tmp_path_factory):
    """Records of a camera and three generators, one of which is rare in validation."""
    data = tmp_path_factory.mktemp("data")
    rows = ["image_path,label,class,source"]
    for split, numbers in (("train", (12, 6, 6, 6)), ("validation", (20, 20, 20, 3))):
        (data / split).mkdir()
        for number, source in zip(numbers, ("camera", "gan", "flux/1", "rare"), strict=True):
            for index in range(number):
                path = data / split / f"{source.replace('/', '-')}-{index}.jpg"
                path.write_bytes(encode(seed=len(rows)))
                rows.append(f"{split}/{path.name},{int(source != 'camera')},,{source}")
    (data / "metadata.csv").write_text("\n".join(rows) + "\n")
    write_records(read_layout(data), data / "records")
    return open_records(data / "records")


@pytest.mark.slow
def test_every_source_is_held_out_in_turn_and_finished_runs_are_reused(sourced, recipe, tmp_path, monkeypatch):
    recipe, lines = replace(recipe, epochs=1), []
    found = cross_source.cross_source(recipe, sourced, tmp_path, tell=lines.append)
    assert found["sources"] == ["flux/1", "gan"], "of three fakes nothing can be told"
    assert found["examples"] == {"flux/1": 20, "gan": 20}
    assert list(found["matrix"]) == ["all", "flux/1", "gan"]
    assert all(0 <= cell.low <= cell.value <= cell.high <= 1 for cell in found["matrix"]["gan"].values())
    assert lines[::2] == ["held out: nothing", "held out: flux/1", "held out: gan"]
    held_out = {folder.name: open_run(folder / "latest").recipe.hold_out for folder in (tmp_path / "runs").iterdir()}
    assert held_out == {"all": "", "flux%2F1": "flux/1", "gan": "gan"}
    table = pd.read_csv(tmp_path / "matrix.csv", index_col="held_out")
    assert table.loc["gan", "flux/1"] == pytest.approx(found["matrix"]["gan"]["flux/1"].value, abs=1e-4)
    stored = json.loads((tmp_path / "matrix.json").read_text())
    assert stored["matrix"]["gan"]["flux/1"] == found["matrix"]["gan"]["flux/1"].to_dict()
    assert {name: stored[name] for name in ("sources", "examples", "folder")} == {
        name: found[name] for name in ("sources", "examples", "folder")
    }
    schemas.check_output("cross-source", json.dumps(found, default=lambda cell: cell.to_dict()))
    assert (tmp_path / "matrix.png").read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(loop, "fit", lambda *arguments, **options: pytest.fail("it was trained again"))
    assert cross_source.cross_source(recipe, sourced, tmp_path, tell=lines.append) == found


@pytest.mark.slow
def test_an_interrupted_matrix_resumes_within_a_training(sourced, recipe, tmp_path, monkeypatch):
    recipe, fit, resumed = replace(recipe, epochs=2), loop.fit, []

    def interrupted(recipe, records, folder, *, resume):
        def stop(row):
            if recipe.hold_out == "gan" and not resumed:
                raise KeyboardInterrupt

        resumed.extend([resume.folder] if resume else [])
        return fit(recipe, records, folder, resume=resume, verbose=0, after_epoch=stop)

    monkeypatch.setattr(loop, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cross_source.cross_source(recipe, sourced, tmp_path, tell=lambda line: None)
    found = cross_source.cross_source(recipe, sourced, tmp_path, tell=lambda line: None)
    assert [folder.parent.name for folder in resumed] == ["gan"]
    assert list(found["matrix"]) == ["all", "flux/1", "gan"]
    assert len(open_run(tmp_path / "runs/gan/latest").history()) == 2


def test_a_single_source_cannot_be_held_out(records, recipe, tmp_path):
    with pytest.raises(ConfigError, match=r"come from no source with 20 images or more in validation, and two are"):
        cross_source.cross_source(recipe, records, tmp_path, tell=print)
