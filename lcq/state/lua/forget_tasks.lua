-- forget_tasks: COMPLETED, FAILED or CANCELLED -> nothing, when the record has outlived its retention.
-- KEYS  namespace
-- ARGV  limit
-- RETURNS {"ok", how many}
local due = redis.call("ZRANGEBYSCORE", key("expiry"), "-inf", NOW, "LIMIT", 0, tonumber(ARGV[1]))
for _, id in ipairs(due) do
  local t, was_damaged = load_listed(id)
  if t and TERMINAL[t.status] and not was_damaged then
    leave_indexes(id, t)
    for n = 1, redis.call("LLEN", key("attempts", id)) do
      local node = attempt_record(id, n).node
      for _, one in ipairs(node ~= "" and {node} or redis.call("ZRANGE", key("nodes"), 0, -1)) do
        redis.call("ZREM", key("ix", "node", one), id)
      end
    end
    redis.call("DEL", key("task", id), key("attempts", id), key("idem", t.idem))
    redis.call("ZREM", key("ids"), id)
    if t.job ~= "" then
      redis.call("ZREM", key("ix", "job", t.job), id)
      if redis.call("EXISTS", key("ix", "job", t.job)) == 0 then
        redis.call("DEL", key("job", t.job))
        redis.call("ZREM", key("jobs"), t.job)
        redis.call("HDEL", key("paused"), t.job)
        redis.call("HDEL", key("walks"), t.job)
      end
    end
    emit("forget_tasks", {"id", id})
  elseif not was_damaged then  -- a damaged one was just isolated, and is kept for as long as others
    redis.call("ZREM", key("expiry"), id)
  end
end
return {"ok", #due}
