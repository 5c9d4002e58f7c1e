#!/usr/bin/env bash
# Environment, style, types, fast tests. Arguments go to pytest: bash launch/test.sh tests/test_prior.py -k mixture
# Without arguments two workers share the tests, their folders and their compiled programs. Types are checked meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh dev,dlib,mediapipe,lpips,render,video,beam,onnx,page,browser,safetensors,serve,tpu

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
types=$(mktemp)
trap 'rm -f "$types"' EXIT
"$PYTHON" -m pyright --pythonpath "$PYTHON" >"$types" 2>&1 &
checker=$!
[ $# -gt 0 ] || set -- --numprocesses 2 --dist worksteal -m "not slow"
code=0
"$PYTHON" -m pytest "$@" || code=$?
if ! wait "$checker"; then
  cat "$types"
  exit 1
fi
exit "$code"
