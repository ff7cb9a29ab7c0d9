-- suspect_node: a beat of an online node is overdue. Its tasks, and what it is granted, are as before; its next beat
-- brings it back online.
-- KEYS  namespace
-- ARGV  node, boot, since_ms (not if it was seen after this), why
-- RETURNS {"ok"} | {"alive"} | {"stale"} | {"refused", status}
local node, boot, since, why = unpack(ARGV)
local name = key("node", node)
local record = redis.call("HMGET", name, "boot", "status", "seen_ms")
if record[1] ~= boot then return {"stale"} end
if record[2] ~= "online" then return {"refused", record[2]} end
if number(record[3]) > tonumber(since) then return {"alive"} end
redis.call("HSET", name, "status", "suspect", "why", why)
emit("suspect_node", {"node", node, "status", "suspect", "why", why})
return {"ok"}
