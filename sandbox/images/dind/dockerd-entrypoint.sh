#!/bin/sh
# Stands in for the entrypoint of docker.io/library/docker:dind; TLS is left out, so DOCKER_TLS_CERTDIR must be empty.
set -eu

# As upstream: options alone are added to the default listeners; "dockerd ..." is taken as it is; all else is a command.
if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
  if [ -n "${DOCKER_TLS_CERTDIR-}" ]; then
    echo "dockerd-entrypoint.sh: TLS is not part of this image; set DOCKER_TLS_CERTDIR to an empty value" >&2
    exit 1
  fi
  set -- dockerd --host=unix:///var/run/docker.sock --host=tcp://0.0.0.0:2375 "$@"
fi
if [ "$1" = dockerd ]; then
  # A restarted container finds the old process numbers.
  find /run /var/run -iname 'docker*.pid' -delete 2>/dev/null || :
  # The kernel may carry only one of the two iptables back ends.
  if ! iptables -nL >/dev/null 2>&1; then
    update-alternatives --set iptables /usr/sbin/iptables-legacy >/dev/null
    update-alternatives --set ip6tables /usr/sbin/ip6tables-legacy >/dev/null
  fi
  set -- tini -s -- "$@"
fi
exec "$@"
