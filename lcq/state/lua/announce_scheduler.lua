-- announce_scheduler: publishes a scheduler's control endpoint for a while; forgets those that fell silent.
-- KEYS  namespace
-- ARGV  scheduler, endpoint, hold_ms, cluster (an id for this cluster, if it has none)
-- RETURNS {"ok", the id of this cluster}
local scheduler, endpoint, hold_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
for name, text in pairs(load_hash(key("schedulers")) or {}) do
  if (tonumber(text:match("^%d+")) or 0) < NOW then redis.call("HDEL", key("schedulers"), name) end
end
for name, text in pairs(load_hash(key("listening")) or {}) do
  if math.abs(NOW - (tonumber(text:match("^%d+")) or 0)) > 60000 then redis.call("HDEL", key("listening"), name) end
end
redis.call("HSET", key("schedulers"), scheduler, string.format("%.0f %s", NOW + hold_ms, endpoint))
redis.call("SET", key("cluster"), ARGV[4], "NX")
return {"ok", redis.call("GET", key("cluster"))}
