#!/bin/sh
# Asks the Jenkins of this pod whether it has loaded every job and build of an inventory (home.sh inventory), and
# prints what it lacks; or with --list in place of the inventory all that it has loaded, a line each, with what it says of
# itself. Runs in the controller's image, for its curl. Usage: controller-check.sh INVENTORY|--list [SECONDS]
# Exit code: 0 all there, 1 something is missing, 2 Jenkins does not answer or refuses.
set -eu
INVENTORY=$1
SECONDS_LEFT=${2:-600}
URL=${JENKINS_URL_LOCAL:-http://127.0.0.1:8080}
CREDENTIALS=${SECRETS:-/run/secrets/jenkins}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Through a file, so that no argument list shows the password.
umask 077
printf 'user = "%s:%s"\n' "$(cat "$CREDENTIALS/admin-user")" "$(sed 's/["\\]/\\&/g' "$CREDENTIALS/admin-password")" >"$work/curl"
ask() { curl --silent --show-error --fail --max-time 60 --config "$work/curl" --cookie-jar "$work/cookies" --cookie "$work/cookies" "$@"; }

end=$(($(date +%s) + SECONDS_LEFT))
until ask -o "$work/answer" "$URL/api/json" 2>"$work/error"; do
  [ "$(date +%s)" -lt "$end" ] || {
    echo "Jenkins does not answer after $SECONDS_LEFT s: $(cat "$work/error")" >&2
    exit 2
  }
  sleep 1
done
ask -o "$work/crumb" "$URL/crumbIssuer/api/json" 2>/dev/null || : >"$work/crumb"
sed -n 's/.*"crumb":"\([^"]*\)".*"crumbRequestField":"\([^"]*\)".*/header = "\2: \1"/p' "$work/crumb" >>"$work/curl"
cat >"$work/script" <<'GROOVY'
def jenkins = hudson.model.Hudson.instance
def home = jenkins.rootDir.absolutePath + '/'
jenkins.getAllItems(hudson.model.Item).each { item ->
  def at = item.rootDir.absolutePath - home
  println 'item\t' + at
  if (item instanceof hudson.model.Job) item.builds.each { println 'build\t' + at + '\t' + it.number }
}
// What one version has and another has not is told by its absence.
def told = { cells -> println cells.collect { ('' + it).replaceAll('\\s+', ' ').trim() }.join('\t') }
def attempt = { work -> try { work() } catch (Throwable error) { told(['trouble', error]) } }
attempt { told(['version', hudson.model.Hudson.VERSION]) }
attempt { jenkins.pluginManager.plugins.each { told(['plugin', it.shortName, it.version, it.active ? 'active' : 'inactive']) } }
attempt { jenkins.pluginManager.failedPlugins.each { told(['failed', it.name, it.cause?.message]) } }
attempt { hudson.model.AdministrativeMonitor.all().findAll { it.enabled && it.activated }.each { told(['monitor', it.id, it.class.simpleName]) } }
attempt {
  hudson.model.AdministrativeMonitor.all().find { it instanceof hudson.diagnosis.OldDataMonitor }.data.each { saveable, data ->
    told([data.extra ? 'unreadable' : 'old', saveable instanceof hudson.model.Item ? saveable.fullName : saveable instanceof hudson.model.Run ? saveable.fullDisplayName : saveable.class.name, data.extra ?: ''])
  }
}
attempt {
  def machine = Runtime.runtime
  // A copy is measured without its waste; nobody waits for it.
  if (jenkins.quietingDown) System.gc()
  told(['memory', machine.totalMemory() - machine.freeMemory(), machine.maxMemory()])
}
null
GROOVY
ask --max-time 900 --data-urlencode "script@$work/script" -o "$work/loaded" "$URL/scriptText" || {
  echo "Jenkins refuses its script console to the administrator" >&2
  exit 2
}
if [ "$INVENTORY" = --list ]; then
  cat "$work/loaded"
  exit 0
fi
grep -q '^item' "$work/loaded" || [ ! -s "$INVENTORY" ] || {
  echo "Jenkins lists no job: $(head -c 300 "$work/loaded")" >&2
  exit 1
}
LC_ALL=C sort -u "$INVENTORY" >"$work/wanted"
LC_ALL=C sort -u "$work/loaded" >"$work/has"
LC_ALL=C comm -23 "$work/wanted" "$work/has" >"$work/missing"
if [ -s "$work/missing" ]; then
  echo "Jenkins has not loaded $(wc -l <"$work/missing") of $(wc -l <"$work/wanted"):"
  head -n 20 "$work/missing"
  exit 1
fi
echo "Jenkins has loaded all $(grep -c '^item' "$work/wanted" || true) jobs and folders and $(grep -c '^build' "$work/wanted" || true) builds"
