-- take_duty: one scheduler does a timed duty, and keeps it by asking again before its hold runs out.
-- KEYS  namespace
-- ARGV  duty, scheduler, hold_ms
-- RETURNS {"ok", now_ms} | {"taken", scheduler}
local duty, scheduler, hold_ms = key("duty", ARGV[1]), ARGV[2], ARGV[3]
local holder = redis.call("GET", duty)
if holder and holder ~= scheduler then return {"taken", holder} end
redis.call("SET", duty, scheduler, "PX", hold_ms)
return {"ok", NOW}
