-- resume_schedule: a schedule is run again, at the next time that it is due: what was due meanwhile is not made up for.
-- KEYS  namespace
-- ARGV  name, actor, reason
-- RETURNS {"ok"} | {"refused", "not paused"}
local name = key("schedule", ARGV[1])
if redis.call("HEXISTS", name, "paused_by") == 0 then return {"refused", "not paused"} end
redis.call("HDEL", name, "paused_by", "paused_reason")
if redis.call("HEXISTS", name, "since_ms") == 1 then redis.call("HSET", name, "since_ms", NOW) end
emit("resume_schedule", {"schedule", ARGV[1], "why", "resumed by " .. ARGV[2]})
return {"ok"}
