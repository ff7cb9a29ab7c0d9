-- probe_node: asks whether a node, or a device of it, in quarantine is to show now that it works again.
-- KEYS  namespace
-- ARGV  node, boot, device ("": the whole node)
-- RETURNS {"ok"} | {"not_yet"}
local node, boot, device = unpack(ARGV)
device = device or ""
local name = key("node", node)
local record = redis.call("HMGET", name, "boot", "status", of("probe_ms", device), of("probing", device), "why", of("out", device))
local is_out = record[2] == "quarantined"
if device ~= "" then is_out = (record[6] or false) ~= false end
if record[1] ~= boot or not is_out or not record[3] or NOW < number(record[3]) then return {"not_yet"} end
if record[4] ~= boot then
  redis.call("HSET", name, of("probing", device), boot)
  emit("probe_node", {"node", node, "status", shown_status(load_hash(name)), "why", record[5] or "", "device", device})
end
return {"ok"}
