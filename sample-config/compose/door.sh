#!/bin/sh
# The service "door": has the operator's key, and keeps some invitations in /tokens. Each is good for one agent, within
# an hour; no agent sees the key. What is given behind it goes to 'lcq keys invite'.
set -eu
umask 077
cd /tokens
number=0
while :; do
  find . -type f -mmin +30 -delete    # also those that an agent has taken and not used
  while [ "$(find . -name '*.token' | wc -l)" -lt "${SPARE:-4}" ]; do
    number=$((number + 1))
    lcq keys invite --role agent --expires 1h --reason "an agent of compose" "$@" > made || break
    mv made "$(date +%s)-$number.token"
  done
  sleep 2
done
