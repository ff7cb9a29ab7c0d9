-- forget_nodes: removes nodes that have been offline, and unseen, for longer than is worth showing.
-- KEYS  namespace
-- ARGV  silence_ms
-- RETURNS {"ok", how many}
local gone = 0
for _, node in ipairs(redis.call("ZRANGEBYSCORE", key("nodes"), "-inf", NOW - tonumber(ARGV[1]))) do
  local held = redis.call("EXISTS", key("held", node))
  if redis.call("HGET", key("node", node), "status") == "offline" and held == 0 then
    redis.call("DEL", key("node", node), key("blame", node))
    redis.call("ZREM", key("nodes"), node)
    gone = gone + 1
  end
end
return {"ok", gone}
