#!/bin/sh
# Stands in for the Jenkins image's jenkins.sh: options alone start the controller, anything else is a command.
set -eu
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then exec "$@"; fi
# One stream for all logs; a small heap, since the adapter only passes things on.
exec node --max-old-space-size=96 /usr/share/jenkins/adapter.js "$@" 2>&1
