-- probe_node: asks whether a node in quarantine is to show now that it works again.
-- KEYS  namespace
-- ARGV  node, boot
-- RETURNS {"ok"} | {"not_yet"}
local node, boot = unpack(ARGV)
local name = key("node", node)
local record = redis.call("HMGET", name, "boot", "status", "probe_ms", "probing", "why")
if record[1] ~= boot or record[2] ~= "quarantined" or not record[3] or NOW < number(record[3]) then return {"not_yet"} end
if record[4] ~= boot then
  redis.call("HSET", name, "probing", boot)
  emit("probe_node", {"node", node, "status", record[2], "why", record[5] or ""})
end
return {"ok"}
