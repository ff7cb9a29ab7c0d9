-- settle_probe: a node in quarantine has shown what it can: it is forgiven, on probation, or waits for another probe.
-- KEYS  namespace
-- ARGV  node, boot, passed ("1"), detail, first pause in ms, longest pause in ms, tasks of a probation
-- RETURNS {"ok", status} | {"again"} (no probe of this boot was under way) | {"stale"}
local node, boot, passed, detail, first, longest, tasks = unpack(ARGV)
local name = key("node", node)
local record = load_hash(name)
if not record or record.boot ~= boot then return {"stale"} end
if record.status ~= "quarantined" or record.probing ~= boot then return {"again"} end
local status, why = record.status, ""
redis.call("HDEL", name, "probing")
if passed == "1" then
  status, why = "online", "on probation: it was in quarantine (" .. record.quarantined_for .. ") and passed its probe"
  redis.call("HDEL", name, "wish", "probe_ms", "quarantined_for", "blame", "blame_ms")
  redis.call("HSET", name, "status", status, "probation", tasks)
  subscribe(node, record)
else
  local times = redis.call("HINCRBY", name, "quarantines", 1)
  local pause = math.min(tonumber(longest), tonumber(first) * 2 ^ math.min(times - 1, 30))
  why = record.quarantined_for .. "; probe failed: " .. detail
  redis.call("HSET", name, "probe_ms", NOW + pause)
end
redis.call("HSET", name, "why", why)
emit("settle_probe", {"node", node, "status", status, "why", why, "detail", detail})
return {"ok", status}
