#!/bin/bash
# Starts the sandbox, reconciles the stack onto it and waits until Jenkins answers on port 80 of the node; `demo.sh down` removes all.
# Without root there is no sandbox: the demo runs on kind then.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ $(id -u) != 0 ]]; then
  [[ ${1:-} == down ]] || echo "Not root here: the demo runs on kind, in Docker (sandbox/kind.sh), not on the sandbox." >&2
  exec sandbox/kind.sh "${1:-up}"
fi
if [[ ${1:-} == down ]]; then exec npm run -s sandbox -- down; fi

npm run -s sandbox -- up --images auto
eval "$(npm run -s sandbox -- env)"
pulumi stack select --create sandbox
pulumi up --stack sandbox --yes --skip-preview

domain=$(pulumi config get domain --stack sandbox)
node=10.88.0.2
sandbox/await-login.sh "$domain" "$node" 60

printf '\nWhat is real here, and what stands in for it:\n'
npm run -s sandbox -- origins

cat <<EOF

Jenkins answers 200 on port 80 of the node. Try:
  curl -H 'Host: $domain' http://$node/login
  eval "\$(npm run -s sandbox -- env)"
  pulumi stack output --stack sandbox
  $(pulumi stack output adminPasswordCommand --stack sandbox)
'make down' removes everything.
EOF
