#!/usr/bin/env bash
# Install the development tools; then the linter, the import contracts, the type checker, the documentation and the tests.
#
#   scripts/test.sh                          the quick tests
#   scripts/test.sh -m "slow or not slow"    all of them; arguments go to pytest
#   scripts/test.sh --cov                    with coverage; fails below the floor in setup.cfg
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install.sh dev
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/lint-imports
.venv/bin/mypy
NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict
# A process per core, as most tests use one; at most four, as each takes up to 3 GB, and 9 GB for the largest of the slow tests.
exec .venv/bin/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal "$@"
