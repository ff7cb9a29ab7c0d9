-- drain_node: the node finishes what it has and takes nothing new, by an operator's wish.
-- KEYS  namespace
-- ARGV  node, why, after how many ms what still runs is handed back ("": it may go on)
-- RETURNS {"ok"} | {"missing"} | {"refused", status}
-- Of a node that drains already only the deadline can be changed.
local node, why, deadline = unpack(ARGV)
deadline = tonumber(deadline or "")
local name = key("node", node)
local record = load_node(node)
if not record then return {"missing"} end
if record.status == "offline" or record.stopping == record.boot then
  return {"refused", record.status == "offline" and "offline" or "stopping"}
end
if record.status == "draining" and not deadline and not record.window_drains then return {"refused", record.status} end
redis.call("HDEL", name, "window_drains")
redis.call("HSET", name, "status", "draining", "wish", "draining", "why", why)
if deadline then
  redis.call("HSET", name, "hand_back_ms", string.format("%.0f", NOW + deadline))
else
  redis.call("HDEL", name, "hand_back_ms")
end
unsubscribe(node, record)
settle_node(node)
emit("drain_node", {"node", node, "status", "draining", "why", why})
return {"ok"}
