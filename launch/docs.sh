#!/usr/bin/env bash
# Builds the documentation into build/docs: pages, reference, executed notebooks. A warning or a failed cell fails it.
# Open build/docs/index.html. $ECVAE_DOCS names another folder. ECVAE_DOCS_NOTEBOOKS=off skips the notebooks' cells while
# you write a page.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh docs
export JAX_PLATFORMS=cpu PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
# Another build, and the second notebook, find the programs that were compiled before; the results are the same.
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$PWD/build/docs-xla}
site=${ECVAE_DOCS:-build/docs}

"$PYTHON" -m sphinx --quiet --fail-on-warning --keep-going --fresh-env -c docs -d build/docs-pages . "$site"
echo '<!doctype html><meta http-equiv="refresh" content="0; url=docs/index.html"><title>ecvae_jax</title>' >"$site/index.html"
echo "written: $site/index.html" >&2
