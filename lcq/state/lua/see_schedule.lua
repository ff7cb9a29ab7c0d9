-- see_schedule: tells what is kept of a schedule, and begins with it where it is new, or is due at other times than before:
-- then what was due earlier is nobody's.
-- KEYS  namespace
-- ARGV  name, when it is due (its expression and time zone), how many ms it is remembered after this
-- RETURNS {"ok", NOW, since_ms, paused_by ("": it is not), paused_reason}
local name, mark, keep_ms = key("schedule", ARGV[1]), ARGV[2], ARGV[3]
local known = redis.call("HMGET", name, "mark", "since_ms", "paused_by", "paused_reason")
if known[1] ~= mark then
  redis.call("HSET", name, "mark", mark, "since_ms", NOW)
  known[2] = tostring(NOW)
end
redis.call("PEXPIRE", name, keep_ms)
return {"ok", NOW, known[2], known[3] or "", known[4] or ""}
