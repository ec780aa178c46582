#!/usr/bin/env bash
# A kind cluster of three nodes with BerthLB, a pool of addresses that are free on its network, and a demo Service.
#
#   examples/kind/up.sh [--no-pull] [--engine docker|podman]
#
#   --no-pull     nothing is pulled: the base image and the node image have to be there
#   --engine      docker (the default) or podman
#   KIND_CLUSTER_NAME   the cluster's name (default: kind)
#   KIND_IMAGE          the image of its nodes (default: the one of your kind)
#   BASE_IMAGE          what our images are built on (default: the one in Dockerfile.speaker)
#   PYTHON              Python 3.11 or newer, for berthlb kind-pool (default: python3)
#
# Safe to run again: what is there stays, what is missing is made, changed daemons are restarted. Needs kind, kubectl and
# an engine. README.md, beside this, has what differs on macOS and Windows. Works with bash 3.2, which macOS has.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
here=$root/examples/kind
cluster=${KIND_CLUSTER_NAME:-kind}
engine=docker
pull=true
patience=300s # of kubectl, for what a slow laptop takes

fail() {
  echo "up.sh: $*" >&2
  exit 2
}

say() { echo "up.sh: $*" >&2; }

while [ $# -gt 0 ]; do
  case $1 in
  --no-pull) pull=false ;;
  --engine=*) engine=${1#*=} ;;
  --engine)
    [ $# -gt 1 ] || fail "--engine needs docker or podman"
    engine=$2
    shift
    ;;
  *) fail "$1 is no option of this; there are --no-pull and --engine docker|podman" ;;
  esac
  shift
done
case $engine in
docker) network=${KIND_EXPERIMENTAL_DOCKER_NETWORK:-kind} ;;
podman) network=${KIND_EXPERIMENTAL_PODMAN_NETWORK:-kind} ;;
*) fail "--engine is docker or podman, not $engine" ;;
esac
export KIND_EXPERIMENTAL_PROVIDER=$engine

need() { # PROGRAM WHERE
  command -v "$1" >/dev/null || fail "$1 is not on PATH; $2"
}

have_image() { "$engine" image inspect "$1" >/dev/null 2>&1; }

# What is missing is said before anything is made.
check() {
  need "$engine" "install it, or name the other one with --engine"
  need kind "see https://kind.sigs.k8s.io/docs/user/quick-start/"
  need kubectl "see https://kubernetes.io/docs/tasks/tools/"
  local said
  said=$("$engine" ps --quiet 2>&1 >/dev/null) || fail "$engine does not answer: $(echo "$said" | tail -n 1)"
  base=${BASE_IMAGE:-$(sed -n 's/^ARG BASE_IMAGE=//p' "$root/Dockerfile.speaker")}
  if [ $pull = false ]; then
    have_image "$base" || fail "$base is not there, and with --no-pull it is not pulled; set BASE_IMAGE to an image that has Python"
    if ! exists; then
      [ -n "${KIND_IMAGE:-}" ] || fail "with --no-pull, set KIND_IMAGE to a node image that is there"
      have_image "$KIND_IMAGE" || fail "$KIND_IMAGE is not there, and with --no-pull it is not pulled"
    fi
  fi
  python=$root/.venv/bin/python
  "$python" -c 'import msgspec, yaml' 2>/dev/null || make_python
}

# berthlb kind-pool needs a Python with two libraries; they come from the lock file.
make_python() {
  "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "${PYTHON:-python3} is not Python 3.11 or newer; name one with PYTHON=..."
  say "installing requirements/runtime.txt into .venv"
  "${PYTHON:-python3}" -m venv "$root/.venv" || fail "python3 cannot make a venv; on Debian: apt-get install python3-venv"
  "$python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$root/requirements/runtime.txt" ||
    fail "pip could not install requirements/runtime.txt"
}

exists() { kind get clusters 2>/dev/null | grep -Fqx -- "$cluster"; }

kubectl() { command kubectl --context "kind-$cluster" "$@"; }

# An image is loaded under a name of its own content: one that was built anew restarts its pods, and nothing else does.
# Podman needs the registry's name, which Docker adds itself.
build() {
  [ $pull = false ] || have_image "$base" || "$engine" pull "$base" || fail "$base cannot be pulled; name another with BASE_IMAGE"
  version=$(sed -n 's|^ *image: berthlb/controller:||p' "$root/deploy/berthlb.yaml" | head -n 1)
  build_one controller
  controller=$image
  build_one speaker
  speaker=$image
}

build_one() { # DAEMON
  local commit id built=docker.io/berthlb/$1:$version
  commit=$(git -C "$root" describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null || echo unknown)
  say "building the image of the $1"
  "$engine" build --quiet --file "$root/Dockerfile.$1" --tag "$built" --build-arg "BASE_IMAGE=$base" \
    --build-arg "VERSION=$version" --build-arg "COMMIT=$commit" "$root" >/dev/null || fail "the image of the $1 cannot be built"
  id=$("$engine" image inspect --format '{{.Id}}' "$built")
  id=${id#sha256:}
  image=$built-${id:0:12}
  "$engine" tag "$built" "$image"
}

create() {
  if exists; then
    say "cluster $cluster is there"
    kind export kubeconfig --name "$cluster" >/dev/null 2>&1 || fail "cluster $cluster does not run; start its nodes, or run down.sh"
    return
  fi
  say "making cluster $cluster"
  # Without --image kind takes its own.
  kind create cluster --name "$cluster" ${KIND_IMAGE:+--image "$KIND_IMAGE"} --config "$here/cluster.yaml" --wait 3m ||
    fail "kind could not make the cluster; what it left is removed by down.sh"
}

load() {
  local each archive
  say "loading the images"
  if [ "$engine" = docker ]; then
    kind load docker-image --name "$cluster" "$controller" "$speaker" >/dev/null
    return
  fi
  archive=$(mktemp -d)
  for each in "$controller" "$speaker"; do # kind asks docker for images by name; from podman they go by way of a file
    podman save --quiet --output "$archive/image.tar" "$each"
    kind load image-archive --name "$cluster" "$archive/image.tar"
    rm "$archive/image.tar"
  done
  rmdir "$archive"
}

install() {
  say "installing BerthLB"
  sed "s|image: berthlb/controller:$version|image: $controller|; s|image: berthlb/speaker:$version|image: $speaker|" \
    "$root/deploy/berthlb.yaml" | kubectl apply -f - >/dev/null
  ready --namespace metallb-system deployment/berthlb-controller
  ready --namespace metallb-system daemonset/berthlb-speaker
}

ready() {
  kubectl rollout status --timeout "$patience" "$@" >/dev/null ||
    fail "its pods do not become ready; see: kubectl --context kind-$cluster describe $*"
}

# Asked twice: of two clusters that took the same addresses at the same time, one moves.
pool() {
  local manifest before=
  for _ in 1 2 3; do
    manifest=$(cd "$root" && "$python" -m cli kind-pool --engine "$engine" --network "$network" --cluster "$cluster") ||
      fail "there is no pool"
    [ "$manifest" != "$before" ] || break
    echo "$manifest" | kubectl apply -f - >/dev/null
    before=$manifest
  done
  echo "$manifest" | sed -n 's/^  - \([0-9a-f:.]*-[0-9a-f:.]*\)$/up.sh: the pool has \1/p' >&2
}

demo() {
  sed "s|IMAGE|$controller|" "$here/demo.yaml" | kubectl apply -f - >/dev/null
  ready --namespace default deployment/berthlb-demo
  kubectl wait --namespace default --for=condition=berthlb.io/AddressAssigned --timeout "$patience" service/berthlb-demo >/dev/null ||
    fail "it gets no address; see: kubectl --context kind-$cluster describe service berthlb-demo"
  address=$(kubectl get --namespace default service berthlb-demo -o 'jsonpath={.status.loadBalancer.ingress[0].ip}')
}

# The host is on the network where its route there has no gateway; in a virtual machine's network it is not.
on_network() {
  local route
  route=$(ip route get "$1" 2>/dev/null) && ! echo "$route" | grep -q ' via '
}

ask() {
  local url curl=(curl --silent --show-error --fail --output /dev/null --retry 20 --retry-delay 1 --retry-all-errors --max-time 5)
  local node_image
  case $address in *:*) url=http://[$address]/ ;; *) url=http://$address/ ;; esac
  node_image=$("$engine" inspect --format '{{.Image}}' "$cluster-control-plane")
  # A node image has curl, and is there already.
  "$engine" run --rm --network "$network" --entrypoint curl "$node_image" "${curl[@]:1}" "$url" ||
    fail "a container on network $network gets no answer from $url; see examples/kind/README.md"
  say "$url answers a container on network $network"
  if on_network "$address"; then
    "${curl[@]}" "$url" || fail "this machine gets no answer from $url; see examples/kind/README.md"
    say "$url answers this machine"
  else
    say "this machine is not on network $network; examples/kind/README.md says how to reach it from here"
  fi
}

check
build
create
load
install
pool
demo
ask
echo "$address"
