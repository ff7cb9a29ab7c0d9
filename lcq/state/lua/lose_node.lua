-- lose_node: PROCESSING -> QUEUED or FAILED. A node's process died or fell silent; its attempts run elsewhere at once.
-- KEYS  namespace
-- ARGV  node, boot ("" for any), since_ms (no loss if it was seen after this), code, message
-- RETURNS {"ok", attempts given up} | {"stale"} | {"alive"} | {"again"}
local node, boot, since, code, message = unpack(ARGV)
local name = key("node", node)
local record = load_node(node)
if not record or (boot ~= "" and record.boot ~= boot) then return {"stale"} end
if number(record.seen_ms) > tonumber(since) then return {"alive"} end
if record.status == "offline" then return {"again"} end
unsubscribe(node, record)
redis.call("HSET", name, "status", "offline", "why", message)
local given_up = lapse_all("lose_node", node, code, message)
emit("lose_node", {"node", node, "status", "offline", "why", message})
return {"ok", given_up}
