# Sourced by the other scripts: go to the project's folder, and see that .venv holds what tests/requirements.txt pins.
# Needs nothing but Python 3.11 or newer; installs only when the pins have changed since the last time.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
  local candidate
  for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
    if is_new_enough "$candidate"; then # a version manager's shim may be there and yet not run
      command -v "$candidate"
      return
    fi
  done
  echo "Python 3.11 or newer is needed, and none is on PATH." >&2
  return 2
}

make_venv() {
  local python
  python=$(find_python)
  if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then # Debian keeps them in a package of their own
    "$python" -c 'import os, sys
print("This Python cannot make virtual environments. Run this, then try again:")
print("  %sapt-get install -y python%d.%d-venv" % ("sudo " if os.geteuid() else "", *sys.version_info[:2]))' >&2
    return 2
  fi
  echo "Making .venv with $python" >&2
  "$python" -m venv --clear .venv
}

install() {
  local pins stamp=.venv/installed-requirements
  pins=$(cat requirements.txt tests/requirements.txt)
  if [ "$(cat "$stamp" 2>/dev/null)" != "$pins" ]; then
    echo "Installing tests/requirements.txt into .venv" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt
    printf '%s\n' "$pins" >"$stamp" # last: an interrupted installation is done again
  fi
}

# pip comes last into a new environment: without it, making it was interrupted.
if ! is_new_enough .venv/bin/python || ! [ -x .venv/bin/pip ]; then
  make_venv
fi
install
