#!/usr/bin/env bash
# Environment, style, types, tests. Arguments go to pytest: bash launch/test.sh tests/test_prior.py -k mixture
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh dev,dlib,mediapipe,render,video,beam

"$PYTHON" -m ruff check .
"$PYTHON" -m pyright --pythonpath "$PYTHON"
"$PYTHON" -m pytest "$@"
