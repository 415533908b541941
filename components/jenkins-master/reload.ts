/** Folder of the sidecar in which it keeps what was applied and what was refused. */
export const reloadState = "/run/config-reload";

/**
 * Runs beside Jenkins in its pod: when the configuration or a secret it refers to changes, Jenkins is told to read it again,
 * so that running builds go on. A document that Jenkins refuses leaves the former one in force; its complaint is logged.
 * Bash and coreutils, as the Jenkins image holds them; environment FOLDERS, STATE, PORT,
 * INTERVAL (seconds), CASC_RELOAD_TOKEN.
 */
export const configReloadScript = `set -u
trap 'exit 0' TERM INT
applied="$STATE/config-applied"
# The kubelet swaps whole folders: names and content of what is there now.
state() { find -L $FOLDERS -type f ! -path '*/..*' -exec sha256sum {} + | sort | sha256sum; }
[ -f "$applied" ] || state >"$applied"
last=
while sleep "$INTERVAL" & wait $!; do
  now=$(state)
  if [ "$now" = "$(cat "$applied")" ]; then
    rm -f "$STATE/refused"
    continue
  fi
  # In a subshell: a connection that is refused would end the script.
  answer=$(exec 3<>/dev/tcp/127.0.0.1/$PORT && printf 'POST /reload-configuration-as-code/?casc-reload-token=%s HTTP/1.0\\r\\nHost: localhost\\r\\nContent-Length: 0\\r\\n\\r\\n' "$CASC_RELOAD_TOKEN" >&3 && timeout 120 cat <&3) 2>/dev/null
  code=$(printf '%s' "$answer" | head -n 1 | cut -d ' ' -f 2)
  case $code in
    200 | 302)
      printf '%s\\n' "$now" >"$applied"
      rm -f "$STATE/refused"
      echo "the changed configuration is in force"
      ;;
    # Jenkins is starting, and will have read the new files or be asked again.
    '' | 503) continue ;;
    *)
      if [ "$now" != "$last" ]; then
        echo "Jenkins refuses the changed configuration (status $code); the former one stays in force: $(printf '%s' "$answer" | tail -n +2 | tr -d '\\r' | tail -n 5)" | tee "$STATE/refused"
      fi
      ;;
  esac
  last=$now
done
`;
