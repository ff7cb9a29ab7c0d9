-- release_due: PENDING -> QUEUED, for tasks whose time has come by Redis's clock.
-- KEYS  namespace
-- ARGV  limit
-- RETURNS {"ok", how many}
local due = redis.call("ZRANGEBYSCORE", key("delayed"), "-inf", NOW, "LIMIT", 0, tonumber(ARGV[1]))
for _, id in ipairs(due) do
  transition("release_due", id, load_task(id), STATE.QUEUED, {due_ms = false, queued_ms = NOW})
end
return {"ok", #due}
