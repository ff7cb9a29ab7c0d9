-- window_node: a node's window has closed, or is open: it is drained, or takes work again if its window had drained it. An
-- operator's word since then holds until the window changes again.
-- KEYS  namespace
-- ARGV  node, the closing that is meant ("": it is open), why, "1": what still runs is handed back at once
-- RETURNS {"ok"} | {"again"} (nothing is to be done) | {"missing"}
local node, closing, why, at_once = unpack(ARGV)
local name = key("node", node)
local record = load_node(node)
if not record then return {"missing"} end
if closing == "" then
  if not record.window then return {"again"} end
  redis.call("HDEL", name, "window")
  if not record.window_drains then return {"again"} end
  redis.call("HDEL", name, "window_drains")
  if record.wish ~= "draining" then return {"again"} end  -- somebody has put it into quarantine meanwhile
  redis.call("HDEL", name, "wish", "hand_back_ms")
  if record.stopping then return {"again"} end
  if record.status == "draining" then redis.call("HSET", name, "status", "online", "why", why) end
  record = settle_node(node)
  if record.status == "online" then subscribe(node, record) end
  emit("activate_node", {"node", node, "status", shown_status(record), "why", why})
  return {"ok"}
end
if record.window == closing then return {"again"} end
redis.call("HSET", name, "window", closing)
if record.wish or record.stopping or record.status == "quarantined" then return {"again"} end  -- it takes nothing as it is
redis.call("HSET", name, "wish", "draining", "window_drains", "1", "why", why)
if at_once == "1" then redis.call("HSET", name, "hand_back_ms", NOW) end
if record.status ~= "offline" then
  redis.call("HSET", name, "status", "draining")
  unsubscribe(node, record)
end
record = settle_node(node)
emit("drain_node", {"node", node, "status", record.status, "why", why})
return {"ok"}
