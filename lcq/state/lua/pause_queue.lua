-- pause_queue: nothing of this queue starts until it is resumed; what runs goes on.
-- KEYS  namespace
-- ARGV  queue, actor, reason
-- RETURNS {"ok"} | {"refused", "paused"}
local queue, actor, reason = unpack(ARGV)
if redis.call("HGET", key("queue", queue), "paused") == "1" then return {"refused", "paused"} end
keep_for_undo("queue " .. queue, {before = {}, paused_ms = tostring(NOW)})
redis.call("HSET", key("queue", queue), "paused", "1", "paused_by", actor, "paused_reason", reason, "paused_ms", NOW)
emit("pause_queue", {"queue", queue, "why", "paused by " .. actor .. (reason ~= "" and ": " .. reason or "")})
return {"ok"}
