-- drain_node: the node finishes what it has and takes nothing new, by an operator's wish.
-- KEYS  namespace
-- ARGV  node, why
-- RETURNS {"ok"} | {"missing"} | {"refused", status}
local node, why = unpack(ARGV)
local name = key("node", node)
local record = load_node(node)
if not record then return {"missing"} end
if record.status == "draining" or record.status == "offline" then return {"refused", record.status} end
redis.call("HSET", name, "status", "draining", "wish", "draining", "why", why)
unsubscribe(node, record)
emit("drain_node", {"node", node, "status", "draining", "why", why})
return {"ok"}
