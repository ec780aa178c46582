#!/usr/bin/env bash
# Deletes the kind cluster that up.sh made, with everything in it. Safe to run again.
#
#   examples/kind/down.sh [--engine docker|podman]
#
# KIND_CLUSTER_NAME is the cluster's name (default: kind). The images and the engine's network stay.
set -euo pipefail
engine=docker

fail() {
  echo "down.sh: $*" >&2
  exit 2
}

while [ $# -gt 0 ]; do
  case $1 in
  --engine=*) engine=${1#*=} ;;
  --engine)
    [ $# -gt 1 ] || fail "--engine needs docker or podman"
    engine=$2
    shift
    ;;
  *) fail "$1 is no option of this; there is --engine docker|podman" ;;
  esac
  shift
done
case $engine in
docker | podman) ;;
*) fail "--engine is docker or podman, not $engine" ;;
esac
command -v kind >/dev/null || fail "kind is not on PATH"
KIND_EXPERIMENTAL_PROVIDER=$engine kind delete cluster --name "${KIND_CLUSTER_NAME:-kind}"
