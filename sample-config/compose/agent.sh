#!/bin/sh
# How an agent starts: the first time it takes one of the invitations of "door", and gets a key of its own by that, in
# the volume of its container; with what is given behind it 'lcq-agent' works from then on.
set -eu
keys="${LCQ_DATA_DIR:-/var/lib/lcq}/keys"
until ls "$keys"/node-*.json > /dev/null 2>&1; do
  for token in /tokens/*.token; do
    taken="$token.$(hostname)"
    mv "$token" "$taken" 2> /dev/null || continue    # there is none yet, or another agent was first
    lcq-agent join - < "$taken" || echo "that invitation was of no use: the next one is tried" >&2
    rm -f "$taken"
    break
  done
  sleep 1
done
exec lcq-agent "$@"
