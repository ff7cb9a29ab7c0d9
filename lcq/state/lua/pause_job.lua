-- pause_job: nothing of this job starts until it is resumed; what runs goes on. What waits is put aside (move_aside).
-- KEYS  namespace
-- ARGV  job, actor, reason
-- RETURNS {"ok"} | {"missing"} | {"refused", "paused"}
local job, actor, reason = unpack(ARGV)
if not redis.call("ZSCORE", key("jobs"), job) then return {"missing"} end
if redis.call("HEXISTS", key("paused"), job) == 1 then return {"refused", "paused"} end
needs_format_3()
redis.call("HSET", key("paused"), job, cjson.encode({by = actor, reason = reason, at_ms = NOW}))
redis.call("HSET", key("walks"), job, "")
emit("pause_job", {"job", job, "why", "paused by " .. actor .. (reason ~= "" and ": " .. reason or "")})
return {"ok"}
