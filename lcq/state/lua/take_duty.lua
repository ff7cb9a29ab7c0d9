-- take_duty: one scheduler does a timed duty, and keeps it by asking again before its hold runs out.
-- KEYS  namespace
-- ARGV  duty, scheduler, hold_ms (0: it does not want the duty), gap_ms ("": it is no sign that it listens to its nodes)
-- RETURNS {"ok", now_ms} | {"taken", scheduler}
-- With gap_ms it is noted when the scheduler asked last, and since when it has asked with no longer pause than that.
local duty, scheduler, hold_ms, gap_ms = key("duty", ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])
if gap_ms then
  local last, since = (redis.call("HGET", key("listening"), scheduler) or ""):match("^(%d+) (%d+)$")
  if not last or NOW < tonumber(last) or NOW - tonumber(last) > gap_ms then since = string.format("%.0f", NOW) end
  redis.call("HSET", key("listening"), scheduler, string.format("%.0f %s", NOW, since))
end
if tonumber(hold_ms) == 0 then return {"taken", ""} end
local holder = redis.call("GET", duty)
local left_ms = redis.call("PTTL", duty)  -- more than a whole hold, where Redis's clock has been set back: not valid
if holder and holder ~= scheduler and left_ms <= tonumber(hold_ms) then return {"taken", holder} end
redis.call("SET", duty, scheduler, "PX", hold_ms)
return {"ok", NOW}
