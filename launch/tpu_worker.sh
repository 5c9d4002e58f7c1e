#!/usr/bin/env bash
# The commands that launch/tpu_pod.sh runs on every worker of a TPU pod, where it ships this script with the code.
# usage: bash launch/tpu_worker.sh setup [--bucket NAME | --nfs SERVER:/SHARE] | start ARGUMENTS… | follow [LINES] |
#        result | stop | running | log
# The training outlives the ssh session that started it. ~/ecvae-run holds its log, the pids of the training and of its
# keeper, and finally its exit code.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$HOME/ecvae-run
shared=/mnt/ecvae
export ECVAE_VENV=${ECVAE_VENV:-$HOME/ecvae-venv} # outside the code, which every start replaces

install() {
  # A machine that has just started holds the lock of apt for its automatic upgrades.
  sudo DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 update
  sudo DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 install -y "$@"
}

provide_python() {
  local candidate
  [ -z "${ECVAE_READY_PYTHON:-}" ] || return 0
  for candidate in python3.12 python3.11 python3.13; do
    if "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then return 0; fi
  done
  # The TPU images are Ubuntu 22.04 with Python 3.10.
  sudo add-apt-repository -y ppa:deadsnakes/ppa >/dev/null
  install python3.12 python3.12-venv
}

mount_shared() {
  if mountpoint -q "$shared"; then return 0; fi
  sudo mkdir -p "$shared"
  case ${1:-} in
    --bucket)
      sudo chown "$(id -u)" "$shared"
      command -v gcsfuse >/dev/null || install gcsfuse || {
        echo "launch: gcsfuse was not found on $(hostname), nor by apt; use --nfs, or an image with gcsfuse" >&2
        return 1
      }
      # A checkpoint is renamed when it is complete; by default gcsfuse refuses to rename folders of flat buckets.
      gcsfuse --implicit-dirs --rename-dir-limit=100000 "$2" "$shared"
      ;;
    --nfs)
      command -v mount.nfs >/dev/null || install nfs-common
      sudo mount -t nfs "$2" "$shared"
      sudo chmod 1777 "$shared"
      ;;
  esac
}

setup() {
  provide_python
  mount_shared "$@"
  # shellcheck source=launch/environment.sh
  . launch/environment.sh tpu
}

running() {
  [ -e "$folder/keeper" ] && [ ! -e "$folder/exit" ] && kill -0 "$(<"$folder/keeper")" 2>/dev/null
}

start() {
  mkdir -p "$folder"
  if [ -e "$folder/log" ]; then mv "$folder/log" "$folder/log.$(date +%s)"; fi
  rm -f "$folder/exit" "$folder/training"
  : >"$folder/log"
  setsid nohup bash launch/tpu_worker.sh keep "$@" </dev/null >>"$folder/log" 2>&1 &
  echo $! >"$folder/keeper"
}

keep() { # outlives the ssh session: runs the training and stores its exit code
  # shellcheck source=launch/environment.sh
  . launch/environment.sh tpu
  trap : TERM # a shutdown sends it to all processes: the training stores its state, and the keeper waits
  "$PYTHON" -m ecvae_jax train "$@" --hosts auto &
  local training=$! code=0
  echo "$training" >"$folder/training"
  wait "$training" || code=$?
  while kill -0 "$training" 2>/dev/null; do
    code=0
    wait "$training" || code=$?
  done
  echo "$code" >"$folder/exit.part"
  mv "$folder/exit.part" "$folder/exit"
}

result() {
  if [ -e "$folder/exit" ]; then
    cat "$folder/exit"
  elif running; then
    echo running
  else
    echo 137 # the keeper was killed with the training
  fi
}

stop() {
  running || return 0
  kill -TERM "$(cat "$folder/training" 2>/dev/null || cat "$folder/keeper")"
  for _ in $(seq 120); do
    if ! running; then
      echo "launch: the training on $(hostname) has stopped with exit code $(result)"
      return 0
    fi
    sleep 0.5
  done
  echo "launch: the training on $(hostname) did not stop within 60 s" >&2
  return 1
}

case ${1:-} in
  setup | start | keep | stop | running | result) "$@" ;;
  follow) tail -s 0.2 -n "${2:-+1}" --pid="$(<"$folder/keeper")" -f "$folder/log" ;;
  log) cat "$folder/log" ;;
  *)
    echo "usage: bash launch/tpu_worker.sh setup | start | follow | result | stop | running | log" >&2
    exit 2
    ;;
esac
