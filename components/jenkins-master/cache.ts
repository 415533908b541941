/**
 * Runs on every node as container `keeper` of the DaemonSet `agent-cache`: makes the shared cache folders, gives them to the
 * agents' user and keeps them below MAX_KIB by deleting whole artifact folders that were not read for longest.
 * POSIX shell, GNU find and coreutils; environment CACHE, MAX_KIB, OWNER.
 * @param tools folders of further tools below CACHE, of which any file may go but their (empty) locks and pnpm's index below 64 MiB
 * @param others folders that other keepers look after
 */
export function cacheKeeperScript(tools: string[] = [], others: string[] = []): string {
  const kept = ["maven", "gradle", "gradle-offers", ...(tools.length > 0 ? ["tools"] : [])].map((folder) => `"$CACHE/${folder}"`).join(" ");
  const owned = ["maven", "maven/repository", "gradle", "gradle/generations", "gradle-offers", ...tools, ...others].map((folder) => `"$CACHE/${folder}"`).join(" ");
  // Tools delete files of their own at any time, which is no reason to end.
  const vanishing = tools.length > 0 ? " || :" : "";
  const made = tools.map((folder) => `"$CACHE/${folder}"`).join(" ");
  // A folder that was deleted is there again in a minute: agents that all write wait for theirs, and one with remoting does not start without.
  const wait = tools.length === 0 ? "  sleep 600 & wait $!" : `  for minute in 1 2 3 4 5 6 7 8 9 10; do
    mkdir -p ${made} && chown -h "$OWNER:$OWNER" ${made}
    sleep 60 & wait $!
  done`;
  return `set -eu
mkdir -p ${["maven/repository", "gradle/generations", "gradle-offers", ...tools, ...others].map((folder) => `"$CACHE/${folder}"`).join(" ")}
# -h: what agents may write to may have become a link meanwhile.
chown -h "$OWNER:$OWNER" ${owned}
trap 'exit 0' TERM INT
# Nothing else below $CACHE is looked at: it may be a whole disk.
while :; do
  for days in 60 30 14 7 3 1; do
    used=$(du -skc ${kept} | tail -n 1 | cut -f1)
    [ "$used" -le "$MAX_KIB" ] && break
    echo "cache holds $used KiB of $MAX_KIB: deleting files not read for $days days"
    find ${kept} -type f ! -path '*/.locks/*' ! -name .in-use${tools.length > 0 ? " \\( ! -name '*.lock' -o -size +0 \\) \\( ! -name 'index.db*' -o -size +131072 \\)" : ""} -atime "+$days" -delete${vanishing}
    find "$CACHE/maven/repository" -mindepth 1 -type d -empty -delete${vanishing}
  done
${wait}
done
`;
}

/**
 * Gradle's cache of one node, filled by the agents themselves.
 *
 * Below `gradle/` each generation is a folder that never changes again, and the link `current` names the newest. An agent
 * gets a home of its own: the generation's metadata as a copy, its artifacts as links. What the agent downloaded it offers
 * when its pod ends, in a folder of `gradle-offers/` that no build can write to; the keeper makes the next generation of it
 * (hard links, so that only the new costs room) and moves the link. A generation goes when no agent holds its lock.
 *
 * Gradle's own GRADLE_RO_DEP_CACHE is not used: what Gradle finds in such a cache it does not note in the home, so that two
 * agents' offers could not be joined (Gradle's metadata are binary files of one writer), and Gradle before 6.2 ignores it.
 */
const moduleCache = "caches/modules-2";

/**
 * Runs in each agent pod that uses Gradle, beside the build: fills the agent's home at its start, offers at its end.
 * Bash, GNU coreutils and findutils, flock; environment CACHE (gradle's folder, read-only), OFFERS, GRADLE_USER_HOME, POD.
 */
export const gradleAgentScript = `set -u
into="$GRADLE_USER_HOME/${moduleCache}"
mkdir -p "$into"
offer() {
  cd "$into" || return
  new=$(find . -path './files-2.1/*' -type f -print -quit)
  if [ -z "$new" ]; then
    # Artifacts that another agent had brought, but whose place in the metadata this one found anew.
    find . -path './metadata-*' -type f -print0 | while IFS= read -r -d '' file; do cmp -s "$file" "$generation/modules-2/$file" || exit 1; done && return
  fi
  part="$OFFERS/.$POD"
  rm -rf "$part" && mkdir "$part" && find . \\( -path './files-2.1/*' -o -path './metadata-*' \\) -type f ! -name '*.lock' -print0 | xargs -0 -r cp --parents -t "$part" -- && mv -T "$part" "$OFFERS/$POD" && echo "offered"
}
sleep infinity &
waiting=$!
trap 'kill "$waiting"; [ ! -e "$GRADLE_USER_HOME/.filled" ] || offer; exit 0' TERM INT
generation=
# The lock is held as long as this shell lives. A generation that went before it could be locked is no longer current.
for attempt in 1 2 3 4 5; do
  candidate=$(readlink -e "$CACHE/current") || break
  if { exec 9<"$candidate/.in-use"; } 2>/dev/null && flock -s 9 && [ -e "$candidate/.in-use" ]; then generation=$candidate; break; fi
done
if [ -n "$generation" ]; then
  for part in "$generation"/modules-2/*; do
    case $part in
      */files-2.1) cp -as "$part" "$into/" ;;
      */metadata-*) cp -r "$part" "$into/" ;;
    esac || echo "cannot take over $part; the agent downloads what it needs"
  done
fi
: >"$GRADLE_USER_HOME/.filled"
wait "$waiting"
`;

/**
 * Runs on every node as container `gradle` of the DaemonSet `agent-cache`, as the agents' user and with no right beyond its
 * folders: whatever an agent offers is hostile. Only regular files whose SHA-1 is the name of their folder are taken as
 * artifacts. Bash, GNU coreutils and findutils, flock; environment CACHE (gradle's folder), OFFERS, INTERVAL (seconds).
 */
export const gradleKeeperScript = `set -u
shopt -s nullglob
trap 'exit 0' TERM INT
# The keeper makes the folders.
until cd "$CACHE" && [ -w generations ] && [ -w "$OFFERS" ]; do sleep 1; done 2>/dev/null
take() {
  offer=$1
  number=$(date +%s%N)
  next="generations/.$number"
  mkdir -p "$next/modules-2/files-2.1" && : >"$next/.in-use" || return
  if [ -e current ]; then cp -al current/modules-2/. "$next/modules-2/" || return; fi
  # group/module/version/checksum/file; Gradle writes a checksum without its leading zeros.
  while IFS= read -r -d '' line; do
    sum=\${line:0:40} file=\${line:42}
    folder=\${file%/*} named=\${file%/*}
    named=\${named##*/}
    while [ "\${#named}" -lt 40 ]; do named="0$named"; done
    if [ "$named" != "$sum" ]; then printf 'left out, its content is not what its folder says: %q\\n' "$file"; continue; fi
    [ -e "$next/modules-2/$file" ] && continue
    mkdir -p "$next/modules-2/$folder" && ln "$offer/$file" "$next/modules-2/$file" || return
  done < <(cd "$offer" && find files-2.1 -mindepth 5 -maxdepth 5 -type f -print0 2>/dev/null | xargs -0 -r sha1sum -z --)
  for metadata in "$offer"/metadata-*; do
    name=\${metadata##*/}
    if [ -L "$metadata" ] || [ ! -d "$metadata" ]; then continue; fi
    rm -rf "$next/modules-2/$name"
    (cd "$offer" && find "$name" -type f ! -name '*.lock' -print0 | xargs -0 -r cp --parents -t "$CACHE/$next/modules-2" --) || return
  done
  mv -T "$next" "generations/$number" && ln -sfn "generations/$number" .current && mv -T .current current || return
  echo "generation $number: $(find "generations/$number/modules-2/files-2.1" -type f | wc -l) artifacts"
}
while :; do
  for offer in "$OFFERS"/*; do
    if [ -d "$offer" ] && [ ! -L "$offer" ]; then take "$offer" || printf 'could not take %q over\\n' "$offer"; fi
    rm -rf "$offer"
  done
  # Half offers of agents that were killed, and half generations.
  find "$OFFERS" -mindepth 1 -maxdepth 1 -name '.*' -mmin +60 -exec rm -rf {} +
  for rest in generations/.[0-9]*; do rm -rf "$rest"; done
  now=$(readlink current)
  for generation in generations/*; do
    [ "$generation" = "$now" ] || flock -n -x "$generation/.in-use" rm -rf "$generation"
  done
  sleep "$INTERVAL" & wait $!
done
`;
