-- settle_probe: a node, or a device of it, in quarantine has shown what it can: it is forgiven, on probation, or waits
-- for another probe.
-- KEYS  namespace
-- ARGV  node, boot, passed ("1"), detail, first pause in ms, longest pause in ms, tasks of a probation, device ("": the
--       whole node)
-- RETURNS {"ok", status} | {"again"} (no probe of this boot was under way) | {"stale"}
local node, boot, passed, detail, first, longest, tasks, device = unpack(ARGV)
device = device or ""
local name = key("node", node)
local record = load_hash(name)
if not record or record.boot ~= boot then return {"stale"} end
local is_out = record.status == "quarantined"
if device ~= "" then is_out = record[of("out", device)] end
if not is_out or record[of("probing", device)] ~= boot then return {"again"} end
local status, why = "quarantined", ""
local held_for = record[of("quarantined_for", device)] or ""
redis.call("HDEL", name, of("probing", device))
if passed == "1" then
  status, why = "online", "on probation: it was in quarantine (" .. held_for .. ") and passed its probe"
  for _, field in ipairs({"probe_ms", "quarantined_for", "blame", "blame_ms", "out"}) do
    redis.call("HDEL", name, of(field, device))
  end
  redis.call("HSET", name, of("probation", device), tasks)
  if device == "" then
    redis.call("HDEL", name, "wish")
    redis.call("HSET", name, "status", status)
    subscribe(node, record)
  end
else
  local times = redis.call("HINCRBY", name, of("quarantines", device), 1)
  local pause = math.min(tonumber(longest), tonumber(first) * 2 ^ math.min(times - 1, 30))
  why = held_for .. "; probe failed: " .. detail
  redis.call("HSET", name, of("probe_ms", device), NOW + pause)
  if device ~= "" then redis.call("HSET", name, of("out", device), why) end
end
redis.call("HSET", name, of("why", device), why)
record = settle_node(node)
emit("settle_probe", {"node", node, "status", shown_status(record), "why", record.why or "", "detail", detail,
  "device", device})
return {"ok", status}
