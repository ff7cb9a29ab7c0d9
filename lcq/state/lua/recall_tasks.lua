-- recall_tasks: changes no task's state. What was kept back goes to its lane where its user may have more running by now.
-- KEYS  namespace
-- ARGV  how many attempts a user may have running (JSON {default, users}, or "": as many as it likes), limit
-- RETURNS {"ok", how many users still have some kept back}
local limits, most = ARGV[1] ~= "" and cjson.decode(ARGV[1]) or nil, tonumber(ARGV[2])
local LOOKED_AT = 16  -- of what runs: whether it still does
if redis.call("EXISTS", key("overs")) == 0 then return {"ok", 0} end
for _, id in ipairs(redis.call("HRANDFIELD", key("runs"), LOOKED_AT)) do
  -- Of what an earlier LCQ has ended nobody has taken the mark away.
  if read_fields(key("task", id), "status")[1] ~= STATE.PROCESSING then end_running_of_whomever(id) end
end
for _, user in ipairs(redis.call("SRANDMEMBER", key("overs"), 100)) do
  local may = most_running(limits, user)
  local room = may and may - running_of(user) or most
  if room > 0 then call_back(user, math.min(room, most)) end
end
return {"ok", redis.call("SCARD", key("overs"))}
