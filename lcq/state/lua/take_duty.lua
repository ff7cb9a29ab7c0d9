-- take_duty: one scheduler does a timed duty, and keeps it by asking again before its hold runs out.
-- KEYS  namespace
-- ARGV  duty, scheduler, hold_ms
-- RETURNS {"ok", now_ms} | {"taken", scheduler}
local duty, scheduler, hold_ms = key("duty", ARGV[1]), ARGV[2], ARGV[3]
local holder = redis.call("GET", duty)
local left_ms = redis.call("PTTL", duty)  -- more than a whole hold, where Redis's clock has been set back: not valid
if holder and holder ~= scheduler and left_ms <= tonumber(hold_ms) then return {"taken", holder} end
redis.call("SET", duty, scheduler, "PX", hold_ms)
return {"ok", NOW}
