-- pause_schedule: a schedule is not run any more until it is resumed, but when somebody asks for it.
-- KEYS  namespace
-- ARGV  name, actor, reason, how many ms it is remembered
-- RETURNS {"ok"} | {"refused", "paused"}
local name = key("schedule", ARGV[1])
if redis.call("HEXISTS", name, "paused_by") == 1 then return {"refused", "paused"} end
redis.call("HSET", name, "paused_by", ARGV[2], "paused_reason", ARGV[3])
redis.call("PEXPIRE", name, ARGV[4])
emit("pause_schedule", {"schedule", ARGV[1], "why", "paused by " .. ARGV[2] .. (ARGV[3] ~= "" and ": " .. ARGV[3] or "")})
return {"ok"}
