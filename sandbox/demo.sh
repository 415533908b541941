#!/bin/bash
# Starts the sandbox, writes a stack file as a new user does, brings the stack up and waits until Jenkins answers on port 80 of the
# node; `demo.sh down` removes all. Without root there is no sandbox: the demo runs on kind then.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ $(id -u) != 0 ]]; then
  [[ ${1:-} == down ]] || echo "Not root here: the demo runs on kind, in Docker (sandbox/kind.sh), not on the sandbox." >&2
  exec sandbox/kind.sh "${1:-up}"
fi
file=Pulumi.demo.yaml
# Somebody's own environment of that name stays theirs.
ours() { grep -qx '  build-platform:kubeContext: kubernetes-admin@sandbox' "$file"; }
if [[ ${1:-} == down ]]; then
  if [[ -e $file ]] && ours; then rm "$file"; fi
  exec npm run -s sandbox -- down
fi

if [[ -e $file ]] && ! ours; then
  echo "$file is another cluster's, and the demo's stack has that name: rename yours (stack file, and pulumi stack rename) first." >&2
  exit 1
fi

domain=jenkins.demo.test node=10.88.0.2
sandbox() { npm run -s sandbox -- "$@"; }

sandbox up --images auto
eval "$(sandbox env)"
if ! pulumi stack select demo 2>/dev/null; then
  # The file of another sandbox names nodes that are gone.
  rm -f "$file"
  ssh=$(dirname "$KUBECONFIG")/ssh
  npm run -s new-env -- demo --yes --domain "$domain" --context kubernetes-admin@sandbox --kubeconfig "$KUBECONFIG" --storage-size 2Gi \
    --node "control-plane-1=$node" --host-key "control-plane-1=$ssh/control-plane-1.hostkey.pub" --key "$ssh/id_ed25519"
  pulumi stack init demo
fi
# A small machine's share, so that two processors have room for an agent; ingress-nginx, which needs no compiling where its image cannot be
# had, as Traefik would for minutes; and those images that cannot be had from here.
settings=(ingress.controller=nginx controller.resources.requests.cpu=100m controller.resources.requests.memory=1Gi controller.resources.limits.memory=2Gi)
stand_ins=$(sandbox stand-ins)
mapfile -t -O ${#settings[@]} settings <<<"$stand_ins"
for each in "${settings[@]}"; do [[ -z $each ]] || plain+=("--plaintext=$each"); done
pulumi config set-all --stack demo --path "${plain[@]}"
pulumi up --stack demo --yes --skip-preview
sandbox/await-login.sh "$domain" "$node" 60

printf '\nWhat is real here, and what stands in for it:\n'
sandbox origins

# Stand-ins lie in the sandbox's registry, which speaks plain HTTP.
plain_http=""
if [[ $stand_ins =~ images\.[^=]*=([^/]*)/ ]]; then plain_http=" --plain-http ${BASH_REMATCH[1]}"; fi
cat <<EOT

Jenkins answers 200 on port 80 of the node. $file is all that the stack was told: what npm run new-env writes, with
ingress-nginx in place of Traefik, and an image for each stand-in. The images it needs were built in the cluster, into a registry
that the stack brings. Try:
  curl -H 'Host: $domain' http://$node/login
  eval "\$(npm run -s sandbox -- env)"
  npm run smoke -- demo
  pulumi stack output --stack demo
  npm run bundle -- demo$plain_http
  $(pulumi stack output adminPasswordCommand --stack demo)
'make down' removes everything.
EOT
