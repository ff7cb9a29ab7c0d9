-- reserve_warm_up: reserves the worst price of calls that wake a function, as many of them as the budget allows. They are
-- of nobody's job and no user: the limits of the hour, the day and the month hold.
-- KEYS  namespace
-- ARGV  id, node, boot, device, count, hold_ms (after it, unheard of, they count as paid), bill (JSON: worst, what a call
--       costs at most, and the limits that there are of hour, day, month; in millionths)
-- RETURNS {"ok", how many calls, the span that allows no more ("": it allows all)} | {"stale"}
local KEPT_S = 172800  -- the longest that a hold may be, and a day
local id, node, boot, device, count, hold_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
if redis.call("HGET", key("node", node), "boot") ~= boot then return {"stale"} end
local before = decoded(redis.call("HGET", key("warm_ups"), id) or "", nil)
if before then return {"ok", before.calls, ""} end
local told, windows, lacking = cjson.decode(ARGV[7]), spend_windows(), ""
for _, span in ipairs({"hour", "day", "month"}) do
  if told[span] and told.worst > 0 then
    local read = redis.call("HMGET", key("spend", span, windows[span]), "spent", "reserved")
    local room = math.max(0, math.floor((told[span] - number(read[1]) - number(read[2])) / told.worst))
    if room < count then count, lacking = room, span end
  end
end
if count == 0 then return {"ok", 0, lacking} end
local bill = {
  worst = count * told.worst, calls = count, hour = windows.hour, day = windows.day, month = windows.month,
  on_day = windows.on_day, at = node .. "/" .. device, until_ms = NOW + hold_ms,
}
redis.call("HSET", key("warm_ups"), id, cjson.encode(bill))
redis.call("EXPIRE", key("warm_ups"), KEPT_S)
write_spend(bill, bill.worst, 0, 0, bill.worst)
return {"ok", count, lacking}
