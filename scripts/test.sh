#!/usr/bin/env bash
# Run all tests, several files at a time, then the faults alone. With arguments, which are pytest's, run what they say in one process:
#   scripts/test.sh -k spool
set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname "$0")/environment.sh"

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi # -n: nobody may be there to give a password
}

# The dashboard is tested in a real browser: the machine's own, since Playwright's is a download that not all can have.
if ! .venv/bin/python tests/browser.py; then
  echo "Installing Chromium, in which the dashboard is tested" >&2
  if ! { as_root apt-get update --quiet && as_root apt-get install --yes --quiet --no-install-recommends chromium; } >&2; then
    echo "The dashboard is tested in Chromium, and none was found. Install it, then try again:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y chromium   (on macOS: brew install --cask chromium)" >&2
    exit 2
  fi
fi

if [ $# = 0 ]; then
  # As many processes as the usual two cores: more end sooner, but starve each other. The faults keep both busy by
  # themselves, and hold bounds of time: beside other tests they fail.
  .venv/bin/python -m pytest --numprocesses 2 --ignore tests/faults
  set -- tests/faults
fi
exec .venv/bin/python -m pytest "$@"
