-- beat_node: PROCESSING -> the same, or QUEUED where the grant was lost. A node lives: renews its leases, notes
-- progress, and tells it which attempts are no longer its own.
-- KEYS  namespace
-- ARGV  node, boot, telemetry (JSON), grace_ms, then for each running attempt: id, attempt, progress, stage
-- RETURNS {"ok", status, lost id, lost attempt, …} | {"stale"}
-- A lease that the node does not list, and that is older than the grace, never reached it: it is released.
local node, boot, telemetry, grace = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local name = key("node", node)
local record = redis.call("HMGET", name, "boot", "status")
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
  emit("register_node", {"node", node, "status", status, "why", "back"})
end
redis.call("HSET", name, "seen_ms", NOW, "telemetry", telemetry)
redis.call("ZADD", key("nodes"), NOW, node)
local answer = {"ok", status}
local listed = {}
for i = 5, #ARGV, 4 do
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
