-- caution_device: a device goes on working, but something is held against it: it is given less ("slow"), or its results
-- are in doubt and it cannot be spared ("doubt").
-- KEYS  namespace
-- ARGV  node, device, what ("slow" or "doubt"), told (of "slow": JSON {times, behind, most, why}, where claim_tasks reads
--       `most`, attempts at a time; of "doubt": words; "": no longer), why (words for the event)
-- RETURNS {"ok"} | {"missing"} | {"no_device"} | {"refused", "quarantined"}
local node, device, what, told, why = unpack(ARGV)
local name = key("node", node)
local record = load_node(node)
if not record then return {"missing"} end
if not decoded(record.by_device, {})[device] and not decoded(record.readings, {})[device] then return {"no_device"} end
if told ~= "" and (record[of("out", device)] or record.status == "quarantined") then return {"refused", "quarantined"} end
if (record[of(what, device)] or "") == told then return {"ok"} end
if told == "" then redis.call("HDEL", name, of(what, device)) else redis.call("HSET", name, of(what, device), told) end
emit("caution_device", {"node", node, "status", shown_status(record), "why", record.why or "", "device", device,
  "what", what, "on", told == "" and 0 or 1, "reason", why})
return {"ok"}
