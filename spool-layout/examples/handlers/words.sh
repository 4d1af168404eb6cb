#!/bin/sh
# words.sh FILE OUT: count what is in FILE, for whoever dropped it.
set -eu
file=$1 out=$2
wc -- "$file" | awk '{print "lines " $1; print "words " $2; print "bytes " $3}' > "$out/counts.txt"
echo "counted $(basename -- "$file")"
