#!/usr/bin/env bash
# Make a virtual environment in .venv and install ddkeras into it.
#
#   scripts/install.sh          what using it takes
#   scripts/install.sh dev      and what its tests take
#
# Does nothing when that is already done. PYTHON=... chooses the interpreter, 3.11 to 3.13.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=${1:-}

stamp=.venv/installed${extras:+-$extras}
wanted=$(cksum setup.cfg pyproject.toml)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }
if [ ! -x .venv/bin/python ]; then
    for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if fits "$python"; then break; fi
        python=
    done
    if [ -z "$python" ]; then
        echo "No Python 3.11 to 3.13 found, which TensorFlow needs; install one and name it: PYTHON=/path/to/python3" >&2
        exit 1
    fi
    if ! "$python" -m venv .venv; then
        rm -rf .venv
        echo "$python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
fi
echo "Installing ddkeras${extras:+[$extras]} into .venv; TensorFlow is large, this takes some minutes." >&2
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".${extras:+[$extras]}"
echo "$wanted" > "$stamp"
