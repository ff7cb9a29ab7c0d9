-- activate_node: a drained or quarantined node, or a quarantined device of it, takes work again, and nothing is held
-- against it. Of the whole node: also against its devices.
-- KEYS  namespace
-- ARGV  node, why, device ("": the whole node)
-- RETURNS {"ok"} | {"missing"} | {"refused", status} | {"no_device"}
local node, why, device = unpack(ARGV)
device = device or ""
local name = key("node", node)
local record = load_node(node)
if not record then return {"missing"} end
if device ~= "" then
  if not record[of("out", device)] and not record[of("slow", device)] and not record[of("doubt", device)] then
    local is_known = decoded(record.by_device, {})[device] or decoded(record.readings, {})[device]
    return is_known and {"refused", "not in quarantine"} or {"no_device"}
  end
  clear_name(node, device)
  redis.call("HDEL", name, of("why", device))
  record = settle_node(node)
  emit("activate_node", {"node", node, "status", shown_status(record), "why", record.why or "", "device", device,
    "reason", why})
  return {"ok"}
end
if record.status == "offline" and record.wish then  -- it is away: it takes work when it comes back
  redis.call("HDEL", name, "wish", "hand_back_ms", "window_drains")
  settle_node(node)
  emit("activate_node", {"node", node, "status", record.status, "why", record.why or ""})
  return {"ok"}
end
local has_out = false
for field in pairs(record) do
  local base = field:match("^([^@]+)@")
  has_out = has_out or base == "out" or base == "slow" or base == "doubt"
end
if record.stopping then return {"refused", "stopping"} end
if record.status ~= "draining" and record.status ~= "quarantined" and not has_out then return {"refused", record.status} end
if record.status ~= "offline" and record.status ~= "suspect" then redis.call("HSET", name, "status", "online", "why", why) end
redis.call("HDEL", name, "wish", "hand_back_ms", "window_drains")
clear_name(node, "")
record = settle_node(node)
if record.status == "online" or record.status == "suspect" then subscribe(node, record) end
emit("activate_node", {"node", node, "status", shown_status(record), "why", record.why or ""})
return {"ok"}
