-- forget_tasks: COMPLETED, FAILED or CANCELLED -> nothing, when the record has outlived its retention.
-- KEYS  namespace
-- ARGV  limit
-- RETURNS {"ok", how many}
local due = redis.call("ZRANGEBYSCORE", key("expiry"), "-inf", NOW, "LIMIT", 0, tonumber(ARGV[1]))
for _, id in ipairs(due) do
  local t = load_task(id)
  leave_indexes(id, t)
  for n = 1, redis.call("LLEN", key("attempts", id)) do
    redis.call("ZREM", key("ix", "node", attempt_record(id, n).node), id)
  end
  redis.call("DEL", key("task", id), key("attempts", id), key("idem", t.idem))
  redis.call("ZREM", key("ids"), id)
  if t.job ~= "" then
    redis.call("ZREM", key("ix", "job", t.job), id)
    if redis.call("EXISTS", key("ix", "job", t.job)) == 0 then
      redis.call("DEL", key("job", t.job))
      redis.call("ZREM", key("jobs"), t.job)
    end
  end
  emit("forget_tasks", {"id", id})
end
return {"ok", #due}
