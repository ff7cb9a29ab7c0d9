-- settle_address: a transfer through a one-time address has ended. A whole one uses the address up; after another it is
-- as it was.
-- KEYS  namespace
-- ARGV  digest of its token, whose transfer, whole ("1", "0"), what has come (JSON: sha256, size and what else is told
--       of it; "": nothing), SHA-256 of that, whether the very bytes were among the blobs before ("1", "0", "": nobody
--       has looked)
-- RETURNS {"ok"} | {"lost"} | {"busy"}: the bytes are just being removed, for the last call that had them is over
local digest, holder, whole, left, sha256, was_there = unpack(ARGV)
local name = key("address", digest)
local a = load_hash(name)
if not a or a.holder ~= holder or a.used then return {"lost"} end
redis.call("HDEL", name, "holder", "held_until")
if whole ~= "1" then
  local held = a.named or a.sha256
  if a.method == "put" and held ~= "" then
    local users = key("lent", held)
    redis.call("SREM", users, a.task .. "/" .. a.attempt .. "/" .. a.part)
    -- Only this one could have told whether somebody else has them; who came after it goes by that.
    if a.first == "1" and was_there ~= "0" and redis.call("SCARD", users) > 0 then redis.call("SADD", users, "*") end
    redis.call("HDEL", name, "first", "named")
  end
  return {"ok"}
end
if left ~= "" and redis.call("SISMEMBER", key("lent", sha256), "-") == 1 then return {"busy"} end
redis.call("HSET", name, "used", NOW)
if left ~= "" then
  local book, users = key("call", a.task, a.attempt), key("lent", sha256)
  redis.call("HSET", book, a.part, left)
  redis.call("PEXPIRE", book, CALLS_KEPT_MS)
  redis.call("SADD", users, a.task .. "/" .. a.attempt .. "/" .. a.part)
  -- Not only calls have it then: whoever brought it before is one of its users, and never goes.
  if was_there == "1" and a.first == "1" then redis.call("SADD", users, "*") end
  redis.call("PEXPIRE", users, CALLS_KEPT_MS)
end
return {"ok"}
