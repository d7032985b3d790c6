#!/usr/bin/env bash
# Install what the tests need, then lint, check who imports whom, and run the tests.
#
#   scripts/test.sh                          the quick tests
#   scripts/test.sh -m "slow or not slow"    all of them; arguments go to pytest
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install.sh dev
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/lint-imports
exec .venv/bin/python -m pytest "$@"
