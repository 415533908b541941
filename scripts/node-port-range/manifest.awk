# Reads and edits the kube-apiserver's manifest, kubeadm's ClusterConfiguration and the kubelet's configuration. Standard input
# is the text, standard output the edited text or what was asked for; exit status 3 and one sentence where it is refused.
#   ENGINE_MODE   set, remove, inspect (a manifest), cc-set, cc-remove, cc-get (a ClusterConfiguration), key (one top-level
#                 key's value), json-string (the text as a JSON string)
#   ENGINE_VALUE  the range to set, or the key; ENGINE_SIZE: bytes of the text
#
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
    print "port\t" flag_value("secure-port") "\naddress\t" flag_value("advertise-address") "\nbind\t" flag_value("bind-address") "\n"
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
