-- quarantine_node: a node, or one device of it, takes nothing new; what it runs it may finish. The retries it has cost
-- are given back.
-- KEYS  namespace
-- ARGV  node, why, first pause before a probe in ms ("": an operator's word, which only activate_node takes back),
--       longest pause in ms, device ("": the whole node)
-- RETURNS {"ok", tasks that got a retry back} | {"missing"} | {"refused", status} | {"no_device"}
-- Each quarantine before the last probation was over doubles the pause.
local node, why, first, longest, device = unpack(ARGV)
device = device or ""
local name = key("node", node)
local record = load_hash(name)
if not record then return {"missing"} end
if device == "" then
  local takes_work = record.status == "online" or record.status == "suspect"
  local is_held_by_cluster = record.status == "quarantined" and record.probe_ms
  if not takes_work and (first ~= "" or not (is_held_by_cluster or record.status == "draining")) then
    return {"refused", record.status}
  end
else
  if not decoded(record.by_device, {})[device] and not decoded(record.readings, {})[device] then
    return {"no_device"}
  end
  local is_held_by_cluster = record[of("out", device)] and record[of("probe_ms", device)]
  if record[of("out", device)] and (first ~= "" or not is_held_by_cluster) then return {"refused", "quarantined"} end
  if record.status == "quarantined" and first ~= "" then return {"refused", record.status} end
end

-- Takes what failures there have cost off a task that is not over.
local function give_back(id)
  local t = load_task(id)
  if not t or TERMINAL[t.status] then return 0 end
  local given = 0
  for n = number(t.fence) + 1, number(t.attempt) do
    local attempt = attempt_record(id, n)
    if attempt.node == node and (device == "" or attempt.device == device) and attempt.counted then
      if attempt.death then redis.call("HINCRBY", key("task", id), "deaths", -1) end
      redis.call("HINCRBY", key("task", id), "retries", -1)
      attempt.counted, attempt.death = nil, nil
      redis.call("LSET", key("attempts", id), n - 1, cjson.encode(attempt))
      given = 1
    end
  end
  return given
end

local given_back, seen = 0, {}
for _, mark in ipairs(redis.call("ZRANGE", key("blame", node), 0, -1)) do
  local id, on = read_mark(mark)
  if device == "" or on == device then
    if not seen[id] then given_back = given_back + give_back(id) end
    seen[id] = true
    redis.call("ZREM", key("blame", node), mark)
  end
end
for field in pairs(record) do
  local base, on = field:match("^([^@]+)@?(.*)$")
  local is_blame = base == "blame" or base == "blame_ms"
  local is_of_this = base == "probation" or base == "probe_ms" or base == "probing"
  local is_caution = on ~= "" and (base == "slow" or base == "doubt")
  if ((is_blame or is_caution) and (device == "" or on == device)) or (is_of_this and on == device) then
    redis.call("HDEL", name, field)
  end
end
if device == "" then
  redis.call("HSET", name, "status", "quarantined", "wish", "quarantined", "why", why, "quarantined_for", why)
  redis.call("HDEL", name, "stopping")
else
  redis.call("HSET", name, of("out", device), why, of("quarantined_for", device), why)
end
if first ~= "" then
  local times = redis.call("HINCRBY", name, of("quarantines", device), 1)
  local pause = math.min(tonumber(longest), tonumber(first) * 2 ^ math.min(times - 1, 30))
  redis.call("HSET", name, of("probe_ms", device), NOW + pause)
end
unsubscribe(node, record)
record = settle_node(node)
local status = device == "" and "quarantined" or shown_status(record)
emit("quarantine_node", {"node", node, "status", status, "why", device == "" and why or record.why or "",
  "device", device, "reason", why})
return {"ok", given_back}
