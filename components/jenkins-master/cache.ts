/**
 * Runs on every node as the DaemonSet `agent-cache`: makes the shared cache folders, gives them to the agents' user and
 * keeps them below MAX_KIB by deleting whole artifact folders that were not read for longest.
 * POSIX shell, GNU find and coreutils; environment CACHE, MAX_KIB, OWNER.
 */
export const cacheKeeperScript = `set -eu
mkdir -p "$CACHE/maven/repository" "$CACHE/gradle/current"
chown "$OWNER:$OWNER" "$CACHE/maven" "$CACHE/maven/repository"
trap 'exit 0' TERM INT
while :; do
  for days in 60 30 14 7 3 1; do
    used=$(du -sk "$CACHE" | cut -f1)
    [ "$used" -le "$MAX_KIB" ] && break
    echo "cache holds $used KiB of $MAX_KIB: deleting files not read for $days days"
    find "$CACHE" -type f ! -path '*/.locks/*' -atime "+$days" -delete
    find "$CACHE/maven/repository" -mindepth 1 -type d -empty -delete
  done
  sleep 600 & wait $!
done
`;
