-- revoke_key: a key may connect no more, and what is connected with it is cut by every scheduler.
-- KEYS  namespace
-- ARGV  key, by, reason
-- RETURNS {"ok", record} | {"missing"} | {"again", record} | {"last"} (no other operator's key would be left)
local id, by, reason = unpack(ARGV)
local book = key("access")
local record = decoded(redis.call("HGET", book, id) or "", nil)
if not record then return {"missing"} end
if number(tostring(record.revoked_ms or 0)) > 0 then return {"again", redis.call("HGET", book, id)} end
if record.role == "operator" then
  local others = 0
  for other, text in pairs(load_hash(book) or {}) do
    local told = decoded(text, {})
    if other ~= id and told.role == "operator" and is_live_key(told) then others = others + 1 end
  end
  if others == 0 then return {"last"} end
end
record.revoked_ms, record.revoked_by, record.reason = NOW, by, reason
local text = cjson.encode(record)
redis.call("HSET", book, id, text)
emit("revoke_key", {"key", id, "name", record.name, "role", record.role, "node", record.node or "", "why", reason})
return {"ok", text}
