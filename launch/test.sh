#!/usr/bin/env bash
# Environment, style, types, tests. Arguments go to pytest: bash launch/test.sh tests/test_prior.py -k mixture
# The whole suite runs in two processes, which share the files of tests and their compiled programs.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh dev,dlib,mediapipe,render,video,beam,tpu

"$PYTHON" -m ruff check .
"$PYTHON" -m pyright --pythonpath "$PYTHON"
[ $# -gt 0 ] || set -- --numprocesses 2 --dist loadfile
"$PYTHON" -m pytest "$@"
