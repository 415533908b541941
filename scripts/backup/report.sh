#!/bin/sh
# Publishes the result of a backup or of its verification, in the pod that ran it: as ConfigMap jenkins-backup-status,
# as an event of the CronJob, as the container's termination message, and as its exit code. Runs in the controller's
# image, for its curl. Usage: report.sh backup|verify|standby
set -eu
KIND=$1
RESULT=${RESULT_FILE:-/scratch/result.json}
ACCOUNT=/var/run/secrets/kubernetes.io/serviceaccount
CRON=jenkins-backup about=Backup
case "$KIND" in
verify) CRON=jenkins-backup-verify about=BackupVerification ;;
standby) about=Standby ;;
esac

if [ ! -s "$RESULT" ]; then
  printf '{"status":"failed","time":"%s","message":"ended without a result, see the log of the pod"}\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$RESULT"
fi
# Texts as they stand in the JSON, with its escapes.
field() { sed -nE "s/.*\"$1\":(\"(([^\"\\\\]|\\\\.)*)\"|([^\",}]*)).*/\\2\\4/p" "$RESULT"; }
quoted() { printf '"%s"' "$(sed 's/\\/\\\\/g; s/"/\\"/g' "$RESULT" | tr -d '\n')"; }
state=$(field status)
cp "$RESULT" /dev/termination-log

# The token goes through a file, never through an argument.
umask 077
printf 'Authorization: Bearer %s\n' "$(cat $ACCOUNT/token)" >/tmp/authorization
namespace=$(cat $ACCOUNT/namespace)
api() {
  curl --silent --show-error --fail --max-time 20 --retry 5 --retry-connrefused --cacert $ACCOUNT/ca.crt -H @/tmp/authorization "$@"
}
server="https://kubernetes.default.svc/api/v1/namespaces/$namespace"

data="\"last-$KIND\":$(quoted)"
if [ "$state" = ok ]; then
  data="$data,\"last-good-$KIND\":$(quoted)"
  # Also read by home.sh: from now on a missing repository is a loss.
  [ "$KIND" != backup ] || data="$data,\"snapshot\":\"$(field snapshot)\""
fi
published=yes
echo "{\"data\":{$data}}" >/tmp/patch.json
api -X PATCH -H 'Content-Type: application/merge-patch+json' --data @/tmp/patch.json "$server/configmaps/jenkins-backup-status" >/dev/null || published=no

[ "$state" = ok ] && type=Normal reason=Succeeded || type=Warning reason=Failed
reason=$about$reason
if [ "$state" = ok ]; then note="snapshot $(field snapshot): $(field items) jobs and folders, $(field builds) builds"; else note=$(field message); fi
now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
uid=$(api "https://kubernetes.default.svc/apis/batch/v1/namespaces/$namespace/cronjobs/$CRON" | sed -n 's/.*"uid": *"\([^"]*\)".*/\1/p' | head -n 1) || uid=
cat >/tmp/event.json <<JSON
{"apiVersion":"v1","kind":"Event","metadata":{"generateName":"$CRON-"},"type":"$type","reason":"$reason","message":"$note",
 "involvedObject":{"apiVersion":"batch/v1","kind":"CronJob","name":"$CRON","namespace":"$namespace","uid":"$uid"},
 "source":{"component":"$CRON"},"firstTimestamp":"$now","lastTimestamp":"$now","count":1}
JSON
api -H 'Content-Type: application/json' --data @/tmp/event.json "$server/events" >/dev/null || published=no
rm -f /tmp/authorization
cat "$RESULT"
[ "$published" = yes ] || echo "report.sh: the result could not be published through the API server; it is in this log and in the pod's termination message" >&2
# Nobody waits for a standby's pod to end, but it tells again what was not published.
if [ "$KIND" = standby ]; then [ "$published" = yes ]; else [ "$state" = ok ]; fi
