#!/usr/bin/env bash
# Trains on a TPU slice of a GKE cluster: fills launch/gke.yaml, a JobSet, and gives it to kubectl. docs/pods.md has the
# cluster, the image and the volume that it needs.
# usage: bash launch/gke.sh --name NAME --image IMAGE --claim CLAIM --accelerator tpu-v5-lite-podslice --topology 16x16
#        [--chips-per-host 4] [--restarts 100] [--namespace NAMESPACE] [--dry-run]
#        -- CONFIG --workdir /shared/runs/NAME [options of `ecvae train`]
# CLAIM, a PersistentVolumeClaim that many nodes may write, appears as /shared. --dry-run prints the JobSet and applies nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'launch: %s\n' "$*" >&2; }
refuse() {
  say "$@"
  exit 2
}

declare -A value=([chips]='' [restarts]=100 [namespace]='')
dry=false
training=()
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry=true ;;
    --name | --image | --claim | --accelerator | --topology | --restarts | --namespace | --chips-per-host)
      [ $# -ge 2 ] && [[ $2 != -* ]] || refuse "$1: a value is missing"
      key=${1#--}
      value[${key%-per-host}]=$2
      shift
      ;;
    --)
      shift
      training=("$@")
      break
      ;;
    *) refuse "$1: no such option; those of the training go behind --, and the head of launch/gke.sh lists the rest" ;;
  esac
  shift
done

check() { # OPTION PATTERN RULE
  [[ ${value[$1]:-} =~ ^($2)$ ]] || refuse "--$1 '${value[$1]:-}': must be $3"
}
check name '[a-z]([-a-z0-9]{0,38}[a-z0-9])?' "at most 40 small letters, digits and -, as my-run"
check image '[A-Za-z0-9][A-Za-z0-9._/:@-]*' "an image, as europe-docker.pkg.dev/PROJECT/REPOSITORY/ecvae:1"
check claim '[a-z0-9]([-a-z0-9.]*[a-z0-9])?' "a PersistentVolumeClaim that many nodes may write"
check accelerator '[a-z0-9-]+' "what the label cloud.google.com/gke-tpu-accelerator of the nodes says, as tpu-v5-lite-podslice"
check topology '[1-9][0-9]*(x[1-9][0-9]*){1,2}' "the chips of the slice, as 4x4 or 2x2x4"
check namespace '[a-z0-9-]*' "small letters, digits and -"
check restarts '[0-9]+' "a number"

chips=$((${value[topology]//x/*}))
value[chips]=${value[chips]:-$((chips < 4 ? chips : 4))}
check chips '1|4|8' "1, 4 or 8 (--chips-per-host)"
[ $((chips % value[chips])) -eq 0 ] || refuse "--topology ${value[topology]}: its $chips chips are no whole number of hosts of ${value[chips]} chips"
value[hosts]=$((chips / value[chips]))

text() { # a word as a string of JSON, and so of YAML, that Kubernetes gives to the container as it is
  local word=$1
  [[ $word != *[[:cntrl:]]* ]] || refuse "the argument '$word': must have no line breaks or other control characters"
  word=${word//\\/\\\\}
  word=${word//\$/\$\$} # Kubernetes reads $(NAME) and $$ in arguments
  printf '"%s"' "${word//\"/\\\"}"
}

[[ ${training[0]:-} == *.py && ${training[0]} != -* ]] || refuse "the config is missing; it goes first behind --, as -- configs/paper_256.py"
workdir=''
arguments=''
for word in "${training[@]}" --hosts auto; do
  if [[ $workdir == next ]]; then workdir=$word; fi
  case $word in --workdir) workdir=next ;; --workdir=*) workdir=${word#*=} ;; esac
  word=$(text "$word") || exit 2
  arguments+="${arguments:+, }$word"
done
[[ $workdir == /shared/* ]] || refuse "--workdir '$workdir': must be a folder in /shared, where --claim appears"
value[arguments]="[$arguments]"

fill() { # every ${name} of the text; one that has no value is refused
  local rest=$1 name
  while [[ $rest =~ \$\{([a-z_]+)\} ]]; do
    name=${BASH_REMATCH[1]}
    [ -n "${value[$name]:-}" ] || refuse "launch/gke.yaml: \${$name} has no value; the fields that can be filled are in launch/gke.sh"
    printf '%s%s' "${rest%%"\${$name}"*}" "${value[$name]}"
    rest=${rest#*"\${$name}"}
  done
  printf '%s\n' "$rest"
}

jobset=$(fill "$(<launch/gke.yaml)")
kubectl=(kubectl)
if [ -n "${value[namespace]}" ]; then kubectl+=("--namespace=${value[namespace]}"); fi
if $dry; then
  printf '%s\n' "# would be given to: ${kubectl[*]} apply -f -" "$jobset"
  exit 0
fi
if ! command -v kubectl >/dev/null; then
  say "kubectl is needed and was not found; install it, and name the cluster: gcloud container clusters get-credentials"
  exit 1
fi
"${kubectl[@]}" apply -f - <<<"$jobset"
process0=jobset.sigs.k8s.io/jobset-name=${value[name]},batch.kubernetes.io/job-completion-index=0
say "log of process 0: ${kubectl[*]} logs --follow --selector=$process0"
say "to stop, and to stop paying: ${kubectl[*]} delete jobset ${value[name]}; the same command then goes on"
