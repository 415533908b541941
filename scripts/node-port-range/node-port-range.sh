#!/bin/sh
# Sets --service-node-port-range of this node's kube-apiserver (a kubeadm-style static pod), waits
# until it is served, and can put back what was there before. `--help` says how to use it.
#
# Needs a POSIX shell, awk and the usual small tools (grep, sed, cp, mv, sync, diff, sha256sum or
# cksum) and one of kubectl, curl, openssl to ask for /readyz. Nothing is installed on the node.
#
# For tests only: NODE_PORT_RANGE_ROOT=DIR takes /etc, /proc, /run and /var from below DIR, and
# NODE_PORT_RANGE_TEST_KILL_AFTER=STEP kills the script (SIGKILL) right after a step; the steps are
# lock state backup journal temp rename serving reserve kubeadm record.
set -u
LC_ALL=C
export LC_ALL
umask 077
# This node's own API is asked, never by way of a proxy.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY

usage() {
  cat <<'USAGE'
Usage: node-port-range.sh show|apply|restore [options]

Commands
  show      print the range in the manifest, in the running kube-apiserver and in kubeadm-config;
            reads only
  apply     put --range into the kube-apiserver manifest and wait until it is served and /readyz
            answers 200; on failure put the old manifest back and wait for that
  restore   put back what was there before the first apply; with --range: that range instead

Options
  --range MIN-MAX          the node-port range, such as 80-32767 (apply; optional for show, restore)
  --manifest FILE          work on this file. A plain file outside the kubelet's manifest folder is
                           only edited: no cluster is asked, nothing is waited for. Without this
                           option the file is found in the running kubelet's staticPodPath.
  --dry-run                print what apply or restore would change as a unified diff; write nothing
  --timeout SECONDS        how long to wait for the apiserver, before it is put back (default 300)
  --reserve-local-ports    also keep the range from local port allocation, over reboots
                           (net.ipv4.ip_local_reserved_ports in /etc/sysctl.d)
  --skip-service-check     narrow the range even though the Services cannot be listed; it does not
                           override a Service that is known to hold a port
  --json                   show: one JSON object
  --mark TEXT              apply: remember TEXT as the name of this change; show --json gives it back
                           as long as the change is in force (used by the Pulumi component)
  --owner TEXT             apply: remember TEXT as the one who asked for the change; restore: do nothing where somebody
                           else has asked for it since (used by the Pulumi component, for nodes that get another name)
  --help                   this text

Exit status
  0  in force (show: could be read)
  1  failed; the manifest is as it was before this run
  2  bad input or refused; nothing was written

Files
  /etc/kubernetes/backup/                  the last five manifests replaced here, named by time and
                                           content hash
  /etc/kubernetes/backup/node-port-range/  what restore needs
  /etc/sysctl.d/99-node-port-range.conf    with --reserve-local-ports
  /run/node-port-range.lock.*              one run at a time
  All of them are gone once restore has brought the old manifest back.
  For a plain --manifest FILE, backup and memory live beside it in .FILE.node-port-range/; without
  that memory, restore removes the flag.
The manifest is written under a dot name beside the old one (which the kubelet ignores), synced,
and renamed over it. A run that was cut off at any point is completed by running it again.
The flag is also set in the ConfigMap kube-system/kubeadm-config where kubectl and
/etc/kubernetes/admin.conf exist, so that `kubeadm upgrade` keeps it.
USAGE
}

# ---- reader and editor of manifests (awk) --------------------------------------------------------
ENGINE=$(cat <<'AWK'
# A small YAML/JSON reader that remembers where every node stands in the text, so that an edit
# touches only the bytes it must. What it does not understand it refuses; it never guesses.
# Node tables are indexed by path (keys and indices joined by SEP).
BEGIN { SEP = "\001"; BOM = "\357\273\277"; ORS = ""; MODE = ENVIRON["ENGINE_MODE"]; WANT = ENVIRON["ENGINE_VALUE"]; SIZE = ENVIRON["ENGINE_SIZE"] + 0; FLAG = "service-node-port-range" }
{ TEXT = TEXT $0 "\n" }
END {
  if (length(TEXT) == SIZE + 1) TEXT = substr(TEXT, 1, SIZE)
  if (length(TEXT) != SIZE) refuse("holds bytes that are no text", 0)
  if (MODE == "json-string") { print json_string(TEXT); exit 0 }
  load(TEXT)
  if (MODE == "key") print scalar(SEP WANT)
  else if (MODE ~ /^cc-/) cluster_configuration()
  else manifest()
  exit 0
}

function refuse(message, p) { print (p ? "line " line_of(p) ": " : "") message "\n"; exit 3 }

# ---- text positions -------------------------------------------------------------------------
function index_lines(   i, n, parts) {
  n = split(T, parts, "\n"); LINES = n; LS[1] = 1
  for (i = 1; i < n; i++) LS[i + 1] = LS[i] + length(parts[i]) + 1
  if (substr(T, 1, 3) == BOM) LS[1] = 4
  LS[n + 1] = N + 2
}
function line_of(p,   lo, hi, mid) {
  lo = 1; hi = LINES
  while (lo < hi) { mid = int((lo + hi + 1) / 2); if (LS[mid] <= p) lo = mid; else hi = mid - 1 }
  return lo
}
function at(p) { return substr(T, p, 1) }
function column(p) { return p - LS[line_of(p)] }
function line_end(p,   e) { e = LS[line_of(p) + 1] - 1; if (e > N + 1) e = N + 1; return e }   # the "\n", or N + 1
function blank_at(p,   c) { c = at(p); return c == "" || c == " " || c == "\t" || c == "\r" || c == "\n" }
function skip(p,   c) {
  while (p <= N) {
    c = at(p)
    if (c == " " || c == "\n" || c == "\r" || c == "\t") p++
    else if (c == "#" && (p == 1 || blank_at(p - 1))) p = line_end(p)
    else break
  }
  return p
}
function is_dash(p) { return at(p) == "-" && blank_at(p + 1) }
function is_mark(p,   m) { m = substr(T, p, 3); return (m == "---" || m == "...") && blank_at(p + 3) && column(p) == 0 }
function no_tab_before(p) { if (index(substr(T, LS[line_of(p)], column(p)), "\t")) refuse("a tab in the indentation", p) }
function newline_of(p,   e) { e = line_end(p); if (e > N) e = line_end(1); return e > 1 && e <= N && at(e - 1) == "\r" ? "\r\n" : "\n" }

# ---- reader ---------------------------------------------------------------------------------
function load(text,   p, probe) {
  split("", kind); split("", st); split("", en); split("", nst); split("", style); split("", depth); split("", cnt); split("", flow)
  split("", target); split("", anc); split("", used); split("", anchor_of); split("", keyat); split("", colon); split("", comma); split("", dash); split("", keys)
  T = text; N = length(T); index_lines()
  probe = T; gsub(/\r\n/, "\n", probe); if (index(probe, "\r")) refuse("a carriage return that ends no line", index(T, "\r"))
  if (match(T, /[\001-\010\013\014\016-\037\177]/)) refuse("a control character", RSTART)
  p = skip(LS[1])
  if (at(p) == "%") refuse("YAML directives are not supported", p)
  if (p <= N && is_mark(p)) p += 3
  p = node("", p, -1, 0)
  if (p <= N && substr(T, p, 3) == "..." && is_mark(p)) p = skip(p + 3)
  if (p <= N && is_mark(p) && skip(p + 3) > N) p = N + 1
  if (p <= N) refuse(is_mark(p) ? "a second document" : "indentation or syntax that is not understood", p)
}
function note(path, what, s, e, how) {
  if (how == "plain" && substr(T, s, e - s) ~ /^(null|Null|NULL|~)$/) what = "null"
  kind[path] = what; st[path] = s; en[path] = e; style[path] = how
}
function only_comment_after(p,   q) { q = skip(p); if (q <= N && q < line_end(p)) refuse("text after a value that is not understood", q) ; return q }
function word_end(p, stop,   c) { while (p <= N) { c = at(p); if (blank_at(p) || index(stop, c)) break; p++ } return p }

# Reads the node after an indicator at p-1; parent is the indentation it must exceed (a sequence in a
# mapping may equal it). Answers the position of the next token.
function node(path, p, parent, in_map,   q, c, fresh, first, props, e, name, line) {
  line = line_of(p); first = 0; fresh = (parent < 0 && !is_mark(p - 3)); props = 0
  for (;;) {
    q = skip(p)
    if (q > N || (line_of(q) != line && (is_mark(q) || (column(q) <= parent && !(in_map && column(q) == parent && is_dash(q)))))) {
      note(path, "null", p, p, "null"); if (first) nst[path] = first; else nst[path] = p
      return q
    }
    if (line_of(q) != line) { fresh = 1; props = 0; line = line_of(q) }
    c = at(q)
    if (c == "&") { e = word_end(q + 1, ""); name = substr(T, q + 1, e - q - 1); anc[name] = path; anchor_of[path] = name }
    else if (c == "!") e = word_end(q + 1, "")
    else break
    if (!first) first = q
    props = 1; p = e
  }
  nst[path] = first ? first : q
  if (c == "*") {
    e = word_end(q + 1, ""); name = substr(T, q + 1, e - q - 1)
    if (!(name in anc)) refuse("alias *" name " has no anchor before it", q)
    if (at(skip(e)) == ":" && line_of(skip(e)) == line) refuse("an alias as a key", q)
    note(path, "alias", q, e, "alias"); target[path] = anc[name]; used[name] = 1
    return only_comment_after(e)
  }
  if (c == "[" || c == "{") {
    e = flow_node(path, q)
    if (at(skip(e)) == ":" && line_of(skip(e)) == line_of(e)) refuse("a collection as a key", q)
    return only_comment_after(e)
  }
  if (c == "|" || c == ">") return block_scalar(path, q, parent)
  if (is_dash(q)) {
    if (!fresh && in_map) refuse("a sequence on the line of its key", q)
    if (props) refuse("an anchor or tag on the line of a sequence", q)
    return sequence(path, q, column(q))
  }
  if (c == "?" && blank_at(q + 1)) refuse("a complex key", q)
  if (index("%@`,]}#", c)) refuse("a value cannot begin with " c, q)
  e = key_colon(q)
  if (e) {
    if (!fresh && in_map) refuse("a mapping on the line of its key", q)
    if (props) refuse("an anchor or tag on the line of a mapping", q)
    return mapping(path, q, column(q))
  }
  if (c == "\"" || c == "'") { e = quote_end(q); note(path, "scalar", q, e, c); return only_comment_after(e) }
  e = plain_end(q, parent); note(path, "scalar", q, e, "plain"); return skip(e)
}
# Position of the colon if a key starts at q on this line, else 0.
function key_colon(q,   c, e, p) {
  c = at(q); e = line_end(q)
  if (c == "\"" || c == "'") {
    p = quote_end(q); if (p > e) return 0
    while (at(p) == " " || at(p) == "\t") p++
    return at(p) == ":" && blank_at(p + 1) ? p : 0
  }
  for (p = q; p < e; p++) {
    c = at(p)
    if (c == ":" && blank_at(p + 1)) return p
    if (c == "#" && p > q && blank_at(p - 1)) return 0
  }
  return 0
}
function quote_end(q,   c, p, d) {
  c = at(q); p = q + 1
  while (p <= N) {
    d = at(p)
    if (c == "\"" && d == "\\") p += 2
    else if (d == c) { if (c == "'" && at(p + 1) == "'") p += 2; else return p + 1 }
    else p++
  }
  refuse("a quoted text without its end", q)
}
# End of one line's worth of a plain scalar that starts at q.
function plain_line_end(q, in_flow,   e, p, c, d) {
  e = line_end(q)
  for (p = q; p < e; p++) {
    c = at(p)
    if (c == "#" && p > q && blank_at(p - 1)) break
    if (in_flow && index(",[]{}", c)) break
    if (c == ":") { d = at(p + 1); if (blank_at(p + 1)) { if (!in_flow) refuse("a key inside a text of several lines", p); break }; if (in_flow && index(",[]{}", d)) break }
  }
  while (p > q && blank_at(p - 1)) p--
  return p
}
function plain_end(q, parent,   e, n) {
  e = plain_line_end(q, 0)
  for (;;) {
    if (skip_blank(e) != line_end(e) ) break   # a comment follows and ends the text
    n = skip_lines(e)
    if (n > N || is_mark(n) || column(n) <= parent || at(n) == "#") break
    e = plain_line_end(n, 0)
  }
  return e
}
function skip_blank(p) { while (p <= N && (at(p) == " " || at(p) == "\t" || at(p) == "\r")) p++; return p }
function skip_lines(p) { while (p <= N && blank_at(p)) p++; return p }
function block_scalar(path, q, parent,   p, c, l, indent, last, keep, width, e) {
  p = q + 1; keep = ""; indent = -1
  while ((c = at(p)) != "" && index("+-123456789", c)) { if (c == "+" || c == "-") keep = c; else indent = (parent < 0 ? 0 : parent) + c; p++ }
  only_header(p)
  last = line_of(q)
  for (l = last + 1; l <= LINES; l++) {
    width = 0; while (at(LS[l] + width) == " ") width++
    e = LS[l] + width
    if (e > N || at(e) == "\n" || at(e) == "\r") { if (LS[l] <= N && (keep == "+" || (indent >= 0 && width > indent))) last = l; continue }
    if (indent < 0) { if (width <= parent) break; indent = width }
    if (width < indent || (parent < 0 && is_mark(e))) break
    last = l
  }
  e = LS[last + 1] - 1; if (e > N + 1) e = N + 1
  if (at(e - 1) == "\r") e--
  note(path, "scalar", q, e, "block"); depth[path] = indent
  return skip_from_line(last + 1)
}
function only_header(p,   q) { q = skip_blank(p); if (q <= N && at(q) != "\n" && at(q) != "#") refuse("a block text header that is not understood", q) }
function skip_from_line(l) { return l > LINES ? N + 1 : skip(LS[l]) }
function sequence(path, q, c0,   i) {
  note(path, "seq", q, q, "block"); flow[path] = 0; i = 0; no_tab_before(q)
  while (q <= N && !is_mark(q) && column(q) == c0 && is_dash(q)) {
    dash[path SEP i] = q; q = node(path SEP i, q + 1, c0, 0); i++
  }
  if (q <= N && !is_mark(q) && column(q) > c0) refuse("indentation that is not understood", q)
  cnt[path] = i; return q
}
function add_key(path, name, q) {
  if ((path SEP name) in keyat) refuse("key " name " stands twice", q)
  keyat[path SEP name] = q; keys[path, cnt[path]++] = name
}
function mapping(path, q, c0,   e, name) {
  note(path, "map", q, q, "block"); flow[path] = 0; cnt[path] = 0; no_tab_before(q)
  while (q <= N && !is_mark(q) && column(q) == c0 && !is_dash(q)) {
    if (index("&*!?[{", at(q)) && (at(q) != "?" || blank_at(q + 1))) refuse("a key that is not understood", q)
    e = key_colon(q); if (!e) refuse("expected a key and a colon", q)
    name = key_name(q, e); add_key(path, name, q); colon[path SEP name] = e
    q = node(path SEP name, e + 1, c0, 1)
  }
  if (q <= N && !is_mark(q) && column(q) > c0) refuse("indentation that is not understood", q)
  return q
}
function key_name(q, e,   c, s) {
  c = at(q)
  if (c == "\"" || c == "'") return unquote(substr(T, q, quote_end(q) - q))
  s = substr(T, q, e - q); sub(/[ \t]+$/, "", s); return s
}
function flow_skip(p) { p = skip(p); if (p > N) refuse("a bracket without its end", N); return p }
function flow_node(path, p,   c, e, q, name, first) {
  first = p
  for (;;) {
    c = at(p)
    if (c == "&") { e = word_end(p + 1, ",[]{}"); name = substr(T, p + 1, e - p - 1); anc[name] = path; anchor_of[path] = name }
    else if (c == "!") e = word_end(p + 1, ",[]{}")
    else break
    p = flow_skip(e)
  }
  nst[path] = first
  if (c == "[") return flow_sequence(path, p)
  if (c == "{") return flow_mapping(path, p)
  if (c == "\"" || c == "'") { e = quote_end(p); note(path, "scalar", p, e, c); return e }
  if (c == "*") {
    e = word_end(p + 1, ",[]{}"); name = substr(T, p + 1, e - p - 1)
    if (!(name in anc)) refuse("alias *" name " has no anchor before it", p)
    note(path, "alias", p, e, "alias"); target[path] = anc[name]; used[name] = 1; return e
  }
  if (index(",]}", c)) { note(path, "null", p, p, "null"); return p }
  if (index("#|>%@`", c) || (index("-?:", c) && (blank_at(p + 1) || index(",[]{}", at(p + 1))))) refuse("a value that is not understood", p)
  e = plain_line_end(p, 1)
  for (;;) {
    q = skip_blank(e); if (q <= N && at(q) != "\n") break
    q = skip_lines(e); c = at(q); if (q > N || index(",[]{}#", c) || (c == ":" && blank_at(q + 1))) break
    e = plain_line_end(q, 1); if (e == q) break
  }
  note(path, "scalar", p, e, "plain"); return e
}
function flow_sequence(path, p,   i, q, c) {
  note(path, "seq", p, p, "flow"); flow[path] = 1; i = 0; q = flow_skip(p + 1)
  while (at(q) != "]") {
    if (at(q) == ",") refuse("a comma without a value", q)
    q = flow_skip(flow_node(path SEP i, q)); c = at(q)
    if (c == ",") { comma[path SEP i] = q; q = flow_skip(q + 1) }
    else if (c != "]") refuse("expected a comma or ]", q)
    i++
  }
  cnt[path] = i; en[path] = q + 1; return q + 1
}
function flow_mapping(path, p,   q, c, k, name) {
  note(path, "map", p, p, "flow"); flow[path] = 1; cnt[path] = 0; q = flow_skip(p + 1)
  while (at(q) != "}") {
    if (index(",:?[{*&!", at(q)) && (index(",[{*&!", at(q)) || blank_at(q + 1))) refuse("a key that is not understood", q)
    k = q; q = flow_node(path SEP "\002", q); name = scalar(path SEP "\002"); delete kind[path SEP "\002"]
    add_key(path, name, k); q = flow_skip(q)
    if (at(q) == ":") { colon[path SEP name] = q; q = flow_skip(flow_node(path SEP name, flow_skip(q + 1))) }
    else { note(path SEP name, "null", q, q, "null"); nst[path SEP name] = q }
    c = at(q)
    if (c == ",") { comma[path SEP name] = q; q = flow_skip(q + 1) }
    else if (c != "}") refuse("expected a comma or }", q)
  }
  en[path] = q + 1; return q + 1
}

# ---- values ---------------------------------------------------------------------------------
function fold(s,   out, n, i, parts, breaks) {
  n = split(s, parts, "\n"); out = parts[1]; if (n > 1) sub(/[ \t\r]+$/, "", out)
  breaks = 0
  for (i = 2; i <= n; i++) {
    breaks++; sub(/^[ \t]+/, "", parts[i]); if (i < n) sub(/[ \t\r]+$/, "", parts[i]); else sub(/\r$/, "", parts[i])
    if (parts[i] == "" && i < n) continue
    if (breaks == 1) out = out " "; else while (--breaks) out = out "\n"
    out = out parts[i]; breaks = 0
  }
  return out
}
function unquote(raw,   c, s, out, p, d, n, h) {
  c = substr(raw, 1, 1); s = substr(raw, 2, length(raw) - 2)
  if (c == "'") { s = fold(s); gsub(/''/, "'", s); return s }
  gsub(/\\\r?\n[ \t]*/, "", s); s = fold(s); out = ""
  while (p = index(s, "\\")) {
    out = out substr(s, 1, p - 1); d = substr(s, p + 1, 1); n = 2
    if (d == "n") out = out "\n"; else if (d == "t") out = out "\t"; else if (d == "r") out = out "\r"
    else if (d == "x" || d == "u" || d == "U") { n = 2 + (d == "x" ? 2 : d == "u" ? 4 : 8); h = hex(substr(s, p + 2, n - 2)); out = out (h < 128 && h > 0 ? sprintf("%c", h) : "\\" substr(s, p + 1, n - 1)) }
    else if (index("\"\\/ \t", d)) out = out d
    else out = out "\\" d
    s = substr(s, p + n)
  }
  return out s
}
function hex(s,   i, v) { v = 0; s = tolower(s); for (i = 1; i <= length(s); i++) v = v * 16 + index("0123456789abcdef", substr(s, i, 1)) - 1; return v }
function block_value(raw, indent,   n, parts, i, head, out, folded, w, breaks, first, deeper, was) {
  n = split(raw, parts, "\n"); head = parts[1]; sub(/[ \t]*(#.*)?\r?$/, "", head)
  folded = substr(head, 1, 1) == ">"; breaks = 0; first = 1
  for (i = 2; i <= n; i++) {
    w = parts[i]; sub(/\r$/, "", w); w = substr(w, indent + 1)
    if (w == "") { breaks++; continue }
    deeper = w ~ /^[ \t]/
    if (folded && !first && !deeper && !was && --breaks == 0) out = out " "
    for (; breaks > 0; breaks--) out = out "\n"
    out = out w; breaks = 1; first = 0; was = deeper
  }
  if (index(head, "-") || (first && !index(head, "+"))) return out
  if (!index(head, "+")) return out "\n"
  for (; breaks > 0; breaks--) out = out "\n"
  return out
}
function scalar(path,   raw) {
  if (kind[path] == "alias") path = target[path]
  if (kind[path] != "scalar") return ""
  raw = substr(T, st[path], en[path] - st[path])
  if (style[path] == "plain") return fold(raw)
  if (style[path] == "block") return block_value(raw, depth[path])
  return unquote(raw)
}
function is_text(path) { return kind[path] == "scalar" || (kind[path] == "alias" && kind[target[path]] == "scalar") }
function has(path) { return (path in kind) && kind[path] != "null" }
function render(text, how) {
  if (how == "\"") return "\"" text "\""
  if (how == "'") return "'" text "'"
  return text ~ /^(--.*|[0-9]+-[0-9]+)$/ ? text : "\"" text "\""
}
function json_string(s,   out, i, n, parts) {
  gsub(/\\/, "\\\\", s); gsub(/"/, "\\\"", s); gsub(/\t/, "\\t", s); gsub(/\r/, "\\r", s)
  n = split(s, parts, "\n"); out = parts[1]; for (i = 2; i <= n; i++) out = out "\\n" parts[i]
  gsub(/[\001-\010\013\014\016-\037]/, "?", out)
  return "\"" out "\""
}

# ---- edits ----------------------------------------------------------------------------------
function plan(s, e, text) { PLANS++; PS[PLANS] = s; PE[PLANS] = e; PT[PLANS] = text }
function carry_out(   i, j, best, out) {
  out = T
  for (i = 1; i <= PLANS; i++) {
    best = 0; for (j = 1; j <= PLANS; j++) if (!(j in DONE) && (!best || PS[j] > PS[best])) best = j
    DONE[best] = 1; out = substr(out, 1, PS[best] - 1) PT[best] substr(out, PE[best])
  }
  split("", DONE); PLANS = 0
  return out
}
function spaces_only(s, e) { return substr(T, s, e - s) ~ /^[ \t\r\n]*$/ }
function delete_lines(s, e,   a, b) {
  a = LS[line_of(s)]; b = line_end(e) + 1
  if (b > N + 1) { b = N + 1; if (a > 1) { a--; if (a > 1 && at(a - 1) == "\r") a-- } }
  plan(a, b, "")
}
# Takes the items a..b out of a list.
function delete_items(list, a, b,   s, e, f, i) {
  for (i = a; i <= b; i++) if (((list SEP i) in anchor_of) && (anchor_of[list SEP i] in used)) refuse("the flag carries an anchor that is used elsewhere", st[list SEP i])
  s = nst[list SEP a]; e = en[list SEP b]
  if (!flow[list]) { delete_lines(dash[list SEP a], e - 1); return }
  if ((list SEP b) in comma) {
    e = comma[list SEP b] + 1
    if (spaces_only(LS[line_of(s)], s) && spaces_only(e, line_end(e))) { delete_lines(s, e - 1); return }
    if (b == cnt[list] - 1 && a > 0 && spaces_only(comma[list SEP (a - 1)] + 1, s)) { plan(comma[list SEP (a - 1)] + 1, e, ""); return }
    while (at(e) == " " || at(e) == "\t") e++
    plan(s, e, ""); return
  }
  if (a == 0) { plan(s, e, ""); return }
  f = comma[list SEP (a - 1)]
  if (spaces_only(LS[line_of(s)], s) && spaces_only(e, line_end(e))) { delete_lines(s, e - 1); plan(f, f + 1, "") }
  else if (spaces_only(f + 1, s)) plan(f, e, "")
  else { plan(f, f + 1, ""); plan(s, e, "") }
}
function gap(s, e,   t, nl) {   # the white space between two items, without a comment that may stand in it
  t = substr(T, s, e - s)
  if (!index(t, "\n")) return t
  nl = newline_of(s); sub(/^.*\n/, "", t); while (index(t, "\n")) sub(/^[^\n]*\n/, "", t)
  return nl t
}
# Puts text behind item j of a list, written as that item is.
function insert_after(list, j, text,   item, line, s, nl, sep, base, how) {
  item = list SEP j; how = style[item]
  if (how != "\"" && how != "'") how = "plain"
  text = render(text, how)
  if (!flow[list]) {
    s = dash[item]; match(substr(T, s + 1), /^ +/); sep = RLENGTH > 0 && at(s + 1 + RLENGTH) !~ /[\r\n#]/ ? substr(T, s + 1, RLENGTH) : " "
    if (!spaces_only(LS[line_of(s)], s)) refuse("a list item that does not begin its line", s)
    text = substr(T, LS[line_of(s)], column(s)) "-" sep text; nl = newline_of(en[item] - 1); line = line_of(en[item] - 1) + 1
    if (line > LINES) plan(N + 1, N + 1, nl text); else plan(LS[line], LS[line], text nl)
    return
  }
  if (j < cnt[list] - 1) {
    s = nst[list SEP (j + 1)]; plan(s, s, text "," gap(comma[item] + 1, s)); return
  }
  if (j > 0) sep = gap(comma[list SEP (j - 1)] + 1, nst[item])
  else { sep = gap(st[list] + 1, nst[item]); if (!index(sep, "\n")) sep = " " }
  base = (item in comma) ? comma[item] + 1 : en[item]
  if (!spaces_only(base, line_end(base)) && at(skip_blank(base)) == "#") {   # the comment stays with its item
    if (!index(sep, "\n")) { match(substr(T, LS[line_of(base)]), /^[ \t]*/); sep = newline_of(base) substr(T, LS[line_of(base)], RLENGTH) "  " }
    if (!(item in comma)) plan(base, base, ",")
    s = line_end(base); if (at(s - 1) == "\r") s--
    plan(s, s, sep text ((item in comma) ? "," : ""))
  } else plan(base, base, (item in comma) ? sep text "," : "," sep text)
}

# ---- the apiserver's manifest ------------------------------------------------------------------
function base_name(s) { sub(/^.*\//, "", s); return s }
function find_container(   i, c, n, found, path) {
  if (kind[""] != "map") refuse("not a Pod manifest", 1)
  path = SEP "spec" SEP "containers"
  if ((SEP "<<") in kind || (SEP "spec" SEP "<<") in kind) refuse("merge keys are not supported", 1)
  if (kind[path] != "seq") refuse("no list spec.containers", 1)
  found = ""
  for (i = 0; i < cnt[path]; i++) {
    c = path SEP i
    if (scalar(c SEP "name") == "kube-apiserver") return c
    if (found == "" && runs_apiserver(c)) found = c
  }
  return found
}
function runs_apiserver(c,   l, i, n, names) {
  n = split("command args", names, " ")
  for (l = 1; l <= n; l++) if (kind[c SEP names[l]] == "seq")
    for (i = 0; i < cnt[c SEP names[l]]; i++) if (base_name(scalar(c SEP names[l] SEP i)) == "kube-apiserver") return 1
  return 0
}
# ARGV_* = the container's argument vector, HITS = the places of the flag in it.
function read_arguments(c,   l, n, i, names, list) {
  if ((c SEP "<<") in kind) refuse("merge keys are not supported", st[c])
  n = split("command args", names, " "); ARGS = 0; HITS = 0
  for (l = 1; l <= n; l++) {
    list = c SEP names[l]
    if (!has(list)) continue
    if (kind[list] != "seq") refuse(names[l] " is not a plain list", st[list])
    for (i = 0; i < cnt[list]; i++) {
      if (!is_text(list SEP i)) refuse(names[l] " holds something that is no text", st[list SEP i])
      ARG[ARGS] = scalar(list SEP i); ARG_LIST[ARGS] = list; ARG_AT[ARGS] = i; ARGS++
    }
  }
  for (i = 0; i < ARGS; i++) {
    if (i < ARGS - 1 && base_name(ARG[i]) ~ /^(ba|da|a)?sh$/ && ARG[i + 1] ~ /^-[a-z]*c$/) refuse("the command is a shell line; change the flag in it by hand", st[ARG_LIST[i] SEP ARG_AT[i]])
    if (ARG[i] ~ /^--service[-_]node[-_]port[-_]range=/) { HIT[HITS] = i; HIT_SPAN[HITS] = 1; HIT_VALUE[HITS] = substr(ARG[i], index(ARG[i], "=") + 1); HITS++ }
    else if (ARG[i] ~ /^--service[-_]node[-_]port[-_]range$/) {
      if (i == ARGS - 1 || ARG_LIST[i + 1] != ARG_LIST[i]) refuse("the flag has no value beside it", st[ARG_LIST[i] SEP ARG_AT[i]])
      HIT[HITS] = i; HIT_SPAN[HITS] = 2; HIT_VALUE[HITS] = ARG[i + 1]; HITS++; i++
    }
  }
}
function flag_value(name,   i, v) {
  v = ""
  for (i = 0; i < ARGS; i++) {
    if (index(ARG[i], "--" name "=") == 1) v = substr(ARG[i], length(name) + 4)
    else if (ARG[i] == "--" name && i < ARGS - 1) v = ARG[i + 1]
  }
  return v
}
function agrees(   i) { for (i = 0; i < HITS; i++) if (HIT_VALUE[i] != WANT) return 0; return HITS > 0 }
function set_value(h,   i, item, how, raw, p) {
  i = HIT[h] + HIT_SPAN[h] - 1; item = ARG_LIST[i] SEP ARG_AT[i]; how = style[item]
  if ((item in anchor_of) && (anchor_of[item] in used)) refuse("the flag carries an anchor that is used elsewhere", st[item])
  if (how != "\"" && how != "'") how = "plain"
  raw = HIT_SPAN[h] == 1 ? substr(ARG[i], 1, index(ARG[i], "=")) WANT : WANT
  plan(st[item], en[item], render(raw, how))
}
function place_for_new(   i, last) {
  for (i = 0; i < ARGS; i++) if (ARG[i] ~ /^--service-cluster-ip-range=/) return i   # where kubeadm would write it
  last = -1; for (i = 0; i < ARGS; i++) if (ARG[i] ~ /^--./) last = i
  if (last < 0) last = ARGS - 1
  while (last >= 0 && last < ARGS - 1 && ARG_LIST[last + 1] == ARG_LIST[last]) last++
  return last
}
function others(   i, h, s) {
  s = ""; for (i = 0; i < ARGS; i++) { for (h = 0; h < HITS; h++) if (i >= HIT[h] && i < HIT[h] + HIT_SPAN[h]) break; if (h == HITS) s = s ARG_LIST[i] "\004" ARG[i] "\004" }
  return s
}
# Nodes that no edit may touch; looking up a path that does not exist leaves an empty entry.
function untouchable(path, c) { return kind[path] != "" && index(path, c SEP "command") != 1 && index(path, c SEP "args") != 1 }
function content(path) { return is_text(path) ? scalar(path) : kind[path] }
function keep_tree(c,   path, n) { n = 0; for (path in kind) if (untouchable(path, c)) { n++; KEPT[path] = content(path) } return n }
function same_tree(c, nodes,   path) {
  for (path in kind) if (untouchable(path, c)) { nodes--; if (!(path in KEPT) || KEPT[path] != content(path)) return 0 }
  return nodes == 0
}
function manifest(   c, i, before, nodes, text) {
  c = find_container()
  if (MODE == "inspect" && c == "") { print "apiserver\tno\n"; return }
  if (c == "") refuse("no kube-apiserver container", 1)
  read_arguments(c)
  if (MODE == "inspect") {
    print "apiserver\tyes\nhits\t" HITS "\nvalue\t" (HITS ? HIT_VALUE[HITS - 1] : "") "\nagrees\t" (agrees() ? "yes" : "no") "\n"
    print "port\t" flag_value("secure-port") "\naddress\t" flag_value("advertise-address") "\n"
    return
  }
  if (!ARGS) refuse("the kube-apiserver container has neither command nor args", st[c])
  before = others(); nodes = keep_tree(c)
  if (MODE == "set" && agrees()) { print T; return }
  if (MODE == "set" && !HITS) { i = place_for_new(); insert_after(ARG_LIST[i], ARG_AT[i], "--" FLAG "=" WANT) }
  while (HITS > (MODE == "set")) {
    i = HIT[0]; delete_items(ARG_LIST[i], ARG_AT[i], ARG_AT[i] + HIT_SPAN[0] - 1)
    text = carry_out(); load(text); read_arguments(c)
  }
  if (MODE == "set" && HITS && HIT_VALUE[0] != WANT) set_value(0)
  text = carry_out(); load(text); read_arguments(c)
  if (before != others() || HITS != (MODE == "set") || (HITS && HIT_VALUE[0] != WANT) || !same_tree(c, nodes)) refuse("the edit would not come out as meant; change the flag by hand", 1)
  print text
}

# ---- kubeadm's ClusterConfiguration -----------------------------------------------------------
function cc_find(   path, i) {   # the path of the argument's value, "" where absent
  if (kind[CX] == "map") { path = CX SEP FLAG; return (path in kind) ? path : "" }
  if (kind[CX] == "seq") for (i = cnt[CX] - 1; i >= 0; i--) if (scalar(CX SEP i SEP "name") == FLAG) { CC_ITEM = i; return CX SEP i SEP "value" }
  return ""
}
function cc_entry(indent, nl, as_list) {
  return as_list ? indent "- name: " FLAG nl indent "  value: " render(WANT, "plain") nl : indent FLAG ": " render(WANT, "plain") nl
}
function cluster_configuration(   path, api, text, i, found) {
  api = SEP "apiServer"; CX = api SEP "extraArgs"
  if (kind[""] != "map") refuse("not a ClusterConfiguration", 1)
  path = cc_find()
  if (MODE == "cc-get") { print (path == "" ? "absent\n" : "value\t" scalar(path) "\n"); return }
  if (MODE == "cc-set" && path != "" && scalar(path) == WANT) { print T; return }
  if (MODE == "cc-set") cc_set(api, path); else if (path != "") cc_remove(api)
  text = carry_out(); load(text); path = cc_find()
  if (MODE == "cc-set" ? (path == "" || scalar(path) != WANT) : (path != "")) refuse("the edit would not come out as meant; change kubeadm-config by hand", 1)
  print text
}
function cc_set(api, path,   nl, as_list, s, indent, entry) {
  nl = newline_of(1)
  if (path != "") { if (!has(path)) refuse("the argument has no value", 1); plan(st[path], en[path], render(WANT, style[path] == "'" || style[path] == "\"" ? style[path] : "plain")); return }
  as_list = kind[CX] == "seq" || (kind[CX] != "map" && scalar(SEP "apiVersion") !~ /\/v1(beta[123])$/)
  entry = as_list ? "{name: " FLAG ", value: \"" WANT "\"}" : "\"" FLAG "\": \"" WANT "\""
  if (as_list) entry = "{\"name\": \"" FLAG "\", \"value\": \"" WANT "\"}"
  if (has(CX) && cnt[CX]) {
    if (flow[CX]) plan(st[CX] + 1, st[CX] + 1, entry ", ")
    else { s = LS[line_of(st[CX])]; plan(s, s, cc_entry(substr(T, s, column(st[CX])), nl, as_list)) }
  } else if (CX in keyat) {
    if (kind[CX] == "alias") refuse("extraArgs is an alias", st[CX])
    if (flow[api]) plan(st[CX], en[CX], (st[CX] < en[CX] ? "" : " ") (as_list ? "[" entry "]" : "{" entry "}"))
    else { indent = substr(T, LS[line_of(keyat[CX])], column(keyat[CX])); cc_value(CX, nl cc_strip(cc_entry(indent (as_list ? "" : "  "), nl, as_list), nl)) }
  } else if (has(api) && cnt[api]) {
    entry = as_list ? "[" entry "]" : "{" entry "}"
    if (flow[api]) plan(st[api] + 1, st[api] + 1, "\"extraArgs\": " entry ", ")
    else { s = LS[line_of(st[api])]; indent = substr(T, s, column(st[api])); plan(s, s, indent "extraArgs:" nl cc_entry(indent (as_list ? "" : "  "), nl, as_list)) }
  } else if (api in keyat) {
    if (flow[""]) plan(st[api], en[api], (st[api] < en[api] ? "" : " ") "{\"extraArgs\": " (as_list ? "[" entry "]" : "{" entry "}") "}")
    else { indent = substr(T, LS[line_of(keyat[api])], column(keyat[api])); cc_value(api, nl indent "  extraArgs:" nl cc_strip(cc_entry(indent (as_list ? "  " : "    "), nl, as_list), nl)) }
  } else if (flow[""]) plan(st[""] + 1, st[""] + 1, "\"apiServer\": {\"extraArgs\": " (as_list ? "[" entry "]" : "{" entry "}") "}" (cnt[""] ? ", " : ""))
  else { s = LS[line_of(st[""])]; plan(s, s, "apiServer:" nl "  extraArgs:" nl cc_entry(as_list ? "  " : "    ", nl, as_list)) }
}
function cc_strip(s, nl) { return substr(s, 1, length(s) - length(nl)) }
# Writes a block behind a key that has no value, {} or [].
function cc_value(path, block,   e, s) {
  s = colon[path] + 1; e = en[path]
  if (kind[path] == "scalar") refuse("expected a mapping or a list", st[path])
  if (!spaces_only(s, nst[path])) refuse("a comment or tag before an empty value; change kubeadm-config by hand", s)
  plan(s, e, block)
}
function cc_remove(api,   path, e, i) {
  if (kind[CX] == "map" ? cnt[CX] == 1 : cnt[CX] == 1) {
    if (!flow[CX]) {
      path = kind[CX] == "map" ? CX SEP FLAG : CX SEP 0 SEP keys[CX SEP 0, cnt[CX SEP 0] - 1]
      e = en[path] - 1
      if (cnt[api] == 1) { plan(colon[api] + 1, e + 1, " {}"); return }
      delete_lines(keyat[CX], e); return
    }
    plan(st[CX] + 1, en[CX] - 1, ""); return
  }
  if (kind[CX] == "seq") {
    for (i = cnt[CX] - 1; i >= 0; i--) if (scalar(CX SEP i SEP "name") == FLAG) {
      if (flow[CX]) delete_items(CX, i, i)
      else { path = CX SEP i; e = flow[path] ? en[path] : en[path SEP keys[path, cnt[path] - 1]]; delete_lines(dash[path], e - 1) }
    }
    return
  }
  path = CX SEP FLAG
  if (!flow[CX]) { delete_lines(keyat[path], en[path] - 1); return }
  if (path in comma) { e = comma[path] + 1; while (at(e) == " ") e++; plan(keyat[path], e, "") }
  else { for (i = 0; keys[CX, i] != FLAG; i++); plan(comma[CX SEP keys[CX, i - 1]], en[path], "") }
}
AWK
)

# ---- small things -------------------------------------------------------------------------------
ROOT=${NODE_PORT_RANGE_ROOT:-}
DEFAULT_RANGE=30000-32767 # kube-apiserver's own default
CONFIGMAP_NOTE=build-platform/node-port-range-before
TAB=$(printf '\t')
COMMAND='' RANGE='' MANIFEST='' DRY_RUN='' JSON='' MARK='' RESERVE='' SKIP_CHECK='' TIMEOUT=300
LIVE='' HELD_LOCK='' VALUE='' WORK='' WROTE='' FRESH='' COPY='' OWNER=''

note() { printf 'node-port-range: %s\n' "$*" >&2; }
warn() {
  note "warning: $*"
  printf '%s\n' "$*" >>"$WORK/warnings"
}
refuse() {
  note "$*"
  exit 2
}
have() { command -v "$1" >/dev/null 2>&1; }
# A point at which a test may cut the power.
step() { if [ "${NODE_PORT_RANGE_TEST_KILL_AFTER:-}" = "$1" ]; then kill -9 $$; fi; }

cleanup() {
  status=$?
  trap '' HUP INT TERM
  if [ -n "$WORK" ]; then rm -rf "$WORK"; fi
  if [ -n "$HELD_LOCK" ]; then rm -f "$HELD_LOCK"; fi
  exit "$status"
}
interrupted() {
  if [ -n "$WROTE" ]; then note "interrupted after the manifest was written: run the same command again, it carries on from there"; fi
  exit 1
}

# engine MODE FILE: runs the reader/editor on a file with the wanted $VALUE.
engine() { ENGINE_MODE=$1 ENGINE_VALUE=$VALUE ENGINE_SIZE=$(wc -c <"$2") awk "$ENGINE" <"$2"; }
json() {
  printf '%s' "$1" >"$WORK/string"
  engine json-string "$WORK/string"
}
json_or_null() { if [ -n "$1" ]; then json "$1"; else printf null; fi; }

hash_of() {
  if have sha256sum; then sha256sum <"$1" | cut -c 1-16; else cksum <"$1" | tr ' ' '-' | tr -d '\n '; fi
}
flush() { sync "$1" 2>/dev/null || sync; }
# put FILE: standard input becomes FILE, whole or not at all.
put() {
  cat >"$1.tmp" && flush "$1.tmp" && mv -f "$1.tmp" "$1" && flush "${1%/*}"
}
same() { cmp -s "$1" "$2"; }
remembered() { if [ -f "$STATE/$1" ]; then cat "$STATE/$1"; fi; }

show_diff() {
  diff -u "$1" "$2" | sed -e "1s|.*|--- $MANIFEST|" -e "2s|.*|+++ $MANIFEST (changed)|"
}

# ---- the node -----------------------------------------------------------------------------------
# shellcheck disable=SC2012  # readlink is not in POSIX, and these names are the kernel's
link_of() { ls -l "$1" 2>/dev/null | sed 's/.*-> //'; }
arguments() { { tr '\000' '\n' <"$1"; } 2>/dev/null; }   # nothing if the process has ended
# Prints the arguments, one a line, of each process of this mount namespace whose program is $1.
# Each process ends with an empty line; the first line is its id.
processes() {
  own=$(link_of "$ROOT/proc/$$/ns/mnt")
  grep -l "$1" "$ROOT"/proc/[0-9]*/cmdline 2>/dev/null | while IFS= read -r file; do
    dir=${file%/cmdline}
    first=$(arguments "$file" | sed -n 1p)
    if [ "${first##*/}" != "$1" ]; then continue; fi
    if [ "${2:-}" = here ] && [ -n "$own" ]; then
      if [ "$(link_of "$dir/ns/mnt")" != "$own" ]; then continue; fi
    fi
    printf '%s\n' "${dir##*/}"
    arguments "$file"
    printf '\n'
  done
}
# flag_of NAME: the last value of --NAME in the arguments on standard input.
flag_of() {
  awk -v name="--$1" '
    taken { value = $0; taken = 0; next }
    $0 == name { taken = 1; next }
    index($0, name "=") == 1 { value = substr($0, length(name) + 2) }
    END { print value }'
}

# Sets STATIC_PATH from the running kubelet's flags and configuration, or from the usual places.
find_static_path() {
  STATIC_PATH=''
  args=$(processes kubelet here | awk 'started && $0 == "" { exit } { started = 1; print }')
  config=$(printf '%s\n' "$args" | flag_of config)
  drop_in=$(printf '%s\n' "$args" | flag_of config-dir)
  STATIC_PATH=$(printf '%s\n' "$args" | flag_of pod-manifest-path)
  if [ -z "$STATIC_PATH" ]; then
    for file in "$ROOT${config:-/var/lib/kubelet/config.yaml}" ${drop_in:+"$ROOT$drop_in"/*.conf}; do
      if [ ! -r "$file" ]; then continue; fi
      VALUE=staticPodPath
      found=$(engine key "$file") || refuse "$file: $found"
      if [ -n "$found" ]; then
        STATIC_PATH=$found
        case $STATIC_PATH in /*) ;; *) STATIC_PATH=${file%/*}/$STATIC_PATH && STATIC_PATH=${STATIC_PATH#"$ROOT"} ;; esac
      fi
    done
  fi
  STATIC_PATH=$ROOT${STATIC_PATH:-/etc/kubernetes/manifests}
  STATIC_PATH=${STATIC_PATH%/}
}

# inspect FILE: sets APISERVER HITS FLAG AGREES PORT ADDRESS; false with REASON if it cannot be read.
inspect() {
  APISERVER=no HITS=0 FLAG='' AGREES=no PORT='' ADDRESS='' REASON=''
  report=$(engine inspect "$1") || {
    REASON=$report
    return 1
  }
  while IFS=$TAB read -r key value; do
    case $key in
    apiserver) APISERVER=$value ;;
    hits) HITS=$value ;;
    value) FLAG=$value ;;
    agrees) AGREES=$value ;;
    port) PORT=$value ;;
    address) ADDRESS=$value ;;
    esac
  done <<END
$report
END
  PORT=${PORT:-6443}
  ADDRESS=${ADDRESS:-127.0.0.1}
}

# Sets MANIFEST, LIVE and the places of backup, memory and lock.
locate() {
  find_static_path
  if [ -n "$MANIFEST" ]; then
    if [ -d "$MANIFEST" ]; then refuse "--manifest $MANIFEST: is a folder; expected the manifest file in it"; fi
    if [ ! -f "$MANIFEST" ]; then refuse "--manifest $MANIFEST: no such file"; fi
    case $MANIFEST in */*) ;; *) MANIFEST=./$MANIFEST ;; esac
    case ${MANIFEST##*/} in .*) refuse "--manifest $MANIFEST: the kubelet ignores files with a dot name; give the manifest itself" ;; esac
    if [ "$(cd "${MANIFEST%/*}/" && pwd -P)" = "$(cd "$STATIC_PATH" 2>/dev/null && pwd -P)" ]; then LIVE=yes; fi
  else
    LIVE=yes
    if [ ! -d "$STATIC_PATH" ]; then refuse "no folder $STATIC_PATH: is this a control-plane node with static pods? Give --manifest FILE otherwise"; fi
    for file in "$STATIC_PATH"/*; do
      if [ ! -f "$file" ] || ! grep -q kube-apiserver "$file"; then continue; fi
      VALUE=$RANGE
      if ! inspect "$file"; then
        case ${file##*/} in kube-apiserver*) refuse "$file: $REASON" ;; *) continue ;; esac
      fi
      if [ "$APISERVER" != yes ]; then continue; fi
      if [ -n "$MANIFEST" ]; then refuse "two manifests run a kube-apiserver: $MANIFEST and $file; the kubelet reads both (also a backup copy), so move one out of $STATIC_PATH first"; fi
      MANIFEST=$file
    done
    if [ -z "$MANIFEST" ]; then refuse "no kube-apiserver manifest in $STATIC_PATH: is this a control-plane node?"; fi
  fi
  if [ -L "$MANIFEST" ]; then
    MANIFEST=$(readlink -f "$MANIFEST") || refuse "$MANIFEST is a symbolic link that cannot be followed; give the file itself by --manifest"
  fi
  FOLDER=${MANIFEST%/*}
  NAME=${MANIFEST##*/}
  TEMP=$FOLDER/.$NAME.node-port-range.tmp
  PREVIOUS=$FOLDER/.$NAME.node-port-range.previous
  if [ -n "$LIVE" ]; then
    BACKUP=$ROOT/etc/kubernetes/backup
    LOCK=$ROOT/run/node-port-range.lock
    if [ "$(cd "$BACKUP" 2>/dev/null && pwd -P)" = "$STATIC_PATH" ]; then refuse "the kubelet's manifest folder is $BACKUP itself, so there is no safe place for a backup"; fi
    if [ -z "$ROOT" ] && [ "$(id -u)" != 0 ]; then refuse "must run as root on a control-plane node"; fi
  else
    BACKUP=$FOLDER/.$NAME.node-port-range
    LOCK=$FOLDER/.$NAME.node-port-range.lock
  fi
  STATE=$BACKUP/node-port-range
  if [ ! -r "$MANIFEST" ]; then refuse "$MANIFEST cannot be read"; fi
  VALUE=$RANGE
  inspect "$MANIFEST" || refuse "$MANIFEST: $REASON"
  if [ "$APISERVER" != yes ]; then refuse "$MANIFEST: no kube-apiserver container"; fi
}

started_at() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }
# others PREFIX: the ids of other living processes with a file PREFIX.ID.START, where START is when the process was started, so
# that an id that has come round again is not taken for it. What the dead (a kill, lost power) left behind is swept away.
others() {
  for left in "$1".[0-9]*.*; do
    [ -e "$left" ] || continue
    owner=${left#"$1".}
    since=${owner#*.}
    owner=${owner%%.*}
    if [ "$owner" = "$$" ]; then continue; fi
    if [ "$(started_at "$owner")" = "$since" ] && kill -0 "$owner" 2>/dev/null; then printf '%s\n' "$owner"; else rm -rf "$left" 2>/dev/null; fi
  done
}
# A run puts its claim down and holds the lock if it then sees no other claim: of two runs at least one sees the other's. Of
# several that wait, the one with the lowest id keeps its claim and the others come back later.
lock() {
  HELD_LOCK=$LOCK.$$.$(started_at $$)
  waited=0
  while :; do
    { : >"$HELD_LOCK"; } 2>/dev/null || refuse "cannot write $HELD_LOCK; nothing was changed"
    rivals=$(others "$LOCK")
    if [ -z "$rivals" ]; then break; fi
    first=$(printf '%s\n' "$rivals" | sort -n | sed -n 1p)
    if [ "$waited" -ge "$TIMEOUT" ]; then refuse "another run (process $first) holds $LOCK.*; wait for it or stop it"; fi
    if [ "$waited" = 0 ]; then note "waiting for another run (process $first)"; fi
    if [ "$first" -lt "$$" ]; then rm -f "$HELD_LOCK"; fi
    waited=$((waited + 1))
    sleep 1
  done
  # What a run that was killed left behind.
  rm -f "$TEMP" "$STATE"/*.tmp "$BACKUP"/*.tmp
  others "$WORK_PREFIX" >/dev/null
  step lock
}

# ---- the API ------------------------------------------------------------------------------------
admin_conf() { [ -r "$ROOT/etc/kubernetes/admin.conf" ] && have kubectl; }
host_port() { case $ADDRESS in *:*) printf '[%s]:%s' "$ADDRESS" "$PORT" ;; *) printf '%s:%s' "$ADDRESS" "$PORT" ;; esac }
# kubectl against this node's own apiserver, not against whatever a load balancer picks.
api() {
  kubectl --kubeconfig "$ROOT/etc/kubernetes/admin.conf" --server "https://$(host_port)" --tls-server-name kubernetes --request-timeout 10s "$@"
}
# True if this node's /readyz answers 200.
ready() {
  if admin_conf && api get --raw /readyz >/dev/null 2>&1; then return 0; fi
  pki=$ROOT/etc/kubernetes/pki
  set --
  if [ -r "$pki/apiserver-kubelet-client.key" ]; then set -- -cert "$pki/apiserver-kubelet-client.crt" -key "$pki/apiserver-kubelet-client.key"; fi
  if have curl; then
    # A health question, as the kubelet's own probe asks it: the certificate is not checked.
    if [ $# -gt 0 ]; then set -- --cert "$2" --key "$4"; fi
    curl -ksf --max-time 10 "$@" -o /dev/null "https://$(host_port)/readyz"
  elif have openssl; then
    printf 'GET /readyz HTTP/1.0\r\n\r\n' | openssl s_client -quiet "$@" -connect "$(host_port)" 2>/dev/null | sed -n 1p | grep -q ' 200 '
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

# ---- guards -------------------------------------------------------------------------------------
outside() { awk -v range="$1" 'BEGIN { split(range, r, "-"); if (r[2] == "") r[2] = r[1] } $1 < r[1] + 0 || $1 > r[2] + 0 { printf "%s%s (%s)", sep, $2, $1; sep = ", " }'; }
# shellcheck disable=SC2016  # a Go template, not the shell's variables
list_services() {
  api get services --all-namespaces -o go-template='{{range .items}}{{$name := printf "%s/%s" .metadata.namespace .metadata.name}}{{range .spec.ports}}{{if .nodePort}}{{.nodePort}} {{$name}}{{"\n"}}{{end}}{{end}}{{if .spec.healthCheckNodePort}}{{.spec.healthCheckNodePort}} {{$name}}{{"\n"}}{{end}}{{end}}' 2>/dev/null
}
# Ports something on this node listens on, one a line.
listening() {
  cat "$ROOT/proc/net/tcp" "$ROOT/proc/net/tcp6" 2>/dev/null | awk '
    function number(s,   i, v) { v = 0; for (i = 1; i <= length(s); i++) v = v * 16 + index("0123456789ABCDEF", substr(s, i, 1)) - 1; return v }
    $4 == "0A" { n = split($2, part, ":"); print number(part[n]) }' | sort -nu
}
covers() { awk -v a="$1" -v b="$2" 'BEGIN { split(a, x, "-"); split(b, y, "-"); if (y[2] == "") y[2] = y[1]; exit !(x[1] + 0 <= y[1] + 0 && x[2] + 0 >= y[2] + 0) }'; }
# guard NEW: refuses if a Service would be left outside, warns of ports that are in use.
guard() {
  new=$1
  old=${FLAG:-$DEFAULT_RANGE}
  if admin_conf && list_services >"$WORK/services"; then
    lost=$(outside "$new" <"$WORK/services")
    if [ -n "$lost" ]; then
      if covers "$new" "$old"; then warn "Services hold ports outside $new (as before): $lost"
      else refuse "Services hold ports outside $new: $lost; delete them or give them other ports first"; fi
    fi
  elif ! covers "$new" "$old" && [ -z "$SKIP_CHECK" ]; then
    : >"$WORK/services"
    # With the apiserver down there is nobody to ask, and this run may be what brings it back.
    if ready; then refuse "narrowing $old to $new, and the Services cannot be listed (kubectl and /etc/kubernetes/admin.conf are needed); --skip-service-check if you know that none is left outside"; fi
    warn "the apiserver does not answer, so Services outside $new could not be looked for"
  else
    : >"$WORK/services"
  fi
  listening >"$WORK/listening"
  used=$(awk -v range="$new" -v old="$old" 'BEGIN { split(range, r, "-"); split(old, o, "-") } $1 >= r[1] + 0 && $1 <= r[2] + 0 && !($1 >= o[1] + 0 && $1 <= o[2] + 0) { printf "%s%s", sep, $1; sep = " " }' "$WORK/listening")
  if [ -n "$used" ]; then warn "in use on this node and inside the new range: $used; a Service that is given one of them takes it away from its program"; fi
  clash=$(awk 'NR == FNR { used[$1] = 1; next } $1 in used { printf "%s%s (%s)", sep, $2, $1; sep = ", " }' "$WORK/listening" "$WORK/services")
  if [ -n "$clash" ]; then warn "Services hold ports on which a program of this node listens: $clash"; fi
}

# ---- writing ------------------------------------------------------------------------------------
backup() {
  copy="$BACKUP/$NAME.$(date -u +%Y%m%dT%H%M%SZ).$(hash_of "$MANIFEST")"
  cp -p "$MANIFEST" "$BACKUP/$NAME.tmp" && flush "$BACKUP/$NAME.tmp" && mv -f "$BACKUP/$NAME.tmp" "$copy" && flush "$BACKUP" || return 1
  COPY=$copy
  # The names sort by time; the latest five stay. Of several in one second they do not say which is the newest: this one is.
  set -- "$BACKUP/$NAME".[0-9]*T[0-9]*Z.*
  while [ $# -gt 5 ]; do
    if [ "$1" = "$copy" ]; then set -- "$@" "$1"; else rm -f "$1"; fi
    shift
  done
}
# replace FILE: its bytes become the manifest, with the manifest's owner and mode.
replace() {
  rm -f "$TEMP"
  if ! { cp -p "$MANIFEST" "$TEMP" && cat "$1" >"$TEMP" && flush "$TEMP" && same "$1" "$TEMP"; }; then
    rm -f "$TEMP"
    return 1
  fi
  step temp
  mv -f "$TEMP" "$MANIFEST" && flush "$FOLDER"
}
# gave_up MESSAGE: refuses before the manifest was touched; of a first run nothing stays behind.
gave_up() {
  rm -f "$STATE"/*.tmp "$BACKUP"/*.tmp
  if [ -n "$COPY" ]; then rm -f "$COPY"; fi
  if [ -n "$FRESH" ]; then rm -rf "$STATE" && rmdir "$BACKUP" 2>/dev/null; fi
  refuse "$1; nothing was changed"
}
# install FILE: backup, journal and replace; nothing has changed if it fails.
install() {
  if [ -n "$LIVE" ] && [ -z "$(processes kubelet)" ]; then gave_up "no kubelet runs on this node, so nothing would restart kube-apiserver; start it first"; fi
  backup || gave_up "cannot write a backup to $BACKUP"
  step backup
  hash_of "$1" | put "$STATE/written" || gave_up "cannot write to $STATE"
  # The journal is the old file itself under another name: putting it back is one rename, which no full disk can prevent.
  rm -f "$PREVIOUS"
  if ! { { ln "$MANIFEST" "$PREVIOUS" 2>/dev/null || cp -p "$MANIFEST" "$PREVIOUS"; } && flush "$PREVIOUS" && flush "$FOLDER"; }; then
    close_journal
    gave_up "cannot write to $FOLDER"
  fi
  step journal
  WROTE=yes
  if ! replace "$1"; then
    close_journal
    gave_up "cannot write to $FOLDER"
  fi
  step rename
}
# The journal of a run that was cut off is worth something only while its manifest stands.
read_journal() {
  if [ -f "$PREVIOUS" ] && [ "$(remembered written)" != "$(hash_of "$MANIFEST")" ]; then close_journal; fi
}
close_journal() { rm -f "$PREVIOUS" "$STATE/written" "$STATE/original.new"; }

# serve_or_roll_back VALUE: waits; on failure puts the manifest of before back and ends the script.
serve_or_roll_back() {
  if [ -z "$LIVE" ]; then return; fi
  journal=''
  if [ -f "$PREVIOUS" ]; then journal=$PREVIOUS; fi
  if wait_for "$1" "${journal:+"$STATE/written"}"; then return; fi
  note "$PROBLEM"
  last_log_lines >"$WORK/log"
  if [ -z "$journal" ]; then
    note "nothing was written, so there is nothing to put back; last log lines:"
  else
    { mv -f "$journal" "$MANIFEST" && flush "$FOLDER"; } || {
      note "the old manifest could not be put back: copy $journal to $MANIFEST by hand"
      exit 1
    }
    VALUE=$1
    inspect "$MANIFEST" || true
    if wait_for "$FLAG"; then note "the old manifest is back in force; last log lines of the failed start:"
    else note "the old manifest is back, but $PROBLEM; last log lines of the failed start:"; fi
    close_journal
    if [ ! -f "$STATE/applied" ]; then rm -rf "$STATE"; fi
  fi
  sed 's/^/  /' "$WORK/log" >&2
  exit 1
}

# ---- kubeadm-config -----------------------------------------------------------------------------
# read_kubeadm: sets KUBEADM to "value RANGE", "absent", or "" where it cannot be told.
read_kubeadm() {
  KUBEADM=''
  if ! admin_conf || ! api -n kube-system get configmap kubeadm-config -o 'jsonpath={.data.ClusterConfiguration}' >"$WORK/cluster" 2>/dev/null; then return 1; fi
  if [ ! -s "$WORK/cluster" ]; then return 1; fi
  KUBEADM=$(engine cc-get "$WORK/cluster" | tr '\t' ' ') || KUBEADM=''
  [ -n "$KUBEADM" ]
}
# write_kubeadm MODE NOTE: MODE cc-set or cc-remove with $VALUE; NOTE is JSON for the annotation.
write_kubeadm() {
  text=$(engine "$1" "$WORK/cluster" >"$WORK/cluster.new" || cat "$WORK/cluster.new")
  if [ -n "$text" ]; then
    warn "kubeadm-config: $text"
    return
  fi
  version=$(api -n kube-system get configmap kubeadm-config -o 'jsonpath={.metadata.resourceVersion}' 2>/dev/null)
  { printf '{"metadata":{"resourceVersion":"%s","annotations":{"%s":%s}},"data":{"ClusterConfiguration":' "$version" "$CONFIGMAP_NOTE" "$2"
    engine json-string "$WORK/cluster.new"
    printf '}}'; } >"$WORK/patch"
  api -n kube-system patch configmap kubeadm-config --type merge --patch-file "$WORK/patch" >/dev/null 2>"$WORK/error" ||
    warn "kubeadm-config was not changed, a later kubeadm upgrade would lose the range: $(cat "$WORK/error")"
}
kubeadm_note() { api -n kube-system get configmap kubeadm-config -o "jsonpath={.metadata.annotations['$CONFIGMAP_NOTE']}" 2>/dev/null; }
apply_kubeadm() {
  if ! read_kubeadm; then
    warn "the ConfigMap kubeadm-config cannot be read here: a kubeadm upgrade would lose the range"
    return
  fi
  VALUE=$RANGE
  before=$(kubeadm_note)
  if [ "$KUBEADM" = "value $RANGE" ]; then
    # It stood there before it stood in the manifest, and restore is to leave it.
    if [ -z "$before" ] && [ ! -f "$STATE/applied" ] && [ "$(remembered before)" != "$KUBEADM" ]; then write_kubeadm cc-set "$(json "$KUBEADM")"; fi
    return
  fi
  write_kubeadm cc-set "$(json "${before:-$KUBEADM}")"
}
# servers RANGE: "here" or "elsewhere" for each API server of the cluster whose pod has this range.
servers() {
  # shellcheck disable=SC2016  # a Go template
  api -n kube-system get pods -l component=kube-apiserver -o go-template='{{range .items}}{{range .spec.containers}}{{range .command}} {{.}}{{end}}{{range .args}} {{.}}{{end}}{{end}}{{"\n"}}{{end}}' 2>/dev/null |
    awk -v range="$1" -v own="--advertise-address=$ADDRESS" '
      { has = 0; here = 0; for (i = 1; i <= NF; i++) { if ($i ~ /^--service[-_]node[-_]port[-_]range=/) has = substr($i, index($i, "=") + 1) == range; if ($i == own) here = 1 } }
      has { print here ? "here" : "elsewhere" }'
}
restore_kubeadm() {
  if ! read_kubeadm; then return; fi
  if [ -z "$RANGE" ] && [ "$KUBEADM" = "value $(remembered applied)" ]; then
    # The ConfigMap is every node's: it keeps the range until the last node that has it gives it up.
    if servers "$(remembered applied)" | grep -q elsewhere; then
      # The next node's restore looks at this one's pod, in which the kubelet shows the new arguments within 90 s.
      tries=0
      while [ "$tries" -lt 120 ] && servers "$(remembered applied)" | grep -q here; do
        tries=$((tries + 1))
        sleep 1
      done
      note "kubeadm-config keeps $(remembered applied), which other control-plane nodes serve"
      return
    fi
  fi
  if [ -n "$RANGE" ]; then target=$1; else target=$(kubeadm_note); fi
  if [ -z "$target" ]; then
    # An upgrade rewrites the ConfigMap without its annotations; then what the manifest had decides.
    if [ "$KUBEADM" != "value $(remembered applied)" ]; then return; fi
    target=$1
  fi
  case $target in
  absent) write_kubeadm cc-remove null ;;
  value\ *)
    VALUE=${target#value }
    write_kubeadm cc-set null
    ;;
  esac
}

# ---- local port allocation ----------------------------------------------------------------------
SYSCTL=$ROOT/proc/sys/net/ipv4/ip_local_reserved_ports
SYSCTL_FILE=$ROOT/etc/sysctl.d/99-node-port-range.conf
union() {
  printf '%s\n' "$*" | tr -s ', ' '\n' | awk '
    /./ { n = split($0, r, "-"); for (p = r[1] + 0; p <= r[n] + 0; p++) set[p] = 1 }
    END { for (p = 0; p <= 65536; p++) if (p in set) { if (start == "") start = p } else if (start != "") { printf "%s%s", sep, start (p - 1 > start ? "-" p - 1 : ""); sep = ","; start = "" } }'
}
reserve() {
  if [ ! -w "$SYSCTL" ]; then
    warn "$SYSCTL cannot be written; local ports are not reserved"
    return
  fi
  if [ ! -f "$STATE/reserved-before" ]; then put "$STATE/reserved-before" <"$SYSCTL" || return; fi
  all=$(union "$(remembered reserved-before)" "$RANGE")
  if ! { printf '# Written by node-port-range.sh: keeps node ports from local port allocation.\nnet.ipv4.ip_local_reserved_ports = %s\n' "$all" >"$WORK/sysctl" && mkdir -p "${SYSCTL_FILE%/*}"; }; then return; fi
  if ! same "$WORK/sysctl" "$SYSCTL_FILE"; then put "$SYSCTL_FILE" <"$WORK/sysctl" && chmod 644 "$SYSCTL_FILE"; fi
  printf '%s\n' "$all" >"$SYSCTL" || warn "$SYSCTL did not take $all"
}
unreserve() {
  if [ ! -f "$STATE/reserved-before" ]; then return; fi
  rm -f "$SYSCTL_FILE"
  remembered reserved-before >"$SYSCTL" || warn "$SYSCTL could not be put back"
  rm -f "$STATE/reserved-before"
}
reserved() { [ -f "$SYSCTL_FILE" ] && [ "$(union "$(cat "$SYSCTL")" "$RANGE")" = "$(union "$(cat "$SYSCTL")")" ]; }

# ---- commands -----------------------------------------------------------------------------------
# Why the wanted range is not in force, one reason a line.
reasons() {
  if [ "$AGREES" != yes ]; then
    if [ "$HITS" = 0 ]; then echo "the manifest does not have the flag (default $DEFAULT_RANGE)"; else echo "the manifest has $FLAG"; fi
  fi
  if [ -z "$LIVE" ]; then return; fi
  if [ "$AGREES" = yes ] && [ "$SERVING" != "value $RANGE" ]; then echo "the running kube-apiserver serves ${SERVING:-nothing}"; fi
  if [ -n "$KUBEADM" ] && [ "$KUBEADM" != "value $RANGE" ]; then echo "kubeadm-config has ${KUBEADM#value }, so a kubeadm upgrade would lose the range"; fi
  if [ -n "$RESERVE" ] && ! reserved; then echo "the range is not reserved from local port allocation"; fi
}
fresh_mark() {
  { cat "$MANIFEST" "$ROOT/etc/machine-id" "$ROOT/etc/kubernetes/pki/apiserver.crt" 2>/dev/null
    remembered mark
    cat "$WORK/reasons"; } >"$WORK/identity"
  hash_of "$WORK/identity"
}
show() {
  locate
  SERVING='' KUBEADM='' READY=false
  VALUE=$RANGE
  if [ -n "$LIVE" ]; then
    SERVING=$(serving)
    if ready; then READY=true; fi
    if [ "$READY" = true ]; then read_kubeadm || true; fi
  fi
  : >"$WORK/reasons"
  in_force=null mark='' text=''
  if [ -n "$RANGE" ]; then
    if [ -n "$LIVE" ]; then (guard "$RANGE") 2>"$WORK/guard" || sed 's/^node-port-range: //' "$WORK/guard" >>"$WORK/warnings"; fi
    reasons >"$WORK/reasons"
    in_force=false
    if [ ! -s "$WORK/reasons" ]; then
      in_force=true
      mark=$(remembered mark)
    fi
    if [ -z "$mark" ]; then mark=$(fresh_mark); fi
    VALUE=$RANGE
    text=$(engine set "$MANIFEST" >"$WORK/new" && show_diff "$MANIFEST" "$WORK/new") || true
  fi
  if [ -n "$JSON" ]; then
    printf '{"node":%s,"manifest":%s,"flag":%s' "$(json "$(uname -n)")" "$(json "$MANIFEST")" "$(json_or_null "$FLAG")"
    printf ',"serving":%s,"ready":%s,"kubeadmConfig":%s' "$(json_or_null "${SERVING#value }")" "$READY" "$(json_or_null "${KUBEADM#value }")"
    printf ',"before":%s,"inForce":%s,"mark":%s' "$(json_or_null "$(remembered before)")" "$in_force" "$(json_or_null "$mark")"
    for list in reasons warnings; do
      printf ',"%s":[' "$list"
      sep=''
      if [ -f "$WORK/$list" ]; then while IFS= read -r line; do printf '%s%s' "$sep" "$(json "$line")" && sep=,; done <"$WORK/$list"; fi
      printf ']'
    done
    printf ',"diff":%s}\n' "$(json "$text")"
    return
  fi
  printf 'manifest        %s\n' "$MANIFEST"
  printf 'range           %s\n' "${FLAG:-absent (default $DEFAULT_RANGE)}"
  if [ -n "$LIVE" ]; then
    printf 'served          %s\n' "$(printf '%s' "${SERVING#value }" | sed "s/^absent$/absent (default $DEFAULT_RANGE)/;s/^$/no kube-apiserver runs/")"
    printf 'ready           %s\n' "$READY"
    printf 'kubeadm-config  %s\n' "${KUBEADM:-unknown}" | sed 's/value //'
  fi
  if [ -f "$STATE/before" ]; then printf 'before          %s\n' "$(remembered before | sed 's/^value //')"; fi
  if [ -n "$RANGE" ]; then
    printf 'in force        %s\n' "$in_force"
    sed 's/^/                because /' "$WORK/reasons"
    if [ -f "$WORK/warnings" ]; then sed 's/^/warning         /' "$WORK/warnings"; fi
  fi
}

# Writes down what restore will need; done before anything is changed.
remember() {
  mkdir -p "$STATE" || gave_up "cannot write to $BACKUP"
  if [ ! -f "$STATE/before" ]; then
    before=absent
    if [ "$HITS" != 0 ]; then before="value $FLAG"; fi
    if ! { put "$STATE/original" <"$MANIFEST" && printf '%s\n' "$before" | put "$STATE/before"; }; then gave_up "cannot write to $STATE"; fi
  else
    now=$(hash_of "$MANIFEST")
    if [ "$now" != "$(remembered sum)" ] && [ "$now" != "$(remembered written)" ]; then
      # Changed by somebody else since (an upgrade, a hand): what restore puts back follows that file,
      # once this run has succeeded.
      if ! { undo "$WORK/original" && put "$STATE/original.new" <"$WORK/original"; }; then gave_up "cannot write to $STATE"; fi
    fi
  fi
  step state
}
# undo FILE: the manifest with the remembered value instead of ours.
undo() {
  target=$(remembered before)
  case ${target:-absent} in
  absent) engine remove "$MANIFEST" >"$1" ;;
  *)
    VALUE=${target#value }
    engine set "$MANIFEST" >"$1"
    ;;
  esac
}

# Finds the manifest and, unless nothing is to be written, takes the lock and reads it again.
open_manifest() {
  locate
  if [ -n "$DRY_RUN" ]; then return; fi
  if [ -n "$LIVE" ]; then mkdir -p "${LOCK%/*}"; fi
  lock
  # Another run may have changed it while this one waited.
  VALUE=$RANGE
  inspect "$MANIFEST" || refuse "$MANIFEST: $REASON"
}
apply() {
  if [ -z "$RANGE" ]; then refuse "apply needs --range MIN-MAX, such as --range 80-32767"; fi
  open_manifest
  VALUE=$RANGE
  engine set "$MANIFEST" >"$WORK/new" || refuse "$MANIFEST: $(cat "$WORK/new")"
  if [ -n "$LIVE" ] && [ "$AGREES" != yes ]; then guard "$RANGE"; fi
  if [ -n "$DRY_RUN" ]; then
    show_diff "$MANIFEST" "$WORK/new"
    return
  fi
  read_journal
  # Memory of a run that never came to its end is worth nothing once its manifest is gone.
  if [ ! -f "$STATE/applied" ] && [ ! -f "$PREVIOUS" ]; then FRESH=yes && rm -rf "$STATE"; fi
  remember
  : >"$WORK/reasons"
  if [ -z "$MARK" ]; then MARK=$(remembered mark); fi
  if [ -z "$MARK" ]; then MARK=$(fresh_mark); fi
  if [ "$AGREES" != yes ]; then install "$WORK/new"; fi
  serve_or_roll_back "$RANGE"
  step serving
  if [ -n "$LIVE" ]; then
    if [ -n "$RESERVE" ]; then reserve; else unreserve; fi
    step reserve
    apply_kubeadm
    step kubeadm
  fi
  if [ -f "$STATE/original.new" ]; then mv -f "$STATE/original.new" "$STATE/original"; fi
  if ! { printf '%s\n' "$RANGE" | put "$STATE/applied" && hash_of "$MANIFEST" | put "$STATE/sum" && printf '%s\n' "$OWNER" | put "$STATE/owner" && printf '%s\n' "$MARK" | put "$STATE/mark"; }; then
    warn "in force, but it could not be written down in $STATE: run this again once there is room"
  fi
  step record
  close_journal
  if [ -n "$WROTE" ]; then printf '%s in force (was %s)\n' "$RANGE" "${FLAG:-$DEFAULT_RANGE}"; else printf '%s in force already\n' "$RANGE"; fi
}

restore() {
  open_manifest
  since=$(remembered owner)
  if [ -n "$OWNER" ] && [ -n "$since" ] && [ "$OWNER" != "$since" ]; then
    echo "nothing to restore for $OWNER: $since has asked for this node's range since"
    return
  fi
  target=$(remembered before)
  if [ -n "$RANGE" ]; then target="value $RANGE"
  elif [ -z "$target" ]; then
    if [ -n "$LIVE" ]; then
      echo "nothing to restore: no change by this script is remembered on this node (give --range to set one)"
      return
    fi
    target=absent
  fi
  want=''
  if [ "$target" != absent ]; then want=${target#value }; fi
  sum=$(hash_of "$MANIFEST")
  VALUE=$want
  if [ -z "$RANGE" ] && [ -f "$STATE/original.new" ] && [ "$sum" = "$(remembered written)" ]; then
    cp "$STATE/original.new" "$WORK/new"
  elif [ -z "$RANGE" ] && [ -f "$STATE/original" ] && { [ "$sum" = "$(remembered sum)" ] || [ "$sum" = "$(remembered written)" ] || same "$STATE/original" "$MANIFEST"; }; then
    cp "$STATE/original" "$WORK/new"
  elif [ -n "$want" ]; then engine set "$MANIFEST" >"$WORK/new" || refuse "$MANIFEST: $(cat "$WORK/new")"
  else engine remove "$MANIFEST" >"$WORK/new" || refuse "$MANIFEST: $(cat "$WORK/new")"; fi
  if [ -n "$LIVE" ] && ! same "$MANIFEST" "$WORK/new"; then guard "${want:-$DEFAULT_RANGE}"; fi
  if [ -n "$DRY_RUN" ]; then
    show_diff "$MANIFEST" "$WORK/new"
    return
  fi
  mkdir -p "$STATE" || gave_up "cannot write to $BACKUP"
  step state
  read_journal
  if ! same "$MANIFEST" "$WORK/new"; then install "$WORK/new"; fi
  serve_or_roll_back "$want"
  step serving
  if [ -n "$LIVE" ]; then
    unreserve
    step reserve
    restore_kubeadm "$target"
    step kubeadm
    # The old manifest is served: nothing of this script stays on the node.
    close_journal
    rm -f "$BACKUP/$NAME".[0-9]*T[0-9]*Z.*
    rm -rf "$STATE"
    rmdir "$BACKUP" 2>/dev/null || true
  else
    close_journal
    rm -rf "$BACKUP"
  fi
  step record
  printf 'restored: %s\n' "${want:-no flag (default $DEFAULT_RANGE)}"
}

valid_range() {
  printf '%s\n' "$1" | awk '/^[0-9]+-[0-9]+$/ && length($0) <= 11 { split($0, r, "-"); if (r[1] >= 1 && r[1] + 0 <= r[2] + 0 && r[2] <= 65535 && r[1] !~ /^0/ && r[2] !~ /^0/) ok = 1 } END { exit !ok }'
}

main() {
  while [ $# -gt 0 ]; do
    case $1 in
    show | apply | restore)
      if [ -n "$COMMAND" ]; then refuse "two commands: $COMMAND and $1"; fi
      COMMAND=$1
      ;;
    --help | -h)
      usage
      exit 0
      ;;
    --dry-run) DRY_RUN=yes ;;
    --json) JSON=yes ;;
    --reserve-local-ports) RESERVE=yes ;;
    --skip-service-check) SKIP_CHECK=yes ;;
    --range=* | --manifest=* | --timeout=* | --mark=* | --owner=*)
      option=${1%%=*}
      argument=${1#*=}
      shift
      set -- "$option" "$argument" "$@"
      continue
      ;;
    --range | --manifest | --timeout | --mark | --owner)
      if [ $# -lt 2 ] || [ -z "$2" ]; then refuse "$1 needs a value (--help shows all options)"; fi
      case $1 in
      --range) RANGE=$2 ;;
      --manifest) MANIFEST=$2 ;;
      --timeout) TIMEOUT=$2 ;;
      --mark) MARK=$2 ;;
      --owner) OWNER=$2 ;;
      esac
      shift
      ;;
    *) refuse "unknown argument $1 (--help shows all options)" ;;
    esac
    shift
  done
  if [ -z "$COMMAND" ]; then
    usage >&2
    exit 2
  fi
  for text in "$MARK" "$OWNER"; do
    case $text in *[!A-Za-z0-9._-]*) refuse "--mark or --owner $text: expected letters, digits, dots, dashes and underscores" ;; esac
  done
  if [ -n "$RANGE" ] && ! valid_range "$RANGE"; then refuse "--range $RANGE: expected MIN-MAX with 1 <= MIN <= MAX <= 65535, such as 80-32767"; fi
  case $TIMEOUT in '' | *[!0-9]*) refuse "--timeout $TIMEOUT: expected a number of seconds" ;; esac
  if [ -n "$JSON" ] && [ "$COMMAND" != show ]; then refuse "--json belongs to show"; fi
  WORK_PREFIX=${TMPDIR:-/tmp}/node-port-range
  WORK=$WORK_PREFIX.$$.$(started_at $$)
  rm -rf "$WORK"
  mkdir -m 700 "$WORK" || refuse "cannot make the folder $WORK"
  trap cleanup EXIT
  trap interrupted INT TERM
  # A lost SSH connection must not stop a run between the write and the wait: it ends by itself.
  trap '' HUP PIPE
  "$COMMAND"
}

main "$@" </dev/null
