-- name_bytes: what has come by an address, and could be anything, is of this SHA-256, and about to lie among the blobs.
-- KEYS  namespace
-- ARGV  digest of its token, whose transfer, SHA-256
-- RETURNS {"ok"} | {"lost"} | {"busy"}: the bytes are just being removed, for the last call that had them is over
local digest, holder, sha256 = unpack(ARGV)
local name, users = key("address", digest), key("lent", sha256)
local a = load_hash(name)
if not a or a.holder ~= holder or a.used then return {"lost"} end
if redis.call("SISMEMBER", users, "-") == 1 then return {"busy"} end
if redis.call("SCARD", users) == 0 then redis.call("HSET", name, "first", "1") end  -- as in take_address
redis.call("SADD", users, a.task .. "/" .. a.attempt .. "/" .. a.part)
redis.call("PEXPIRE", users, CALLS_KEPT_MS)
redis.call("HSET", name, "named", sha256)
return {"ok"}
