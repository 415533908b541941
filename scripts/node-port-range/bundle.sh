#!/bin/sh
# Prints node-port-range.sh and its parts as one text, which is what goes to a node's shell on standard input:
#   sh scripts/node-port-range/bundle.sh | ssh root@NODE sh -s -- show
cd "$(dirname "$0")" && exec awk '
  function part(   line, file, got) {
    file = $0; sub(/.*\$PARTS\//, "", file); sub(/".*/, "", file)
    while ((got = (getline line <file)) > 0) { sub(/\r$/, "", line); print line }
    if (got < 0) { print "bundle.sh: there is no " file >"/dev/stderr"; exit 1 }
  }
  { sub(/\r$/, "") }
  /^\. "\$PARTS\// { part(); next }
  /^case \$0 in .*PARTS=/ { next }
  /^ENGINE=/ { print "ENGINE=$(cat <<\047AWK\047"; part(); print "AWK\n)"; next }
  { print }' node-port-range.sh
