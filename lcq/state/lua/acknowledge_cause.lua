-- acknowledge_cause: somebody knows of what failed tasks died of, and says so; or takes that back.
-- KEYS  namespace
-- ARGV  code, what the messages have in common, actor, note, how many are kept: the newest, withdraw ("1")
-- RETURNS {"ok"} | {"missing"} (no task failed so, or nobody has acknowledged it)
local code, text, actor, note, kept, withdraw = unpack(ARGV)
local book, name = key("acks"), code .. ": " .. text
local before = redis.call("HGET", book, name) or ""
if withdraw == "1" then
  if before == "" then return {"missing"} end
  keep_for_undo("cause " .. name, {before = before, made = ""})
  redis.call("HDEL", book, name)
  return {"ok"}
end
if redis.call("SISMEMBER", key("causes"), code) == 0 then return {"missing"} end
local made = cjson.encode({at_ms = NOW, actor = actor, text = note})
keep_for_undo("cause " .. name, {before = before, made = made})
redis.call("HSET", book, name, made)
while redis.call("HLEN", book) > tonumber(kept) do
  local oldest, since
  for field, told in pairs(load_hash(book)) do
    local at = number(tostring(decoded(told, {}).at_ms))
    if field ~= name and (not since or at < since) then oldest, since = field, at end
  end
  redis.call("HDEL", book, oldest)
end
return {"ok"}
