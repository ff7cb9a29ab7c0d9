-- register_node: PROCESSING -> QUEUED or FAILED, for attempts of an earlier boot. A node says hello.
-- KEYS  namespace
-- ARGV  node, boot, capability (JSON), serves (JSON), lanes (JSON list of "queue:model"), beat_ms and lease_ms (what it
--       is told: by these, and by no other scheduler's settings, its silence is judged), via (the scheduler),
--       labels (JSON: those it told), home (of its data folder; "" by an older agent), by_device (JSON: device -> the
--       queues it is good for, and its lanes in each)
-- RETURNS {"ok", status, attempts given up, serves (JSON), orders (JSON, "": none), NOW}
--         | {"stale"} (this boot was replaced by a newer one)
--         | {"taken", host} (an agent of another data folder lives under this name)
local node, boot, capability, serves, lanes, beat_ms, lease_ms, via, labels, home, by_device = unpack(ARGV)
local name = key("node", node)
local record = load_node(node)
local status, given_up = "online", 0
local retired = record and decoded(record.retired, {}) or {}
if record then
  for _, old in ipairs(retired) do
    if old == boot then return {"stale"} end
  end
  local is_silent = NOW - number(record.seen_ms) >= math.max(number(record.lease_ms), number(lease_ms))
  if home ~= "" and (record.home or "") ~= "" and record.home ~= home and record.status ~= "offline" and not is_silent then
    return {"taken", tostring(decoded(record.capability, {}).host or "")}
  end
  unsubscribe(node, record)
  if record.boot ~= "" and record.boot ~= boot then  -- "": damaged, and whose leases these are the beats will tell
    given_up = lapse_all("register_node", node, "node_restarted", "node " .. node .. " was restarted")
    table.insert(retired, 1, record.boot)
    retired[9] = nil  -- eight generations are memory enough
  end
  if record.wish then status = record.wish end  -- a drain or a quarantine outlives a restart of the agent
  if record.stopping == boot then
    status = "draining"
  else
    redis.call("HDEL", name, "stopping")
    if record.wish ~= "draining" then redis.call("HDEL", name, "hand_back_ms") end
  end
end
redis.call("HSET", name, "boot", boot, "status", status, "capability", capability, "serves", serves,
  "lanes", lanes, "labels", labels, "home", home, "beat_ms", beat_ms, "lease_ms", lease_ms, "registered_ms", NOW, "seen_ms", NOW, "retired", #retired > 0 and cjson.encode(retired) or "[]",
  "by_device", by_device)
if status == "online" then
  redis.call("HDEL", name, "why")
  subscribe(node, {lanes = lanes})
end
local now = settle_node(node)
if not record or record.boot ~= boot or record.at ~= via then
  redis.call("HSET", name, "at", via, "joined_ms", NOW)  -- no answer that another scheduler has sent arrives after this
end
if status == "quarantined" then redis.call("HSET", name, "why", record.quarantined_for or "") end
redis.call("ZADD", key("nodes"), NOW, node)
emit("register_node", {"node", node, "status", shown_status(now), "why", redis.call("HGET", name, "why") or ""})
return {"ok", status, given_up, now.serves, redis.call("HGET", name, "orders") or "", NOW}
