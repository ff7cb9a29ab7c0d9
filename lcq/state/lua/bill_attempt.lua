-- bill_attempt: what an attempt has cost that ended without a bill. One that still runs tells it itself, or never will: then
-- this is what it has cost (see settle_spend), but where it may make another call after this one.
-- KEYS  namespace
-- ARGV  id, attempt, millionths of the currency, "1" if no call of the attempt comes after this one
-- RETURNS {"ok", millionths} | {"missing"} | {"runs"} | {"again"}
local id, n = ARGV[1], tonumber(ARGV[2])
local record = attempt_record(id, n)
local paid_for = record and record.spend
if type(paid_for) ~= "table" then return {"missing"} end
if not paid_for.settled then
  if ARGV[4] == "1" then
    paid_for.came = tonumber(ARGV[3])
    redis.call("LSET", key("attempts", id), n - 1, cjson.encode(record))
  end
  return {"runs"}
end
if record.paid then return {"again"} end
record.paid = tonumber(ARGV[3])
local cost = math.min(paid_for.worst, record.paid)
write_spend(paid_for, 0, cost - paid_for.settled, 0, cost - paid_for.settled, true)
paid_for.settled, paid_for.told, record.spent = cost, true, cost  -- a node that knows of no bill says no more of it
redis.call("LSET", key("attempts", id), n - 1, cjson.encode(record))
return {"ok", string.format("%.0f", cost)}
