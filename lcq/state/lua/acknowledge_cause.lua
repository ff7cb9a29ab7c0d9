-- acknowledge_cause: somebody knows of what failed tasks died of, and says so; or takes that back.
-- KEYS  namespace
-- ARGV  code, what the messages have in common, actor, note, how many are kept: the newest, withdraw ("1")
-- RETURNS {"ok"} | {"missing"} (no task failed so, or nobody has acknowledged it)
local code, text, actor, note, kept, withdraw = unpack(ARGV)
local book, name = key("acks"), code .. ": " .. text
if withdraw == "1" then return redis.call("HDEL", book, name) == 1 and {"ok"} or {"missing"} end
if redis.call("SISMEMBER", key("causes"), code) == 0 then return {"missing"} end
redis.call("HSET", book, name, cjson.encode({at_ms = NOW, actor = actor, text = note}))
while redis.call("HLEN", book) > tonumber(kept) do
  local oldest, since
  for field, told in pairs(load_hash(book)) do
    local at = number(tostring(decoded(told, {}).at_ms))
    if field ~= name and (not since or at < since) then oldest, since = field, at end
  end
  redis.call("HDEL", book, oldest)
end
return {"ok"}
