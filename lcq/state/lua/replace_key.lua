-- replace_key: whoever has a key has another one from now on; the old one still works for a while.
-- KEYS  namespace
-- ARGV  old key, new key, for how long the old one works, in ms
-- RETURNS {"ok", record} | {"missing"}
local old, new, keep_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local book = key("access")
local record = decoded(redis.call("HGET", book, old) or "", nil)
if not record or not is_live_key(record) or record.role == "invited" then return {"missing"} end
local known = redis.call("HGET", book, new)
if known then return {"ok", known} end
local made = {key = new, name = record.name, role = record.role, node = record.node or "", at_ms = NOW, by = record.name}
record.until_ms = NOW + keep_ms
local text = cjson.encode(made)
redis.call("HSET", book, old, cjson.encode(record), new, text)
emit("replace_key", {"key", new, "name", made.name, "role", made.role, "why", "its key was changed"})
return {"ok", text}
