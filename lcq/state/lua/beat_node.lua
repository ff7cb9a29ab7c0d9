-- beat_node: PROCESSING -> the same, or QUEUED where the grant was lost. A node lives: renews its leases, notes
-- progress, and tells it which attempts are no longer its own.
-- KEYS  namespace
-- ARGV  node, boot, telemetry (JSON), readings (JSON, device -> how it is), grace_ms, via (the scheduler), then for
--       each running attempt: id, attempt, progress, stage
-- RETURNS {"ok", status, orders (JSON, "": none), NOW, lost id, lost attempt, …} | {"stale"}
-- A lease that the node does not list, and that is older than the grace or than its hello to this scheduler, never
-- reached it: it is released. (Not where a node has taken its task back to put a result in its place: retake_task.) A beat by another scheduler than the node's is an old one: it says nothing of today.
-- A device's fault that appears or goes is told in an event. Twice a minute its readings are kept for charts: the node's own
-- for an hour, and summed up for the cluster with the minute.
local SAMPLED_MS, SAMPLES, SAMPLES_S = 30000, 120, 7200
local node, boot, telemetry, readings, grace, via = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local name = key("node", node)
local record = read_fields(name, "boot", "status", "readings", "at", "joined_ms", "orders", "sampled_ms")
if record[1] ~= boot or is_elsewhere(record[4], via) then return {"stale"} end
local status = record[2]
if status == "offline" or status == "suspect" then
  local whole = load_node(node)
  if whole.boot ~= boot then return {"stale"} end
  status = whole.wish or (whole.stopping == boot and "draining") or "online"
  redis.call("HSET", name, "status", status)
  if status == "online" then
    redis.call("HDEL", name, "why")
    subscribe(node, whole)
  end
  if status == "quarantined" then redis.call("HSET", name, "why", whole.quarantined_for or "") end
  emit("register_node", {"node", node, "status", status, "why", "back"})
end
if readings ~= record[3] then
  local before, now = decoded(record[3], {}), cjson.decode(readings)
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
if math.abs(NOW - number(record[7])) >= SAMPLED_MS then
  local minute, devices = key("minute", math.floor(NOW / 60000)), {}
  local known = function(value) return type(value) == "number" and math.floor(value + 0.5) or -1 end
  local add = function(field, by)
    if by > 0 then redis.call("HINCRBY", minute, field, by) end
  end
  for device, told in pairs(decoded(readings, {})) do
    local busy = known(type(told.busy) == "number" and told.busy * 100)
    local total, free = known(told.total_mib), known(told.free_mib)
    local used = total >= 0 and free >= 0 and math.max(0, total - free) or -1
    devices[device] = {busy, used, total, known(told.temperature_c), known(told.power_w)}
    if busy >= 0 then
      add("busy_told", 1)
      add("busy_percent", busy)
    end
    if used >= 0 then
      add("used_mib", used)
      add("total_mib", total)
    end
  end
  if next(devices) then
    redis.call("RPUSH", key("use", node), cjson.encode({at = NOW, devices = devices}))
    redis.call("LTRIM", key("use", node), -SAMPLES, -1)
    redis.call("EXPIRE", key("use", node), SAMPLES_S)
    redis.call("EXPIRE", minute, MINUTES_KEPT_S)
  end
  redis.call("HSET", name, "sampled_ms", NOW)
end
redis.call("HSET", name, "seen_ms", NOW, "telemetry", telemetry, "readings", readings)
redis.call("ZADD", key("nodes"), NOW, node)
local answer = {"ok", status, record[6] or "", NOW}
local listed = {}
for i = 7, #ARGV, 4 do
  local id, n = ARGV[i], ARGV[i + 1]
  local t = read_fields(key("task", id), "status", "node", "attempt", "lease_ms")
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
local reached = math.max(NOW - grace, number(record[5]) - 1)
for _, id in ipairs(redis.call("ZRANGEBYSCORE", key("held", node), "-inf", reached)) do
  if not listed[id] then
    local t = load_listed(id)
    if t and t.status == STATE.PROCESSING and t.node == node and not whose_result(id, number(t.attempt)) then
      close_attempt(id, number(t.attempt), "handed_back")
      transition("release_task", id, t, STATE.QUEUED, ended({queued_ms = NOW, why = "the grant never reached " .. node}))
    elseif not (t and t.status == STATE.PROCESSING and t.node == node) then
      redis.call("ZREM", key("held", node), id)
    end
  end
end
return answer
