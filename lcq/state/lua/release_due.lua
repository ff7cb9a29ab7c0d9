-- release_due: PENDING -> QUEUED, for tasks whose time has come by Redis's clock.
-- KEYS  namespace
-- ARGV  limit
-- RETURNS {"ok", how many}
local due = redis.call("ZRANGEBYSCORE", key("delayed"), "-inf", NOW, "LIMIT", 0, tonumber(ARGV[1]))
for _, id in ipairs(due) do
  local t = load_listed(id)
  if t and t.status == STATE.PENDING then
    transition("release_due", id, t, STATE.QUEUED, {due_ms = false, queued_ms = NOW})
  else
    redis.call("ZREM", key("delayed"), id)
  end
end
return {"ok", #due}
