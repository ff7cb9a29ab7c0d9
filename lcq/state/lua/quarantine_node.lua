-- quarantine_node: a node takes nothing new; what it runs it may finish. The retries it has cost are given back.
-- KEYS  namespace
-- ARGV  node, why, first pause before a probe in ms ("": an operator's word, which only activate_node takes back),
--       longest pause in ms
-- RETURNS {"ok", tasks that got a retry back} | {"missing"} | {"refused", status}
-- Each quarantine before the last probation was over doubles the pause.
local node, why, first, longest = unpack(ARGV)
local name = key("node", node)
local record = load_hash(name)
if not record then return {"missing"} end
local takes_work = record.status == "online" or record.status == "suspect"
local is_held_by_cluster = record.status == "quarantined" and record.probe_ms
if not takes_work and (first ~= "" or not (is_held_by_cluster or record.status == "draining")) then
  return {"refused", record.status}
end

-- Takes what this node's failures have cost off a task that is not over.
local function give_back(id)
  local t = load_task(id)
  if not t or TERMINAL[t.status] then return 0 end
  local given = 0
  for n = number(t.fence) + 1, number(t.attempt) do
    local attempt = attempt_record(id, n)
    if attempt.node == node and attempt.counted then
      if attempt.death then redis.call("HINCRBY", key("task", id), "deaths", -1) end
      redis.call("HINCRBY", key("task", id), "retries", -1)
      attempt.counted, attempt.death = nil, nil
      redis.call("LSET", key("attempts", id), n - 1, cjson.encode(attempt))
      given = 1
    end
  end
  return given
end

local given_back = 0
for _, id in ipairs(redis.call("ZRANGE", key("blame", node), 0, -1)) do given_back = given_back + give_back(id) end
redis.call("DEL", key("blame", node))
redis.call("HDEL", name, "blame", "blame_ms", "probation", "probe_ms", "probing")
redis.call("HSET", name, "status", "quarantined", "wish", "quarantined", "why", why, "quarantined_for", why)
if first ~= "" then
  local times = redis.call("HINCRBY", name, "quarantines", 1)
  redis.call("HSET", name, "probe_ms", NOW + math.min(tonumber(longest), tonumber(first) * 2 ^ math.min(times - 1, 30)))
end
unsubscribe(node, record)
emit("quarantine_node", {"node", node, "status", "quarantined", "why", why})
return {"ok", given_back}
