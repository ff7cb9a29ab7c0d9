-- stop_node: the node's agent is to drain and end, by an operator's wish. When it is started again it works as before.
-- KEYS  namespace
-- ARGV  node, why, after how many ms what still runs is handed back ("": after its own agent.drain_s)
-- RETURNS {"ok"} | {"missing"} | {"refused", status}
local node, why, deadline = unpack(ARGV)
deadline = tonumber(deadline or "")
local name = key("node", node)
local record = load_node(node)
if not record then return {"missing"} end
if record.status == "offline" then return {"refused", record.status} end
if record.stopping == record.boot then return {"refused", "stopping"} end
redis.call("HSET", name, "status", "draining", "why", why, "stopping", record.boot)
if deadline then redis.call("HSET", name, "hand_back_ms", string.format("%.0f", NOW + deadline)) end
unsubscribe(node, record)
settle_node(node)
emit("stop_node", {"node", node, "status", "draining", "why", why})
return {"ok"}
