#!/usr/bin/env bash
# Creates the environment, trains from scratch on the embedded rendered heads (64 px; under 10 minutes on 2 cores), scores
# the model on unseen people, and draws demo/transfer.png and demo/sample.png. A second call only scores and draws.
# $ECVAE_DEMO names another folder than demo. Arguments go to the training, which then needs a folder of its own:
# ECVAE_DEMO=longer bash launch/demo.sh --train.steps 20000
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh ""
demo=${ECVAE_DEMO:-demo}
ecvae() { "$PYTHON" -m ecvae_jax "$@"; }

ecvae train configs/demo.py --workdir "$demo/run" "$@"
ecvae evaluate --checkpoint "$demo/run" --data rendered --split test --metrics pixels --out "$demo/scores.json"
# Sources: the first view of people 0, 3, … of the test split. Targets: poses and expressions of another person.
ecvae transfer --checkpoint "$demo/run" --source rendered:test:0,72,144,216,288,360 \
  --target rendered:test:241-251 --out "$demo/transfer.png" --enlarge 2
ecvae sample --checkpoint "$demo/run" --structure rendered:test:0,5,30 --n 8 --out "$demo/sample.png" --enlarge 2
