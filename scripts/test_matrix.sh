#!/usr/bin/env bash
# The supported Python versions besides that of .venv: install the package and run the tests that touch every layer.
#
#   scripts/test_matrix.sh               3.11, 3.12 and 3.13, as far as they are installed
#   scripts/test_matrix.sh 3.13          this one alone
#   FULL=1 scripts/test_matrix.sh        all quick tests
#
# Versions that are not installed are named and left out; it fails when a version that is there fails.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${FULL:-}" ]; then tests=(); else tests=(tests/test_imports.py tests/ddkeras/test_compatibility.py tests/ddkeras/test_api.py tests/pipelines/records); fi

interpreter() { # the path of a Python of that version: on PATH, or one of pyenv's
    local found
    for found in "python$1" "$HOME"/.pyenv/versions/"$1".*/bin/python; do
        if "$found" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            command -v "$found"
            return
        fi
    done
    return 0
}

own=$(.venv/bin/python -c "import sys; print('%d.%d' % sys.version_info[:2])" 2>/dev/null || true)
for version in ${*:-3.11 3.12 3.13}; do
    if [ "$version" = "$own" ]; then continue; fi
    python=$(interpreter "$version")
    if [ -z "$python" ]; then
        echo "Python $version is not installed: left out"
        continue
    fi
    environment=$(mktemp -d)/venv
    echo "Python $version"
    "$python" -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check . pytest
    "$environment/bin/python" -m pytest -q "${tests[@]}"
    rm -rf "$(dirname "$environment")"
done
