-- set_device: how many attempts at a time a device of a node has room for, and which queues it serves, by an
-- operator's wish, which holds until it is taken back: also over restarts of the agent.
-- KEYS  namespace
-- ARGV  node, device, slots ("": as before; 0: its own again), queues (JSON list; "": as before; []: its own again), why
-- RETURNS {"ok"} | {"missing"} | {"no_device"}
local node, device, slots, queues, why = unpack(ARGV)
local name = key("node", node)
local record = load_node(node)
if not record then return {"missing"} end
if not decoded(record.by_device, {})[device] and not decoded(record.readings, {})[device] then return {"no_device"} end
local set = decoded(record.set, {})
local wish = set[device] or {}
if slots ~= "" then wish.slots = tonumber(slots) > 0 and tonumber(slots) or nil end
if queues ~= "" then
  local names = cjson.decode(queues)
  wish.queues = #names > 0 and names or nil
end
wish.why = why
set[device] = (wish.slots or wish.queues) and wish or nil
if next(set) then redis.call("HSET", name, "set", cjson.encode(set)) else redis.call("HDEL", name, "set") end
record = settle_node(node)
emit("set_device", {"node", node, "status", shown_status(record), "why", record.why or "", "device", device,
  "slots", wish.slots or "", "queues", wish.queues and table.concat(wish.queues, ",") or "", "reason", why})
return {"ok"}
