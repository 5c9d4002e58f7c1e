# shellcheck shell=bash disable=SC2154 # launch/tpu_pod.sh sets the variables
# Sourced by launch/tpu_pod.sh: its messages and its calls of gcloud and of the workers, real or dry. Needs $dry, $name, $zone
# and $project.
child='' state='' answer='' looks=0 words=()

say() { printf 'launch: %s\n' "$*" >&2; }
refuse() {
  say "$@"
  exit 2
}

quoted() { # WORDS: prints one line that bash reads as the same words
  local word line=''
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=+,@%-]+$ ]] || word=${word@Q}
    line+="${line:+ }$word"
  done
  printf '%s' "$line"
}

show() { # a dry run prints commands on stdout; a real run leaves stdout to the log of worker 0
  if $dry; then printf '+ %s\n' "$(quoted "$@")"; else printf '+ %s\n' "$(quoted "$@")" >&2; fi
}

run() { # in the background, so that bash handles Ctrl-C at once
  show "$@"
  if $dry; then return; fi
  "$@" &
  child=$!
  wait "$child"
}

pause() { if ! $dry; then sleep "${ECVAE_POLL:-20}" & wait $!; fi; }

tpus() { # VERB ARGUMENTS…: sets $words to the command of gcloud
  words=(gcloud compute tpus "$@" "--zone=$zone" "${project[@]}" --quiet)
}

remote() { # WORKER COMMAND: bash runs it in the home folder of the worker
  tpus tpu-vm ssh "$name" "--worker=$1" "--command=$2" "${@:3}"
  run "${words[@]}"
}

on_worker() { # WORKER VERB…: runs launch/tpu_worker.sh there
  remote "$1" "bash ecvae/launch/tpu_worker.sh $(quoted "${@:2}")"
}

ask() { # COMMAND…: runs it with the output in $answer
  if $dry; then
    show "$@"
    answer=''
    return
  fi
  answer=$("$@" 2>&1)
}

look() { # sets $state: that of the request, once it is fulfilled that of the pod; NONE: no request; UNKNOWN: no answer
  local before=$state
  if $dry; then
    looks=$((looks + 1))
    state=$([ "$looks" -eq 1 ] && echo NONE || echo READY)
  fi
  tpus queued-resources describe "$name" "--format=value(state.state)"
  ask "${words[@]}" || answer="failed: $answer"
  if [[ $answer == *ACTIVE ]]; then
    tpus tpu-vm describe "$name" "--format=value(state)"
    ask "${words[@]}" || answer="failed: $answer"
  fi
  if $dry; then return; fi
  case $answer in
    failed:*NOT_FOUND* | failed:*"not found"*) state=NONE ;;
    failed:*) state=UNKNOWN ;;
    *) state=${answer##*$'\n'} ;;
  esac
  if [[ $state != "$before" ]]; then say "$name is $state"; fi
  if [[ $state == UNKNOWN ]]; then say "${answer#failed: }"; fi
}
