#!/usr/bin/env bash
# Run the tests. Arguments are pytest's: scripts/test.sh -k spool
set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname "$0")/environment.sh"
exec .venv/bin/python -m pytest "$@"
