#!/usr/bin/env bash
# Emulates a pod: trains in N processes on this machine, each a "host" with M virtual CPU devices.
# usage: bash launch/local_multiprocess.sh N M CONFIG --workdir DIR [--section.field VALUE ...]
# Process 0 prints on the terminal, the others to DIR/host-I.log. Ctrl-C and SIGTERM stop all after the same step. The exit
# code is the first nonzero one in the order of the processes, else 0. $ECVAE_PORT sets the port (default: a free one).
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  echo "usage: bash launch/local_multiprocess.sh PROCESSES DEVICES CONFIG --workdir DIR [--section.field VALUE ...]" >&2
  exit 2
}

[ $# -ge 5 ] || usage
processes=$1 devices=$2
shift 2
for number in "$processes" "$devices"; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || usage
done
workdir=
for ((i = 1; i < $#; i++)); do
  if [ "${!i}" = --workdir ]; then
    next=$((i + 1))
    workdir=${!next}
  fi
done
[ -n "$workdir" ] || usage

. launch/environment.sh ""
port=${ECVAE_PORT:-$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}
mkdir -p "$workdir"
export JAX_PLATFORMS=cpu
export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$devices"

pids=()
for ((index = 0; index < processes; index++)); do
  log=$workdir/host-$index.log
  [ "$index" -gt 0 ] || log=/dev/stderr
  "$PYTHON" -m ecvae_jax train "$@" --hosts "$index/$processes@127.0.0.1:$port" 2>>"$log" &
  pids+=($!)
done
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' INT TERM

code=0
for pid in "${pids[@]}"; do
  # A signal interrupts `wait`: repeat it until the process has ended.
  while kill -0 "$pid" 2>/dev/null; do
    wait "$pid" && ended=0 || ended=$?
  done
  wait "$pid" && ended=0 || ended=$?
  [ "$code" -ne 0 ] || code=$ended
done
exit "$code"
