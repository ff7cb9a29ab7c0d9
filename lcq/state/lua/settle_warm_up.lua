-- settle_warm_up: what was reserved for calls that wake a function makes way for what they cost; of those that nobody has
-- told of in time, the worst is taken to be true.
-- KEYS  namespace
-- ARGV  id ("": all whose time is over), cost in millionths
-- RETURNS {"ok", how many were settled}: 0 where it was done already
local id, cost = ARGV[1], tonumber(ARGV[2])
local name, settled = key("warm_ups"), 0
local function settle(which, text, paid)
  local bill = decoded(text, nil)
  redis.call("HDEL", name, which)
  if not bill then return end
  local cost = math.min(bill.worst, paid or bill.worst)
  write_spend(bill, -bill.worst, cost, bill.calls, cost - bill.worst, true)
  settled = settled + 1
end
if id ~= "" then
  local text = redis.call("HGET", name, id)
  if text then settle(id, text, cost) end
  return {"ok", settled}
end
local all = redis.call("HGETALL", name)
for i = 1, #all, 2 do
  local bill = decoded(all[i + 1], nil)
  if not bill or number(bill.until_ms) <= NOW then settle(all[i], all[i + 1]) end
end
return {"ok", settled}
