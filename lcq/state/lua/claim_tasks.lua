-- claim_tasks: QUEUED -> PROCESSING. Leases up to `want` tasks to one device of a node.
-- KEYS  namespace
-- ARGV  node, boot, device, want, lease_ms, models (JSON list), warm (JSON list), queues (JSON list, own class first)
-- RETURNS {"ok", id, attempt, json, id, attempt, json, …} | {"stale"} | {"refused", node status}
-- Looks at the heads of the node's lanes; within a band a warm model goes first for WARM_SPAN virtual seconds.
local node, boot, device, want, lease_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local models, warm_list, queues = cjson.decode(ARGV[6]), cjson.decode(ARGV[7]), cjson.decode(ARGV[8])
local record = redis.call("HMGET", key("node", node), "boot", "status")
if record[1] ~= boot then return {"stale"} end
if record[2] ~= "online" and record[2] ~= "suspect" then return {"refused", record[2]} end
local warm = {}
for _, model in ipairs(warm_list) do warm[model] = true end

local HEADS = 16  -- how deep a lane is looked into for a task this node may take
local answer = {"ok"}
local paused = {}
local function is_paused(queue)
  if paused[queue] == nil then paused[queue] = redis.call("HGET", key("queue", queue), "paused") == "1" end
  return paused[queue]
end

local function candidates_of(owner)
  local found = {}
  for _, model in ipairs(models) do
    local lane = key("lane", owner, model)
    local heads = redis.call("ZRANGE", lane, 0, HEADS + want - 1, "WITHSCORES")
    local others = owner:sub(1, 1) ~= "@" and redis.call("SCARD", key("subs", owner, model)) > 1
    for i = 1, #heads, 2 do
      local id = heads[i]
      local t = redis.call("HMGET", key("task", id), "avoid", "queue", "priority")
      local shunned = others and t[1] == node
      if not shunned and not is_paused(t[2]) then
        found[#found + 1] = {
          id = id, band = BANDS[t[3]], warm = warm[model] == true, score = tonumber(heads[i + 1]),
        }
      end
    end
  end
  table.sort(found, function(a, b)
    if a.score ~= b.score then return a.score < b.score end
    return a.id < b.id
  end)
  return found
end

-- The best of the list: its head, unless a warm one of the same band is nearly as old.
local function pick(found)
  local best = found[1]
  if best.warm then return 1 end
  for i = 2, #found do
    if found[i].score - best.score > WARM_SPAN then break end
    if found[i].warm and found[i].band == best.band then return i end
  end
  return 1
end

local owners = {"@" .. node}
for _, queue in ipairs(queues) do owners[#owners + 1] = queue end
local granted = 0
for _, owner in ipairs(owners) do
  if granted >= want then break end
  if owner:sub(1, 1) == "@" or not is_paused(owner) then
    local found = candidates_of(owner)
    while granted < want and #found > 0 do
      local id = table.remove(found, pick(found)).id
      local t = load_task(id)
      local n = number(t.attempt) + 1
      redis.call("RPUSH", key("attempts", id), cjson.encode({
        number = n, node = node, device = device, started_ms = NOW, outcome = "running",
      }))
      transition("claim_tasks", id, t, STATE.PROCESSING, {
        attempt = n, node = node, boot = boot, device = device, started_ms = NOW, lease_ms = lease_ms,
        deadline_ms = NOW + lease_ms, progress = "0", stage = "", why = "", avoid = false,
      })
      advance_virtual_time(t)
      answer[#answer + 1] = id
      answer[#answer + 1] = n
      answer[#answer + 1] = t.json
      granted = granted + 1
    end
  end
end
if granted > 0 then tally("claimed", granted) end
return answer
