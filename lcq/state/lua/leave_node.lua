-- leave_node: PROCESSING -> QUEUED. A drained node goes in order; what it still holds goes back into its place.
-- KEYS  namespace
-- ARGV  node, boot
-- RETURNS {"ok", attempts given back} | {"stale"}
local node, boot = unpack(ARGV)
local name = key("node", node)
local record = load_node(node)
if not record or record.boot ~= boot then return {"stale"} end
local was_offline = record.status == "offline"  -- also then it may hold one: a late result that it came back with
local held = redis.call("ZRANGE", key("held", node), 0, -1)
for _, id in ipairs(held) do
  local t = load_listed(id)
  if t and t.status == STATE.PROCESSING and t.node == node then
    close_attempt(id, number(t.attempt), "handed_back")
    transition("release_task", id, t, STATE.QUEUED, ended({queued_ms = NOW, why = "handed back by " .. node}))
  else
    redis.call("ZREM", key("held", node), id)
  end
end
if was_offline then return {"ok", #held} end
unsubscribe(node, record)
redis.call("HSET", name, "status", "offline", "why", "left in order")
redis.call("HDEL", name, "stopping", "hand_back_ms", "orders")
emit("leave_node", {"node", node, "status", "offline", "why", "left in order"})
return {"ok", #held}
