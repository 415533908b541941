/** Folder of the sidecar in which it keeps what was applied and what was refused. */
export const reloadState = "/run/config-reload";

/**
 * Runs beside Jenkins in its pod: when the configuration or a secret it refers to changes, Jenkins is told to read it again,
 * so that running builds go on. A document that Jenkins refuses leaves the former one in force; its complaint is logged, and
 * the same document is tried again now and then only: each refusal is a stack trace in Jenkins' own log.
 * Bash and coreutils, as the Jenkins image holds them; environment FOLDERS, STATE, PORT,
 * INTERVAL (seconds), CASC_RELOAD_TOKEN.
 */
export const configReloadScript = `set -u
again=60
trap 'exit 0' TERM INT
applied="$STATE/config-applied"
# The kubelet swaps whole folders: names and content of what is there now.
state() { find -L $FOLDERS -type f ! -path '*/..*' -exec sha256sum {} + | sort | sha256sum; }
[ -f "$applied" ] || state >"$applied"
last= waited=0
while sleep "$INTERVAL" & wait $!; do
  now=$(state)
  if [ "$now" = "$(cat "$applied")" ]; then
    [ -z "$last" ] || echo "the configuration is the one in force again"
    last=
    rm -f "$STATE/refused"
    continue
  fi
  waited=$((waited + 1))
  [ "$now" = "$last" ] && [ "$waited" -lt "$again" ] && continue
  waited=0
  # In a subshell: a connection that is refused would end the script.
  answer=$(exec 3<>/dev/tcp/127.0.0.1/$PORT && printf 'POST /reload-configuration-as-code/?casc-reload-token=%s HTTP/1.0\\r\\nHost: localhost\\r\\nContent-Length: 0\\r\\n\\r\\n' "$CASC_RELOAD_TOKEN" >&3 && timeout 120 cat <&3) 2>/dev/null
  code=$(printf '%s' "$answer" | head -n 1 | cut -d ' ' -f 2)
  body=$(printf '%s' "$answer" | tr -d '\\r' | sed '1,/^$/d' | tail -n 5)
  # The plugin answers 200 to a document that it refuses, too, and says so in what it answers.
  if [[ $body =~ '"status"'[[:space:]]*:[[:space:]]*'"error"' ]]; then
    code=error
    [[ $body =~ '"message"'[[:space:]]*:[[:space:]]*'"'(.*)'"' ]] && body=\${BASH_REMATCH[1]}
  fi
  case $code in
    200 | 302)
      printf '%s\\n' "$now" >"$applied"
      rm -f "$STATE/refused"
      echo "the changed configuration is in force"
      last=
      ;;
    # Jenkins is starting, and will have read the new files or be asked again.
    '' | 503) ;;
    *)
      [ "$now" = "$last" ] || echo "Jenkins refuses the changed configuration ($code); the former one stays in force: $body" | tee "$STATE/refused"
      last=$now
      ;;
  esac
done
`;
