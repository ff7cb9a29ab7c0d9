-- beat_node: PROCESSING -> the same, or QUEUED where the grant was lost. A node lives: renews its leases, notes
-- progress, and tells it which attempts are no longer its own.
-- KEYS  namespace
-- ARGV  node, boot, telemetry (JSON), readings (JSON, device -> how it is), grace_ms, then for each running attempt:
--       id, attempt, progress, stage
-- RETURNS {"ok", status, lost id, lost attempt, …} | {"stale"}
-- A lease that the node does not list, and that is older than the grace, never reached it: it is released.
-- A device's fault that appears or goes is told in an event.
local node, boot, telemetry, readings, grace = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local name = key("node", node)
local record = redis.call("HMGET", name, "boot", "status", "readings")
if record[1] ~= boot then return {"stale"} end
local status = record[2]
if status == "offline" or status == "suspect" then
  local whole = load_hash(name)
  status = whole.wish or "online"
  redis.call("HSET", name, "status", status)
  if status == "online" then
    redis.call("HDEL", name, "why")
    subscribe(node, whole)
  end
  if status == "quarantined" then redis.call("HSET", name, "why", whole.quarantined_for or "") end
  emit("register_node", {"node", node, "status", status, "why", "back"})
end
if readings ~= record[3] then
  local before, now = cjson.decode(record[3] or "{}"), cjson.decode(readings)
  local function tell(device, fault)
    emit("beat_node", {"node", node, "status", status, "why", redis.call("HGET", name, "why") or "",
      "device", device, "fault", fault})
  end
  for device, told in pairs(now) do
    local fault, known = told.fault or "", before[device] and before[device].fault or ""
    if fault ~= known then tell(device, fault) end
  end
  for device, told in pairs(before) do
    if not now[device] and (told.fault or "") ~= "" then tell(device, "") end
  end
end
redis.call("HSET", name, "seen_ms", NOW, "telemetry", telemetry, "readings", readings)
redis.call("ZADD", key("nodes"), NOW, node)
local answer = {"ok", status}
local listed = {}
for i = 6, #ARGV, 4 do
  local id, n = ARGV[i], ARGV[i + 1]
  local t = redis.call("HMGET", key("task", id), "status", "node", "attempt", "lease_ms")
  if t[1] == STATE.PROCESSING and t[2] == node and t[3] == n then
    local deadline = NOW + number(t[4])
    redis.call("ZADD", key("leases"), deadline, id)
    redis.call("HSET", key("task", id), "deadline_ms", deadline, "progress", ARGV[i + 2], "stage", ARGV[i + 3])
    listed[id] = true
  else
    answer[#answer + 1] = id
    answer[#answer + 1] = n
  end
end
for _, id in ipairs(redis.call("ZRANGEBYSCORE", key("held", node), "-inf", NOW - grace)) do
  if not listed[id] then
    local t = load_task(id)
    close_attempt(id, number(t.attempt), "handed_back")
    transition("release_task", id, t, STATE.QUEUED, ended({queued_ms = NOW, why = "the grant never reached " .. node}))
  end
end
return answer
