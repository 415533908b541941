#!/bin/bash
# The demo on a machine with Docker and without root: a kind cluster with SSH to its node, as a user's cluster has, and a stack
# for it. .github/workflows/kind-e2e.yml makes its cluster and its stack with the same commands.
#
#   kind.sh up        cluster, stack, `pulumi up`, and wait until Jenkins answers
#   kind.sh cluster   the cluster, and SSH to its node
#   kind.sh stack     the stack "kind"
#   kind.sh env       print the exports that put kubectl, Pulumi's backend and passphrase in place
#   kind.sh down      remove all of it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cluster=build-platform
node=$cluster-control-plane
domain=jenkins.kind.test
# Ports of this machine's loopback that lead to the node: Docker Desktop's containers have no address that the machine reaches.
http_port=8080
ssh_port=2222
state=${BUILD_PLATFORM_CACHE:-$HOME/.cache/build-platform}/kind
key=$state/id_ed25519

environment() {
  cat <<EOF
export KUBECONFIG="$state/kubeconfig"
export PULUMI_BACKEND_URL="file://$state/pulumi"
export PULUMI_CONFIG_PASSPHRASE="kind"
EOF
}

say() { printf ' • %s\n' "$*" >&2; }

need() {
  local missing=()
  for program in docker kind kubectl npm pulumi ssh-keygen; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  if ((${#missing[@]} > 0)); then
    echo "kind: not on PATH: ${missing[*]}; install them, or run the demo as root on a machine that the sandbox runs on (README.md)" >&2
    exit 1
  fi
  if ! docker info >/dev/null 2>&1; then
    echo "kind: docker does not answer ('docker info' fails): start Docker, or let this user use it" >&2
    exit 1
  fi
}

on_node() { docker exec --interactive "$node" "$@"; }

make_cluster() {
  need
  mkdir -p "$state/pulumi"
  if ! grep -qx "$cluster" <<<"$(kind get clusters 2>/dev/null)"; then
    say "kind cluster $cluster"
    # No image is named: each release of kind brings the node image that it was tested with, by digest.
    kind create cluster --name "$cluster" --wait 180s --config - <<EOF
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
    extraPortMappings:
      - {containerPort: 80, hostPort: $http_port, listenAddress: 127.0.0.1}
      - {containerPort: 22, hostPort: $ssh_port, listenAddress: 127.0.0.1}
EOF
  fi
  [[ -e $key ]] || ssh-keygen -q -t ed25519 -N '' -f "$key"
  say "SSH to its node"
  on_node sh -c 'command -v sshd >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends openssh-server; } && systemctl enable --now ssh' >/dev/null </dev/null
  on_node sh -c 'install -d -m 700 /root/.ssh && cat > /root/.ssh/authorized_keys' <"$key.pub"
}

make_stack() {
  local host_key
  if [[ ! -e Pulumi.kind.yaml ]]; then
    host_key=$(on_node cat /etc/ssh/ssh_host_ed25519_key.pub </dev/null)
    npm run --silent new-env -- kind --yes --domain "$domain" --context "kind-$cluster" --kubeconfig "$state/kubeconfig" \
      --storage-size 2Gi --node "$node=127.0.0.1" --host-key "$node=$host_key" --key "$key"
  fi
  pulumi stack select --create kind
  # A laptop's share of memory, and a volume that goes with the cluster.
  pulumi config set --stack kind protectHome false
  pulumi config set --stack kind --path controlPlane.port "$ssh_port"
  pulumi config set --stack kind --path controller.resources.requests.cpu 250m
  pulumi config set --stack kind --path controller.resources.requests.memory 1Gi
  pulumi config set --stack kind --path controller.resources.limits.memory 2Gi
}

bring_up() {
  make_cluster
  make_stack
  pulumi up --stack kind --yes --skip-preview
  sandbox/await-login.sh "$domain" "127.0.0.1:$http_port" 120
  cat <<EOF

Jenkins answers on http://$domain:$http_port once this machine's hosts file has the line "127.0.0.1 $domain". Every part is the real
one: the images of images/upstream.json and Pulumi's own plugins, on kind. Try:
  eval "\$(sandbox/kind.sh env)"
  pulumi stack output --stack kind
  $(pulumi stack output adminPasswordCommand --stack kind)
'make down' removes everything.
EOF
}

take_down() {
  if command -v kind >/dev/null; then kind delete cluster --name "$cluster"; fi
  rm -rf -- "$state" Pulumi.kind.yaml
}

eval "$(environment)"
case ${1:-} in
up) bring_up ;;
cluster) make_cluster ;;
stack) make_stack ;;
env) environment ;;
down) take_down ;;
*)
  sed -n '2,/^set /p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p' >&2
  exit 2
  ;;
esac
