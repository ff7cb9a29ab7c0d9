-- forget_tasks: COMPLETED, FAILED or CANCELLED -> nothing, when the record has outlived its retention.
-- KEYS  namespace
-- ARGV  limit, prices and how many seconds a day's counters are kept (both as account_tasks has them), by how many ms it must
--       have outlived it, then id, revision of some: then only of those such as are at that revision
-- RETURNS {"ok", how many}
local prices, keep_s, only = decoded(ARGV[2], {}), tonumber(ARGV[3]), nil
local due
if #ARGV > 4 then
  due, only = {}, {}
  for i = 5, #ARGV, 2 do
    local at = redis.call("ZSCORE", key("expiry"), ARGV[i])
    if at and tonumber(at) <= NOW then due[#due + 1] = ARGV[i] end
    only[ARGV[i]] = ARGV[i + 1]
  end
else
  due = redis.call("ZRANGEBYSCORE", key("expiry"), "-inf", NOW - tonumber(ARGV[4]), "LIMIT", 0, tonumber(ARGV[1]))
end
local known, sums, days = {}, {}, {}
for _, id in ipairs(due) do
  local t, was_damaged = load_listed(id)
  if t and TERMINAL[t.status] and not was_damaged and (not only or t.rev == only[id]) then
    bill(id, t, prices, known, sums, days)
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
  elseif not was_damaged and not (t and TERMINAL[t.status]) then  -- a damaged one was just isolated, and is kept for as long as others
    redis.call("ZREM", key("expiry"), id)
  end
end
keep_usage(sums, days, keep_s)
return {"ok", #due}
