-- release_models: a node is told, by an event, to free what its loaded models hold. By an operator's wish.
-- KEYS  namespace
-- ARGV  node, reason
-- RETURNS {"ok"} | {"missing"} | {"refused", status}
local node, reason = unpack(ARGV)
local record = redis.call("HMGET", key("node", node), "status", "why")
if not record[1] then return {"missing"} end
if record[1] == "offline" then return {"refused", record[1]} end
emit("release_models", {"node", node, "status", record[1], "why", record[2] or "", "reason", reason})
return {"ok"}
