import json
import subprocess
import sys


def test_loading_is_announced_on_standard_error_alone(tmp_path):
    command = ["-c", "from ddkeras.cli import main; main()", "serve", "missing", "--json"]
    finished = subprocess.run([sys.executable, *command], check=False, cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[0] == "loading TensorFlow"
    assert list(json.loads(finished.stdout)) == ["error"]
