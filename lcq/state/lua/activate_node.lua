-- activate_node: a drained or quarantined node takes work again, and nothing is held against it.
-- KEYS  namespace
-- ARGV  node, why
-- RETURNS {"ok"} | {"missing"} | {"refused", status}
local node, why = unpack(ARGV)
local name = key("node", node)
local record = load_node(node)
if not record then return {"missing"} end
if record.status == "offline" and record.wish then  -- it is away: it takes work when it comes back
  redis.call("HDEL", name, "wish")
  emit("activate_node", {"node", node, "status", record.status, "why", record.why or ""})
  return {"ok"}
end
if record.status ~= "draining" and record.status ~= "quarantined" then return {"refused", record.status} end
redis.call("HSET", name, "status", "online", "why", why)
redis.call("HDEL", name, "wish")
clear_name(node)
subscribe(node, record)
emit("activate_node", {"node", node, "status", "online", "why", why})
return {"ok"}
