-- resume_job: a paused job goes on. What was put aside comes back in its old places (move_aside).
-- KEYS  namespace
-- ARGV  job, actor, reason
-- RETURNS {"ok"} | {"missing"} | {"refused", "not paused"}
local job, actor, reason = unpack(ARGV)
if not redis.call("ZSCORE", key("jobs"), job) then return {"missing"} end
if redis.call("HDEL", key("paused"), job) == 0 then return {"refused", "not paused"} end
redis.call("HSET", key("walks"), job, "")
emit("resume_job", {"job", job, "why", "resumed by " .. actor .. (reason ~= "" and ": " .. reason or "")})
return {"ok"}
