-- expire_leases: PROCESSING -> QUEUED or FAILED, for attempts whose lease has run out by Redis's clock.
-- KEYS  namespace
-- ARGV  limit, judged_ms ("": now): when the one who asks was last seen awake; later deadlines are not his to judge,
--       also where Redis's clock may just have been set
-- RETURNS {"ok", id, node, id, node, …}
local due = redis.call("ZRANGEBYSCORE", key("leases"), "-inf", math.min(NOW, tonumber(ARGV[2]) or NOW), "LIMIT", 0, tonumber(ARGV[1]))
local answer = {"ok"}
for _, id in ipairs(due) do
  local t = load_listed(id)
  if t and t.status == STATE.PROCESSING then
    local node = t.node
    tally("expired", 1)
    lapse("expire_leases", id, t, "lease_expired", "node " .. node .. " fell silent")
    answer[#answer + 1] = id
    answer[#answer + 1] = node
  else
    redis.call("ZREM", key("leases"), id)
  end
end
return answer
