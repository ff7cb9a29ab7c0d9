-- note_depths: what waits and what runs is kept with the minute, of the cluster and of each queue, for charts; and that
-- what comes into queues and leaves them is counted in it ("flows"): no older scheduler did so.
-- KEYS  namespace
-- ARGV  the queues
-- RETURNS {"ok"}
local minute, counts = key("minute", math.floor(NOW / 60000)), key("counts")
local function count(of)
  local told = redis.call("HMGET", counts, of .. STATE.QUEUED, of .. STATE.PENDING, of .. STATE.PROCESSING)
  return number(told[1]) + number(told[2]), number(told[3])
end
local waiting, running = count("")
local fields = {"waiting", waiting, "running", running, "flows", 1}
for _, queue in ipairs(ARGV) do
  waiting, running = count(queue .. "/")
  fields[#fields + 1] = "waiting/" .. queue
  fields[#fields + 1] = waiting
  fields[#fields + 1] = "running/" .. queue
  fields[#fields + 1] = running
end
redis.call("HSET", minute, unpack(fields))
redis.call("EXPIRE", minute, MINUTES_KEPT_S)
return {"ok"}
