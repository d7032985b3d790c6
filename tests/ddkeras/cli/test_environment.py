import json
import subprocess
import sys


def test_loading_is_announced_on_standard_error_alone(tmp_path):
    command = ["-c", "from ddkeras.cli import main; main()", "serve", "missing", "--json"]
    finished = subprocess.run([sys.executable, *command], check=False, cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[0] == "loading TensorFlow"
    assert list(json.loads(finished.stdout)) == ["error"]


def test_explain_loads_nothing_that_only_other_libraries_would_use():
    code = """
import sys
from ddkeras.cli.environment import load_tensorflow
load_tensorflow()
from ddkeras.explanation import explainer, overlays
print(*sorted({"jax", "matplotlib.pyplot", "sklearn", "tensorflow", "keras"} & sys.modules.keys()))
from ddkeras.reporting import figures  # which does use scikit-learn
print("sklearn.metrics" in sys.modules, None in sys.modules.values())
"""
    finished = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert finished.stdout.splitlines() == ["keras tensorflow", "True False"]
