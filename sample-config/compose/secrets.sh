#!/bin/sh
# Makes secrets/ beside compose.yaml: a password for Redis, once as Valkey wants it and once as a scheduler does.
# The folder is for its owner alone; the files in it are read by the users of the containers.
set -eu
cd "$(dirname "$0")"
mkdir -m 0700 secrets
password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
cat > secrets/users.acl <<ACL
user default on nopass resetchannels -@all +ping
user lcq on >$password ~{lcq}* resetchannels +@all -@dangerous -@admin +info +role +config|get
ACL
echo "redis: {url: \"redis://lcq:$password@valkey:6379/0\"}" > secrets/scheduler.yaml
chmod 0444 secrets/users.acl secrets/scheduler.yaml
echo "made $(pwd)/secrets"
