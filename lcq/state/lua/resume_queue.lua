-- resume_queue: the tasks of a paused queue may start again.
-- KEYS  namespace
-- ARGV  queue, actor, reason
-- RETURNS {"ok"} | {"refused", "not paused"}
local queue, actor, reason = unpack(ARGV)
local before = load_hash(key("queue", queue)) or {}
if redis.call("HDEL", key("queue", queue), "paused", "paused_by", "paused_reason", "paused_ms") == 0 then
  return {"refused", "not paused"}
end
keep_for_undo("queue " .. queue, {before = before, paused_ms = ""})
emit("resume_queue", {"queue", queue, "why", "resumed by " .. actor .. (reason ~= "" and ": " .. reason or "")})
return {"ok"}
