-- settle_address: a transfer through a one-time address has ended. A whole one uses the address up; after another it is
-- as it was.
-- KEYS  namespace
-- ARGV  digest of its token, whose transfer, whole ("1", "0"), what has come (JSON: sha256, size and what else is told
--       of it; "": nothing), SHA-256 of that, "1" if the very bytes were among the blobs before
-- RETURNS {"ok"} | {"lost"} | {"busy"}: the bytes are just being removed, for the last call that had them is over
local digest, holder, whole, left, sha256, was_there = unpack(ARGV)
local name = key("address", digest)
local a = load_hash(name)
if not a or a.holder ~= holder or a.used then return {"lost"} end
redis.call("HDEL", name, "holder", "held_until")
if whole ~= "1" then return {"ok"} end
if left ~= "" and redis.call("SISMEMBER", key("lent", sha256), "-") == 1 then return {"busy"} end
redis.call("HSET", name, "used", NOW)
if left ~= "" then
  local book, users = key("call", a.task, a.attempt), key("lent", sha256)
  redis.call("HSET", book, a.part, left)
  redis.call("PEXPIRE", book, CALLS_KEPT_MS)
  redis.call("SADD", users, a.task .. "/" .. a.attempt .. "/" .. a.part)
  local is_first = a.first == "1" or (a.sha256 == "" and redis.call("SCARD", users) == 1)
  -- Not only calls have it then: whoever brought it before is one of its users, and never goes.
  if was_there == "1" and is_first then redis.call("SADD", users, "*") end
  redis.call("PEXPIRE", users, CALLS_KEPT_MS)
end
return {"ok"}
