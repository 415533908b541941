/** Where Jenkins reads its documents: plain files without links and hidden names, see `common`. */
export const liveConfiguration = "/run/jenkins-casc";

/** Folder in which the sidecar keeps what was applied and what was refused. */
export const reloadState = "/run/config-reload";

/** Key of the ConfigMap for a document: keys hold no "/". */
export const cascKey = (file: string): string => file.split("/").join("__");

/**
 * Configuration as code reads every document below its folder. Whether it follows links and hidden names, of which a mounted
 * ConfigMap or Secret is made, depends on its version: one that does finds each document three times and refuses all. So it
 * is given a copy in which each is one plain file, "__" of the key its folder again.
 * Bash and coreutils, as the Jenkins image holds them; environment CASC (the mount), LIVE (the copy), STATE, FOLDERS.
 */
const common = `set -u
# Names and content of what is mounted now: the kubelet swaps whole folders.
state() { find -L $FOLDERS -type f ! -path '*/..*' -exec sha256sum {} + | sort | sha256sum; }
put() { find "$LIVE" -mindepth 1 -delete; cp -r "$1"/. "$LIVE"/; }
mounted() {
  rm -rf "$STATE/next"; mkdir "$STATE/next"
  for key in "$CASC"/*; do
    file=\${key##*/} file=$STATE/next/\${file//__/\\/}
    [ ! -f "$key" ] || { mkdir -p "\${file%/*}" && cp -L "$key" "$file"; }
  done
  put "$STATE/next"
}
# A try that was cut off is one that was not taken.
former() { [ ! -d "$STATE/former" ] || { put "$STATE/former"; rm -rf "$STATE/former"; }; }
`;

/** Runs before Jenkins, each time its pod starts. After a node's restart what was refused stays out. */
export const configurationScript = `${common}
former
[ ! -e "$STATE/refused" ] || exit 0
state >"$STATE/config-applied"
mounted
`;

/**
 * Runs beside Jenkins in its pod: when the configuration or a secret it refers to changes, Jenkins is told to read it again,
 * so that running builds go on. A document that Jenkins refuses leaves the former one in force, and the former files come
 * back, so that Jenkins could start again; its complaint is logged, and the same document is tried again now and then only:
 * each refusal is a stack trace in Jenkins' own log. Environment as above, and PORT, INTERVAL (seconds), CASC_RELOAD_TOKEN.
 * @param prefix path below which Jenkins answers
 */
export const configReloadScript = (prefix = ""): string => `${common}
again=60
trap 'exit 0' TERM INT
applied="$STATE/config-applied"
message='"message"[[:space:]]*:[[:space:]]*"(([^"\\\\]|\\\\.)*)"'
former
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
  # The folder gets its name when it is whole.
  rm -rf "$STATE/.former"; cp -r "$LIVE" "$STATE/.former" && mv "$STATE/.former" "$STATE/former" || continue
  mounted
  # In a subshell: a connection that is refused would end the script.
  answer=$(exec 3<>/dev/tcp/127.0.0.1/$PORT && printf 'POST ${prefix}/reload-configuration-as-code/?casc-reload-token=%s HTTP/1.0\\r\\nHost: localhost\\r\\nContent-Length: 0\\r\\n\\r\\n' "$CASC_RELOAD_TOKEN" >&3 && timeout 120 cat <&3) 2>/dev/null
  code=$(printf '%s' "$answer" | head -n 1 | cut -d ' ' -f 2)
  body=$(printf '%s' "$answer" | tr -d '\\r' | sed '1,/^$/d')
  # The plugin answers 200 to a document that it refuses, too, and says so in what it answers.
  if [[ $body =~ '"status"'[[:space:]]*:[[:space:]]*'"error"' ]]; then
    code=error
    # %b: in JSON a line break is written as two letters.
    [[ $body =~ $message ]] && body=\${BASH_REMATCH[1]//'\\"'/'"'} && printf -v body %b "$body"
  elif [[ $body == *'<html'* || $body == *'<!DOCTYPE'* ]]; then
    body="broken YAML, or a mistake that the answer does not name: the log of container jenkins has it"
  fi
  body=$(printf '%s' "$body" | tr -s '[:space:]' ' ')
  case $code in
    200 | 302)
      rm -rf "$STATE/former"
      printf '%s\\n' "$now" >"$applied"
      rm -f "$STATE/refused"
      echo "the changed configuration is in force"
      last=
      ;;
    # Jenkins is starting, and is asked again.
    '' | 503) former ;;
    *)
      former
      [ "$now" = "$last" ] || echo "Jenkins refuses the changed configuration ($code); the former one stays in force: \${body:0:2000}" | tee "$STATE/refused"
      last=$now
      ;;
  esac
done
`;
