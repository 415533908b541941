#!/bin/bash
# await-login.sh DOMAIN ADDRESS SECONDS: waits until Jenkins' login page answers 200 at http://ADDRESS for DOMAIN.
set -euo pipefail
domain=$1 address=$2 seconds=$3 code=000

for _ in $(seq "$seconds"); do
  code=$(curl -s -o /dev/null -w '%{http_code}' -H "Host: $domain" "http://$address/login" || true)
  if [[ $code == 200 ]]; then exit 0; fi
  sleep 1
done
echo "http://$address/login with Host: $domain answers $code, not 200; see: kubectl -n jenkins get pods" >&2
exit 1
