# The kube-apiserver of this node: what it serves, whether it is ready, why it does not start.

admin_conf() { [ -r "$ROOT/etc/kubernetes/admin.conf" ] && have kubectl; }
# Where this node's apiserver may answer, one address a line. The advertised one need not be the node's own (NAT, a floating
# address), and a --bind-address leaves out all others.
addresses() {
  case ${BIND:-0.0.0.0} in
  0.0.0.0) printf '127.0.0.1\n%s\n' "$ADDRESS" ;;
  ::) printf '::1\n127.0.0.1\n%s\n' "$ADDRESS" ;;
  *) printf '%s\n%s\n' "$BIND" "$ADDRESS" ;;
  esac | awk '!seen[$0]++'
}
host_port() { case $1 in *:*) printf '[%s]:%s' "$1" "$PORT" ;; *) printf '%s:%s' "$1" "$PORT" ;; esac }
# kubectl against this node's own apiserver, not against whatever a load balancer picks.
api() {
  kubectl --kubeconfig "$ROOT/etc/kubernetes/admin.conf" --server "https://$(host_port "${ASKED:-$(addresses | sed -n 1p)}")" --tls-server-name kubernetes --request-timeout 10s "$@"
}
# True if this node's /readyz answers 200. Where it has answered once, it is asked from then on.
ready() {
  for asked in ${ASKED:-$(addresses)}; do
    if ready_at "$asked"; then
      ASKED=$asked
      return 0
    fi
  done
  return 1
}
ready_at() {
  at=$(host_port "$1")
  if admin_conf && ASKED=$1 api get --raw /readyz >/dev/null 2>&1; then return 0; fi
  pki=$ROOT/etc/kubernetes/pki
  set --
  if [ -r "$pki/apiserver-kubelet-client.key" ]; then set -- -cert "$pki/apiserver-kubelet-client.crt" -key "$pki/apiserver-kubelet-client.key"; fi
  if have curl; then
    # A health question, as the kubelet's own probe asks it: the certificate is not checked.
    if [ $# -gt 0 ]; then set -- --cert "$2" --key "$4"; fi
    curl -ksf --connect-timeout 3 --max-time 10 "$@" -o /dev/null "https://$at/readyz"
  elif have openssl; then
    printf 'GET /readyz HTTP/1.0\r\n\r\n' | openssl s_client -quiet "$@" -connect "$at" 2>/dev/null | sed -n 1p | grep -q ' 200 '
  else
    false
  fi
}
# Prints "value RANGE", "absent", or nothing if no kube-apiserver of this manifest runs. While several
# run, the answer is that of the one that differs from $VALUE, so that none is overlooked.
serving() {
  processes kube-apiserver | awk -v address="$ADDRESS" -v want="$VALUE" '
    function done() {
      if (count && (where == "" || where == address || address == "127.0.0.1")) { answer = has ? "value " value : "absent"; if (!seen || answer != (want == "" ? "absent" : "value " want)) kept = answer; seen = 1 }
      count = 0; has = 0; value = ""; where = ""; taken = ""
    }
    $0 == "" { done(); next }
    { count++ }
    taken == "range" { value = $0; taken = ""; next }
    taken == "address" { where = $0; taken = ""; next }
    /^--service[-_]node[-_]port[-_]range$/ { has = 1; taken = "range" }
    /^--service[-_]node[-_]port[-_]range=/ { has = 1; value = substr($0, index($0, "=") + 1) }
    /^--advertise-address$/ { taken = "address" }
    /^--advertise-address=/ { where = substr($0, index($0, "=") + 1) }
    END { done(); if (seen) print kept }'
}
# answers: false with PROBLEM where a kube-apiserver runs whose /readyz answers nowhere: a new value could not be told good from
# bad. Where none runs this run may be what brings it back.
answers() {
  if [ -z "$(serving)" ]; then return; fi
  tries=0
  until ready; do
    tries=$((tries + 1))
    if [ "$tries" -ge 5 ]; then
      PROBLEM="kube-apiserver runs, but /readyz answers 200 at none of$(addresses | while IFS= read -r each; do printf ' %s' "$(host_port "$each")"; done), so that a change could not be told good from bad; bring it up first, or correct --bind-address and --advertise-address in $MANIFEST"
      return 1
    fi
    sleep 1
  done
}
# The logs of this node's apiserver containers, the newest first.
# shellcheck disable=SC2012  # the kubelet's names hold no white space
logs() { ls -t "$ROOT"/var/log/pods/kube-system_kube-apiserver-*/kube-apiserver/*.log 2>/dev/null; }
newest_log() { logs | sed -n 1p; }
# Of the container's last two starts, for the newest may have just begun.
last_log_lines() {
  if [ -n "$(newest_log)" ]; then
    logs | awk '{ folder = $0; sub(/[^\/]*$/, "", folder) } NR == 1 { newest = $0; its = folder; next } folder == its { print; exit } END { print newest }' | while IFS= read -r log; do tail -n 10 "$log"; done
  elif have crictl; then
    crictl ps -a --name kube-apiserver -q 2>/dev/null | sed -n 1,2p | while IFS= read -r id; do crictl logs --tail 10 "$id" 2>&1; done
  fi
}
# crashing FILE: true if the kubelet has started the new manifest's container again and again, or if the apiserver
# has said that it does not take the value. Only logs that are newer than FILE count.
crashing() {
  log=$(newest_log)
  if [ -z "$log" ] || [ -z "$(find "$log" -newer "$1" 2>/dev/null)" ]; then return 1; fi
  if grep -q 'invalid argument .*service-node-port-range' "$log"; then return 0; fi
  restarts=${log##*/}
  restarts=${restarts%.log}
  case $restarts in *[!0-9]* | '') return 1 ;; esac
  # What counts is restarts since the first look at this container: the old one may have a history.
  first=$(cat "$WORK/restarts" 2>/dev/null)
  case $first in
  "${log%/*} "*) [ "$restarts" -ge $((${first##* } + 2)) ] ;;
  *)
    printf '%s %s\n' "${log%/*}" "$restarts" >"$WORK/restarts"
    false
    ;;
  esac
}
# wait_for VALUE [FILE]: until this value ("" = no flag) is served and ready; false with PROBLEM otherwise.
# With FILE, also as soon as the apiserver that was started after FILE was written keeps failing.
wait_for() {
  VALUE=$1
  expected=absent
  if [ -n "$VALUE" ]; then expected="value $VALUE"; fi
  deadline=$(($(date +%s) + TIMEOUT))
  rm -f "$WORK/restarts"
  until [ "$(serving)" = "$expected" ] && ready; do
    if [ -n "${2:-}" ] && crashing "$2"; then
      PROBLEM="kube-apiserver does not start with this value"
      return 1
    fi
    if [ "$(date +%s)" -ge "$deadline" ]; then
      PROBLEM="kube-apiserver did not serve the value with /readyz 200 within $TIMEOUT s"
      return 1
    fi
    sleep 1
  done
}
