-- shift_deadlines: Redis's clock has been set. What is judged by it moves along: leases, back-offs, when nodes were seen.
-- KEYS  namespace
-- ARGV  by_ms, how many such moves the scheduler knew of
-- RETURNS {"ok", leases moved} | {"again"}: another scheduler has done it
local by, known = tonumber(ARGV[1]), tonumber(ARGV[2])
if number(redis.call("HGET", key("totals"), "clock_set")) ~= known then return {"again"} end
local leased = redis.call("ZRANGE", key("leases"), 0, -1, "WITHSCORES")
for i = 1, #leased, 2 do
  local deadline = tonumber(leased[i + 1]) + by
  redis.call("ZADD", key("leases"), deadline, leased[i])
  redis.call("HSET", key("task", leased[i]), "deadline_ms", string.format("%.0f", deadline))
end
-- Who asked for a time of day means the clock's; only a back-off is a span of time.
local delayed = redis.call("ZRANGE", key("delayed"), 0, -1, "WITHSCORES")
for i = 1, #delayed, 2 do
  if number(redis.call("HGET", key("task", delayed[i]), "retries")) > 0 then
    local due = tonumber(delayed[i + 1]) + by
    redis.call("ZADD", key("delayed"), due, delayed[i])
    redis.call("HSET", key("task", delayed[i]), "due_ms", string.format("%.0f", due))
  end
end
for _, node in ipairs(redis.call("ZRANGE", key("nodes"), 0, -1)) do
  local seen = string.format("%.0f", number(redis.call("HGET", key("node", node), "seen_ms")) + by)
  redis.call("HSET", key("node", node), "seen_ms", seen)
  redis.call("ZADD", key("nodes"), seen, node)
  for _, id in ipairs(redis.call("ZRANGE", key("held", node), 0, -1)) do
    redis.call("ZINCRBY", key("held", node), by, id)
  end
end
tally("clock_set", 1)
emit("shift_deadlines", {"by_ms", string.format("%.0f", by), "leases", #leased / 2})
return {"ok", #leased / 2}
