-- wish_warm_up: a node is told, by an event, to wake instances of a function. By an operator's wish, or because overflow is near.
-- KEYS  namespace
-- ARGV  node, device, model, how many calls, pause_ms (within it the function is not woken again; 0: whenever it is asked), reason
-- RETURNS {"ok"} | {"missing"} | {"refused", status} | {"soon"}
local node, device, model, count, pause_ms, reason = unpack(ARGV)
local record = redis.call("HMGET", key("node", node), "status", "why")
if not record[1] then return {"missing"} end
if record[1] == "offline" then return {"refused", record[1]} end
if tonumber(pause_ms) > 0 and not redis.call("SET", key("warmed", device), NOW, "NX", "PX", pause_ms) then return {"soon"} end
emit("wish_warm_up", {"node", node, "status", record[1], "why", record[2] or "", "device", device, "model", model,
  "count", count, "reason", reason})
return {"ok"}
