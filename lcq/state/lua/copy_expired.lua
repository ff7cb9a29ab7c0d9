-- copy_expired: reads the records of tasks that have outlived their retention, whole, for the archive. Nothing is changed.
-- KEYS  namespace
-- ARGV  limit
-- RETURNS {"ok", then as copy_tasks has them}
local answer = {"ok"}
for _, id in ipairs(redis.call("ZRANGEBYSCORE", key("expiry"), "-inf", NOW, "LIMIT", 0, tonumber(ARGV[1]))) do
  copy_task(id, answer)
end
return answer
