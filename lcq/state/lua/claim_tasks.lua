-- claim_tasks: QUEUED -> PROCESSING. Leases up to `want` tasks to one device of a node.
-- KEYS  namespace
-- ARGV  node, boot, device, want, lease_ms, lanes (JSON list), warm models (JSON list), queues (JSON list, own class
--       first), kind of device, fits_mib ("": no limit), needs_mib (JSON, lane -> MiB, where the node itself knows),
--       via (the scheduler)
-- RETURNS {"ok", id, attempt, eased, digest, json, …} | {"stale"} | {"refused", node status}
-- Looks at the heads of the node's lanes; within a band a warm model goes first for WARM_SPAN virtual seconds. What
-- needs more memory than is left keeps its place, and others may pass.
local node, boot, device, want, lease_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local lanes, warm_list, queues = cjson.decode(ARGV[6]), cjson.decode(ARGV[7]), cjson.decode(ARGV[8])
local kind, left = ARGV[9], tonumber(ARGV[10])
local needs = left and cjson.decode(ARGV[11])
local record = read_fields(key("node", node), "boot", "status", "at", "probation")
if record[1] ~= boot or is_elsewhere(record[3], ARGV[12]) then return {"stale"} end  -- nobody would get the grants
if record[2] ~= "online" and record[2] ~= "suspect" then return {"refused", record[2]} end
if record[4] then want = math.min(want, 1 - redis.call("ZCARD", key("held", node))) end  -- on probation: one at a time
local warm, mine = {}, {}
for _, model in ipairs(warm_list) do warm[model] = true end
for _, queue in ipairs(queues) do mine[queue] = true end

local HEADS = 16  -- how deep a lane is looked into for a task this node may take
local ELDERS = 64  -- how many of those that have waited longest are looked at
local answer = {"ok"}
local paused = {}
local function is_paused(queue)
  if paused[queue] == nil then paused[queue] = redis.call("HGET", key("queue", queue), "paused") == "1" end
  return paused[queue]
end

-- Only where another node serves this lane may the one that failed leave a task to others.
local function may_leave(owner, lane)
  return owner:sub(1, 1) ~= "@" and others_serve(owner, lane, node)
end

-- The lanes of tasks that require labels which this node has, beside those of what it can do: by owner.
local labelled = {}
do
  local all, labels = redis.call("SMEMBERS", key("labelled")), nil
  local reads = {}
  for _, lane in ipairs(#all > 0 and lanes or {}) do reads[lane] = true end
  for _, member in ipairs(all) do
    local owner, lane = member:match("^([^:]+):(.*)$")
    local base = lane and lane:match("^[^?]+")
    if reads[base] and (mine[owner] or owner == "@" .. node) then
      labels = labels or labels_of(unpack(read_fields(key("node", node), "labels", "relabelled")))
      if has_labels_for(labels, lane) then
        labelled[owner] = labelled[owner] or {}
        table.insert(labelled[owner], lane)
        if needs then needs[lane] = needs[base] end
      end
    end
  end
end

local function lanes_of(owner)
  if not labelled[owner] then return lanes end
  local both = {unpack(lanes)}
  for _, lane in ipairs(labelled[owner]) do both[#both + 1] = lane end
  return both
end

-- A task that is kept for this node is for those of its devices that serve its queue; where none does, for those of
-- the queue's kind.
local served
local function is_for_this_device(queue)
  if mine[queue] then return true end
  if QUEUE_KINDS[queue] and QUEUE_KINDS[queue] ~= kind then return false end
  if not served then
    served = {}
    for _, names in pairs(decoded(redis.call("HGET", key("node", node), "serves"), {})) do
      for _, name in ipairs(names) do served[name] = true end
    end
  end
  return not served[queue]
end

-- The order above is by service, and users who never came before begin at its virtual time: an endless stream of them
-- would keep it from moving. So one start of a queue in ELDERS_TURN is for the task that has waited longest there, once
-- that is longer by the clock than its band's span. Answers it, if this device may take it.
local function elder_of(owner)
  if number(redis.call("HGET", key("fair", owner), "turn")) < ELDERS_TURN then return nil end
  local reads = {}
  for _, lane in ipairs(lanes_of(owner)) do reads[lane] = true end
  local oldest = redis.call("ZRANGE", key("waiting", owner), 0, ELDERS - 1, "WITHSCORES")
  for i = 1, #oldest, 2 do
    local t = read_fields(key("task", oldest[i]), "avoid", "priority", "vram", "pinned", "model", "lane")
    local lane, band = t[6] or t[5], BANDS[t[2] or ""]  -- neither: it is damaged, and isolated where its turn comes
    local span = math.max(band or 0, ELDERS_WAIT) * 1000
    if band and lane and reads[lane] and t[4] == "" and NOW - tonumber(oldest[i + 1]) >= span
      and not (t[1] == node and may_leave(owner, lane)) then
      local is_warm = warm[lane:match("^[^~?]+")] == true
      local need = left and (needs[lane] or number(t[3])) or 0
      return {
        id = oldest[i], band = band, warm = is_warm, score = -math.huge, is_elder = true,
        need = is_warm and math.floor(need * WARM_NEEDS) or need,
      }
    end
  end
end

local function candidates_of(owner)
  local elder = owner:sub(1, 1) ~= "@" and elder_of(owner) or nil
  local found = {elder}
  local pinned = owner:sub(1, 1) == "@"
  for _, lane in ipairs(lanes_of(owner)) do
    local heads = redis.call("ZRANGE", key("lane", owner, lane), 0, HEADS + want - 1, "WITHSCORES")
    local is_warm = #heads > 0 and warm[lane:match("^[^~?]+")] == true
    local told = left and needs[lane] or 0
    local asked = left and not needs[lane]
    for i = 1, #heads, 2 do
      local id = heads[i]
      local name = key("task", id)
      local t = asked and read_fields(name, "avoid", "priority", "vram")
        or read_fields(name, "avoid", "priority")  -- the fewer the better: this is read of every head
      local takes = not (t[1] == node and may_leave(owner, lane)) and not (elder and elder.id == id)
      if takes and pinned then
        local queue = read_fields(name, "queue")[1]  -- none: it is damaged, and isolated where it is chosen
        takes = not queue or (not is_paused(queue) and is_for_this_device(queue))
      end
      if takes then
        local need = asked and number(t[3]) or told
        found[#found + 1] = {
          id = id, lane = lane, band = BANDS[t[2] or ""], warm = is_warm, score = tonumber(heads[i + 1]),
          need = is_warm and math.floor(need * WARM_NEEDS) or need,
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

-- Those of the list that fit what is left.
local function fitting(found)
  local fit = {}
  for _, one in ipairs(found) do
    if one.need <= left then fit[#fit + 1] = one end
  end
  return fit
end

local function note_start(owner, is_elder)
  local book = key("fair", owner)
  if redis.call("EXISTS", book) == 0 then return end
  if is_elder then redis.call("HSET", book, "turn", 0) else redis.call("HINCRBY", book, "turn", 1) end
end

local owners = {"@" .. node}
for _, queue in ipairs(queues) do owners[#owners + 1] = queue end
local granted = 0
for _, owner in ipairs(owners) do
  if granted >= want then break end
  if owner:sub(1, 1) == "@" or not is_paused(owner) then
    local found = candidates_of(owner)
    if left then found = fitting(found) end
    while granted < want and #found > 0 do
      local chosen = table.remove(found, pick(found))
      local id = chosen.id
      local t = load_listed(id)
      if t and t.status == STATE.QUEUED and is_of_paused_job(t) then
        put_aside(id, t)
      elseif t and t.status == STATE.QUEUED then
        local n = number(t.attempt) + 1
        redis.call("RPUSH", key("attempts", id), cjson.encode({
          number = n, node = node, device = device, started_ms = NOW, outcome = "running", eased = steps_of(t),
        }))
        transition("claim_tasks", id, t, STATE.PROCESSING, {
          attempt = n, node = node, boot = boot, device = device, started_ms = NOW, lease_ms = lease_ms,
          deadline_ms = NOW + lease_ms, progress = "0", stage = "", why = "", avoid = false,
        })
        advance_virtual_time(t)
        if owner:sub(1, 1) ~= "@" then note_start(owner, chosen.is_elder) end
        answer[#answer + 1] = id
        answer[#answer + 1] = n
        answer[#answer + 1] = t.eased or ""
        answer[#answer + 1] = t.digest
        answer[#answer + 1] = t.json
        granted = granted + 1
        if left and chosen.need > 0 then
          left = left - chosen.need
          found = fitting(found)
        end
      else
        redis.call("ZREM", key("lane", owner, chosen.lane), id)
      end
    end
  end
end
if granted > 0 then tally("claimed", granted) end
return answer
