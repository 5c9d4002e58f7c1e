#!/usr/bin/env bash
# Trains on a Cloud TPU pod: requests it, ships this checkout, creates the environment on every worker, starts the training,
# follows the log of worker 0, requests a new pod after a preemption, and deletes the pod at the end.
# usage: bash launch/tpu_pod.sh --name NAME --zone ZONE --type v5litepod-256 (--bucket BUCKET | --nfs SERVER:/SHARE)
#        [--spot] [--project PROJECT] [--version IMAGE] [--attempts 20] [--keep] [--dry-run]
#        -- CONFIG --workdir /mnt/ecvae/runs/NAME [options of `ecvae train`]
# Every worker mounts the bucket or share at /mnt/ecvae. --dry-run only prints the commands. After Ctrl-C the training stores
# its state; the same command resumes it. $ECVAE_POLL: seconds between two checks of the pod (20). More: docs/pods.md.
set -euo pipefail
cd "$(dirname "$0")/.."
shared=/mnt/ecvae
command=("$@")
name='' zone='' kind='' version='' attempts=20 spot=false keep=false dry=false
project=() storage=() training=()
state='' code='' pod=unknown phase=waiting fresh=false
# shellcheck source=launch/tpu_gcloud.sh
. launch/tpu_gcloud.sh

read_arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      --spot) spot=true ;;
      --keep) keep=true ;;
      --dry-run) dry=true ;;
      --name | --zone | --type | --version | --project | --bucket | --nfs | --attempts)
        [ $# -ge 2 ] && [[ $2 != -* ]] || refuse "$1: a value is missing"
        case $1 in
          --name) name=$2 ;;
          --zone) zone=$2 ;;
          --type) kind=$2 ;;
          --version) version=$2 ;;
          --attempts) attempts=$2 ;;
          --project) project=("--project=$2") ;;
          --bucket | --nfs)
            [ ${#storage[@]} -eq 0 ] || refuse "$1 $2: give one of --bucket and --nfs, once; both are mounted at $shared"
            storage=("$1" "${2#gs://}")
            ;;
        esac
        shift
        ;;
      --)
        shift
        training=("$@")
        return
        ;;
      *) refuse "$1: unknown option; options of the training go after --; the head of launch/tpu_pod.sh lists the others" ;;
    esac
    shift
  done
}

check_arguments() {
  [[ $name =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]] || refuse "--name '$name': must be lowercase letters, digits and -, such as my-pod"
  [[ $zone =~ ^[a-z]+-[a-z]+[0-9]+-[a-z]$ ]] || refuse "--zone '$zone': must be a zone of Google Cloud, such as us-west4-a"
  [[ $kind =~ ^[a-z0-9]+-[0-9]+$ ]] || refuse "--type '$kind': must be an accelerator type, such as v5litepod-256"
  [[ $attempts =~ ^[1-9][0-9]*$ ]] || refuse "--attempts '$attempts': must be a number, at least 1"
  [ ${#storage[@]} -gt 0 ] || refuse "--bucket or --nfs is missing: checkpoints must outlive the pod, where all workers can read them"
  if [ -z "$version" ]; then
    case $kind in
      v2-* | v3-* | v4-*) version=tpu-ubuntu2204-base ;;
      v5litepod-*) version=v2-alpha-tpuv5-lite ;;
      v5p-*) version=v2-alpha-tpuv5 ;;
      v6e-*) version=v2-alpha-tpuv6e ;;
      *) refuse "--type '$kind': its image is unknown; name one with --version" ;;
    esac
  fi
  local config=${training[0]:-} word workdir=''
  [[ $config != /* && $config != *..* && -f $config ]] || refuse "'$config': must be a config in this checkout, such as -- configs/paper_256.py"
  for word in "${training[@]}"; do
    if [[ $workdir == next ]]; then workdir=$word; fi
    case $word in --workdir) workdir=next ;; --workdir=*) workdir=${word#*=} ;; esac
  done
  [[ $workdir == "$shared"/* ]] || refuse "--workdir '$workdir': must be a folder in $shared, where --bucket and --nfs are mounted"
}

discard() {
  tpus queued-resources delete "$name" --force
  run "${words[@]}" || {
    phase=over
    left_behind
    exit 1
  }
  pod=none
}

left_behind() {
  say "the TPU $name may still exist, and costs money until it is deleted"
  say "  resume: bash launch/tpu_pod.sh $(quoted "${command[@]}")"
  say "  delete: gcloud compute tpus queued-resources delete $name --force --zone=$zone ${project[*]}"
}

leave() { # CODE: deletes the pod, or prints how to, and exits
  phase=over
  case $pod in
    none | unknown) ;;
    *) if $keep; then left_behind; else discard; fi ;;
  esac
  exit "$1"
}

obtain() { # waits until the pod is READY; fails where the request fails
  local asked=false silent=0
  phase=waiting fresh=false
  while :; do
    look
    case $state in
      READY) return 0 ;;
      NONE)
        if $asked; then return 1; fi
        asked=true fresh=true pod=asked
        tpus queued-resources create "$name" "--node-id=$name" "--accelerator-type=$kind" "--runtime-version=$version"
        if $spot; then words+=(--spot); fi
        run "${words[@]}" || {
          say "the request for the TPU failed; see the message of gcloud above"
          exit 1
        }
        ;;
      SUSPENDED | FAILED | PREEMPTED | TERMINATED | STOPPED) return 1 ;;
      UNKNOWN)
        silent=$((silent + 1))
        if [ $silent -gt 30 ] || ! $asked; then exit 1; fi
        ;;
      *) pod=asked ;;
    esac
    pause
  done
}

ship() {
  local archive=ecvae.tgz files=(pyproject.toml README.md LICENSE ecvae_jax launch configs)
  case ${training[0]} in configs/*) ;; *) files+=("${training[0]}") ;; esac
  if ! $dry; then archive=$(mktemp --suffix=.tgz); fi
  run tar -czf "$archive" --exclude=__pycache__ "${files[@]}" || return
  tpus tpu-vm scp "$archive" "$name:ecvae.tgz" --worker=all
  local failed=false
  run "${words[@]}" || failed=true
  if ! $dry; then rm -f "$archive"; fi
  if $failed; then return 1; fi
  remote all "rm -rf ecvae && mkdir ecvae && tar -xzf ecvae.tgz -C ecvae" || return
  on_worker all setup "${storage[@]}"
}

follow() { # until the training has ended; sets $code to its exit code, or to lost
  local lines=+1 tries
  phase=training
  for ((tries = 0; tries < 30; tries++)); do
    on_worker 0 follow "$lines" || true
    tpus tpu-vm ssh "$name" --worker=0 "--command=bash ecvae/launch/tpu_worker.sh result"
    ask "${words[@]}" || answer=''
    if $dry; then answer=0; fi
    case ${answer##*$'\n'} in
      [0-9]*)
        code=${answer##*$'\n'}
        return
        ;;
      running) tries=0 ;;
    esac
    look
    case $state in READY | UNKNOWN) ;; *) break ;; esac
    say "lost the connection to worker 0, where the training continues; connecting again"
    lines=20
    pause
  done
  if [[ $state == UNKNOWN ]]; then
    say "gcloud does not answer; the training may still run"
    exit 1
  fi
  code=lost
}

gone() { # whether the pod was preempted; its state may stay READY for some seconds
  look
  if [[ $state == READY ]]; then
    pause
    look
  fi
  [[ $state != READY ]]
}

fetch_logs() { # of every worker, before the pod is deleted
  local folder=logs/$name/attempt-$attempt
  if $dry; then show mkdir -p "$folder"; else mkdir -p "$folder"; fi
  remote all "bash ecvae/launch/tpu_worker.sh log" "--output-directory=$folder" || true
}

attempt() {
  code=lost
  obtain || return 0
  pod=there
  if ! $fresh; then phase=training; fi
  # If an earlier call has started the training, only follow it.
  if $fresh || ! on_worker 0 running 2>/dev/null; then
    { ship && phase=training && on_worker all start "${training[@]}"; } || {
      if gone; then return 0; fi
      say "the setup of the workers failed; see their messages above"
      leave 1
    }
  fi
  follow
}

# shellcheck disable=SC2329 # the trap calls it
interrupted() {
  trap 'exit 130' INT TERM
  if [ -n "$child" ]; then kill "$child" 2>/dev/null || true; fi
  case $phase in
    waiting) leave 130 ;;
    training)
      say "stopping: the training stores its state on all workers; a second Ctrl-C exits at once"
      on_worker all stop || say "some workers did not answer"
      ;;
  esac
  exit 130
}

read_arguments "$@"
check_arguments
if ! $dry && ! command -v gcloud >/dev/null; then
  say "gcloud was not found; install the Google Cloud CLI"
  exit 1
fi
trap interrupted INT TERM
trap 'case $pod$phase in *over | none* | unknown*) ;; *) left_behind ;; esac' EXIT

for ((attempt = 1; attempt <= attempts; attempt++)); do
  if [ "$attempt" -gt 1 ]; then say "attempt $attempt of $attempts: a new pod"; fi
  attempt
  if [[ $code != lost ]]; then fetch_logs; fi
  case $code in
    0)
      if $dry; then say "dry run; after a preemption a real run repeats all commands, at most $attempts times in all"; fi
      leave 0
      ;;
    2) leave 2 ;;
    lost | 75) ;;
    *)
      if ! gone; then
        say "the training failed with exit code $code; the logs of all workers are in logs/$name/attempt-$attempt"
        leave "$code"
      fi
      ;;
  esac
  discard
done
say "the pod was lost $attempts times; run the same command to resume at the last checkpoint"
exit 75
