-- shift_deadlines: Redis's clock has been set. What is judged by it moves along: leases, back-offs, when nodes were seen.
-- KEYS  namespace
-- ARGV  by_ms, how many such moves the scheduler knew of
-- RETURNS {"ok", leases moved} | {"again"}: another scheduler has done it
local by, known = tonumber(ARGV[1]), tonumber(ARGV[2])
if number(redis.call("HGET", key("totals"), "clock_set")) ~= known then return {"again"} end
local BACK_OFF_MS = 3600000  -- no longer one is likely

-- Where ``at`` belongs by the clock as it is now. What was written since it was set (by a beat, by a claim) is there
-- already; it is told apart by ``latest``, beyond which nothing can be that was written by this clock. A small step
-- moves all: who is told apart wrongly by so little has his next beat to say better, before he is judged.
local function moved(at, latest, slack)
  if math.abs(by) > slack and ((by < 0 and at <= latest) or (by > 0 and at + by > latest)) then return at end
  return at + by
end

local leased, count = redis.call("ZRANGE", key("leases"), 0, -1, "WITHSCORES"), 0
for i = 1, #leased, 2 do
  local lease_ms = number(redis.call("HGET", key("task", leased[i]), "lease_ms"))
  local deadline = moved(tonumber(leased[i + 1]), NOW + lease_ms, lease_ms)
  if deadline ~= tonumber(leased[i + 1]) then count = count + 1 end
  redis.call("ZADD", key("leases"), deadline, leased[i])
  redis.call("HSET", key("task", leased[i]), "deadline_ms", string.format("%.0f", deadline))
end
-- Who asked for a time of day means the clock's; only a back-off is a span of time.
local delayed = redis.call("ZRANGE", key("delayed"), 0, -1, "WITHSCORES")
for i = 1, #delayed, 2 do
  if number(redis.call("HGET", key("task", delayed[i]), "retries")) > 0 then
    local due = moved(tonumber(delayed[i + 1]), NOW + BACK_OFF_MS, BACK_OFF_MS)
    redis.call("ZADD", key("delayed"), due, delayed[i])
    redis.call("HSET", key("task", delayed[i]), "due_ms", string.format("%.0f", due))
  end
end
for _, node in ipairs(redis.call("ZRANGE", key("nodes"), 0, -1)) do
  local known = redis.call("HMGET", key("node", node), "seen_ms", "lease_ms")
  local seen = string.format("%.0f", moved(number(known[1]), NOW, number(known[2])))
  redis.call("HSET", key("node", node), "seen_ms", seen)
  redis.call("ZADD", key("nodes"), seen, node)
  local hand_back = redis.call("HGET", key("node", node), "hand_back_ms")
  if hand_back then
    redis.call("HSET", key("node", node), "hand_back_ms", string.format("%.0f", number(hand_back) + by))
    settle_node(node)
  end
  local held = redis.call("ZRANGE", key("held", node), 0, -1, "WITHSCORES")
  for i = 1, #held, 2 do
    redis.call("ZADD", key("held", node), moved(tonumber(held[i + 1]), NOW, number(known[2])), held[i])
  end
end
-- Only what is predicted, so that nothing hangs on one that was written since.
local ends = redis.call("ZRANGE", key("ends"), 0, -1, "WITHSCORES")
for i = 1, #ends, 2 do redis.call("ZADD", key("ends"), tonumber(ends[i + 1]) + by, ends[i]) end
tally("clock_set", 1)
emit("shift_deadlines", {"by_ms", string.format("%.0f", by), "leases", count})
return {"ok", count}
