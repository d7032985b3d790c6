#!/usr/bin/env bash
# Install the development tools; then the linter, the import contracts, the type checker, the documentation and the tests.
#
#   scripts/test.sh                          the quick tests
#   scripts/test.sh -m "slow or not slow"    all of them; arguments go to pytest
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install.sh dev
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/lint-imports
.venv/bin/mypy
NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict
exec .venv/bin/python -m pytest "$@"
