#!/usr/bin/env bash
# Trains on a TPU slice of a GKE cluster: fills launch/gke.yaml, a JobSet, and applies it with kubectl. docs/pods.md
# describes the cluster, the image and the volume that it needs.
# usage: bash launch/gke.sh --name NAME --image IMAGE --claim CLAIM --accelerator tpu-v5-lite-podslice --topology 16x16
#        [--chips-per-host 4] [--restarts 100] [--namespace NAMESPACE] [--dry-run]
#        -- CONFIG --workdir /shared/runs/NAME [options of `ecvae train`]
# CLAIM, a PersistentVolumeClaim that many nodes may write, is mounted at /shared. --dry-run only prints the JobSet.
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
    *) refuse "$1: unknown option; options of the training go after --; the head of launch/gke.sh lists the others" ;;
  esac
  shift
done

check() { # OPTION PATTERN RULE
  [[ ${value[$1]:-} =~ ^($2)$ ]] || refuse "--$1 '${value[$1]:-}': must be $3"
}
check name '[a-z]([-a-z0-9]{0,38}[a-z0-9])?' "at most 40 lowercase letters, digits and -, such as my-run"
check image '[A-Za-z0-9][A-Za-z0-9._/:@-]*' "an image, such as europe-docker.pkg.dev/PROJECT/REPOSITORY/ecvae:1"
check claim '[a-z0-9]([-a-z0-9.]*[a-z0-9])?' "a PersistentVolumeClaim that many nodes may write"
check accelerator '[a-z0-9-]+' "the nodes' label cloud.google.com/gke-tpu-accelerator, such as tpu-v5-lite-podslice"
check topology '[1-9][0-9]*(x[1-9][0-9]*){1,2}' "the chips of the slice, such as 4x4 or 2x2x4"
check namespace '[a-z0-9-]*' "lowercase letters, digits and -"
check restarts '[0-9]+' "a number"

chips=$((${value[topology]//x/*}))
value[chips]=${value[chips]:-$((chips < 4 ? chips : 4))}
check chips '1|4|8' "1, 4 or 8 (--chips-per-host)"
[ $((chips % value[chips])) -eq 0 ] || refuse "--topology ${value[topology]}: its $chips chips must be a multiple of the ${value[chips]} chips per host"
value[hosts]=$((chips / value[chips]))

text() { # WORD: prints it as a JSON string, valid YAML, that Kubernetes passes to the container unchanged
  local word=$1
  [[ $word != *[[:cntrl:]]* ]] || refuse "the argument '$word': must not contain line breaks or other control characters"
  word=${word//\\/\\\\}
  word=${word//\$/\$\$} # Kubernetes expands $(NAME) and $$ in arguments
  printf '"%s"' "${word//\"/\\\"}"
}

[[ ${training[0]:-} == *.py && ${training[0]} != -* ]] || refuse "the config is missing; it comes first after --, such as -- configs/paper_256.py"
workdir=''
arguments=''
for word in "${training[@]}" --hosts auto; do
  if [[ $workdir == next ]]; then workdir=$word; fi
  case $word in --workdir) workdir=next ;; --workdir=*) workdir=${word#*=} ;; esac
  word=$(text "$word") || exit 2
  arguments+="${arguments:+, }$word"
done
[[ $workdir == /shared/* ]] || refuse "--workdir '$workdir': must be a folder in /shared, where --claim is mounted"
value[arguments]="[$arguments]"

fill() { # TEXT: prints it with every ${name} replaced; refuses a name without a value
  local rest=$1 name
  while [[ $rest =~ \$\{([a-z_]+)\} ]]; do
    name=${BASH_REMATCH[1]}
    [ -n "${value[$name]:-}" ] || refuse "launch/gke.yaml: \${$name} has no value; launch/gke.sh sets the fields"
    printf '%s%s' "${rest%%"\${$name}"*}" "${value[$name]}"
    rest=${rest#*"\${$name}"}
  done
  printf '%s\n' "$rest"
}

jobset=$(fill "$(<launch/gke.yaml)")
kubectl=(kubectl)
if [ -n "${value[namespace]}" ]; then kubectl+=("--namespace=${value[namespace]}"); fi
if $dry; then
  printf '%s\n' "# input of: ${kubectl[*]} apply -f -" "$jobset"
  exit 0
fi
if ! command -v kubectl >/dev/null; then
  say "kubectl was not found; install it, and select the cluster: gcloud container clusters get-credentials"
  exit 1
fi
"${kubectl[@]}" apply -f - <<<"$jobset"
process0=jobset.sigs.k8s.io/jobset-name=${value[name]},batch.kubernetes.io/job-completion-index=0
say "log of process 0: ${kubectl[*]} logs --follow --selector=$process0"
say "stop, and stop paying: ${kubectl[*]} delete jobset ${value[name]}; run this command again to resume"
