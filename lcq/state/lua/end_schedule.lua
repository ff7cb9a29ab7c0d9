-- end_schedule: a run of a schedule is over: what was due until then is not due any more. Told twice it is once.
-- KEYS  namespace
-- ARGV  name, due_ms, what came of it (JSON)
-- RETURNS {"ok"} | {"again"} | {"missing"}
local name, due_ms, told = key("schedule", ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local since = redis.call("HGET", name, "since_ms")
if not since then return {"missing"} end
if number(since) >= due_ms then return {"again"} end
redis.call("HSET", name, "since_ms", string.format("%.0f", due_ms), "last", told)
emit("end_schedule", {"schedule", ARGV[1], "due_ms", string.format("%.0f", due_ms), "why", decoded(told, {}).told or ""})
return {"ok"}
