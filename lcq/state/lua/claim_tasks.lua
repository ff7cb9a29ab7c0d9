-- claim_tasks: QUEUED -> PROCESSING. Leases up to `want` tasks to one device of a node.
-- KEYS  namespace
-- ARGV  node, boot, device, want, lease_ms, lanes (JSON list), warm models (JSON list), queues (JSON list, own class
--       first), kind of device, fits_mib ("": no limit), needs_mib (JSON, lane -> MiB, where the node itself knows),
--       via (the scheduler), how many attempts a user may have running (JSON {default, users}; "": as many as it likes),
--       costs (JSON, see below; "": none), patience (JSON, see below; "": none)
-- RETURNS {"ok" or "held", id, attempt, eased, digest, json, …} | {"stale"} | {"refused", node status}; "held": some were
--         left for faster devices
--         | {"more"}: nothing yet, but not all was looked at; ask again
-- Looks at the heads of the node's lanes; within a band a warm model goes first for WARM_SPAN virtual seconds. What
-- needs more memory than is left keeps its place, and others may pass. Which of the user's tasks gets the place that has
-- come up its jobs decide (_order.lua). Who has as much running as it may is passed over, see there too.
local node, boot, device, want, lease_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local lanes, warm_list, queues = cjson.decode(ARGV[6]), cjson.decode(ARGV[7]), cjson.decode(ARGV[8])
local kind, left = ARGV[9], tonumber(ARGV[10])
local needs = left and cjson.decode(ARGV[11])
local record = read_fields(key("node", node), "boot", "status", "at", "probation", "set", of("out", device),
  of("probation", device))
if record[1] ~= boot or is_elsewhere(record[3], ARGV[12]) then return {"stale"} end  -- nobody would get the grants
if record[2] ~= "online" and record[2] ~= "suspect" then return {"refused", record[2]} end
if record[6] then return {"refused", "quarantined"} end  -- this device of it
if record[4] then want = math.min(want, 1 - redis.call("ZCARD", key("held", node))) end  -- on probation: one at a time
if record[7] then
  for _, id in ipairs(redis.call("ZRANGE", key("held", node), 0, -1)) do
    if want > 0 and redis.call("HGET", key("task", id), "device") == device then want = 0 end
  end
  want = math.min(want, 1)
end
if record[5] then queues = (decoded(record[5], {})[device] or {}).queues or queues end  -- an operator's word
local warm, mine = {}, {}
for _, model in ipairs(warm_list) do warm[model] = true end
for _, queue in ipairs(queues) do mine[queue] = true end

local HEADS = 16  -- how deep a lane is looked into for a task this node may take
local ELDERS = 64  -- how many of those that have waited longest are looked at
local SPARE = 3  -- tasks beyond those wanted that are read of each lane, where the first ones are such as can be taken
local JOBS = 8  -- of a user, and tasks of each, that are looked at for the one whose turn it is
local KEPT_BACK = 256  -- tasks of users that are at their limit, in one go
local answer = {"ok"}
local limits = ARGV[13] ~= "" and cjson.decode(ARGV[13]) or nil

-- What work takes on this device, by lane and precision (lcq/costs.py has the rule): {class of the device, lanes: {engine,
-- curves: precision -> {fixed_s, s_per_megapixel, spread, load_s, fixed_mib, mib_per_megapixel, mib_from}}}.
local costs = decoded(ARGV[14] or "", {lanes = {}})
-- By queue and lane, when devices that are faster at it, or have its model loaded, will have done all that waits:
-- {seconds until that, seconds until the first of them is free, how long it takes there as a share of how long it takes
-- here} (lcq/placement.py).
local patience = decoded(ARGV[15] or "", {})

local function curve_of(lane, precision)
  local known = costs.lanes[lane:match("^[^?]+")]
  if not known then return nil end
  return known.curves[precision or ""] or known.curves[""], known.engine
end

local function seconds_by(curve, mp, is_warm)
  return curve[1] + curve[2] * (tonumber(mp) or ORDINARY_MEGAPIXELS) + (is_warm and 0 or curve[4])
end

local function rounded(value)
  return math.floor(value * 10000 + 0.5) / 10000
end

-- What an attempt's record says of what was predicted for it; nothing where nothing is known. `cost` is the key under
-- which finish_task has it learned from.
local function predicted(t, is_warm)
  local lane = lane_name(t)
  local curve, engine = curve_of(lane, t.precision)
  if not curve then return {} end
  local mp, seconds = tonumber(t.mp) or ORDINARY_MEGAPIXELS, seconds_by(curve, t.mp, is_warm)
  return {
    cost = table.concat({lane:match("^[^?]+"), t.precision or "", engine, costs.class}, "|"),
    megapixels = mp, warm = is_warm, predicted_s = rounded(seconds), predicted_p90_s = rounded(seconds * curve[3]),
    predicted_mib = math.ceil(curve[5] + curve[6] * math.max(0, mp - curve[7])),
  }
end

local is_held = false
-- Whether a faster device will have done it sooner than this one could: then it is left for that, unless it is to avoid
-- a node, which may be the faster one, or requires labels, which that one may not have.
local function leaves_to_faster(owner, lane, t, is_warm)
  local curve, terms = curve_of(lane, t[11]), patience[owner][lane:match("^[^?]+")]
  if not curve or not terms or t[1] or is_labelled(lane) then return false end  -- what is promised knows no labels
  local here = seconds_by(curve, t[10], is_warm)
  local left = here - math.max(terms[1], terms[2] + here * terms[3]) > WORTH_WAITING
  is_held = is_held or left
  return left
end

local paused = {}
local function is_paused(queue)
  if paused[queue] == nil then paused[queue] = redis.call("HGET", key("queue", queue), "paused") == "1" end
  return paused[queue]
end

-- Only where another node serves this lane may the one that failed leave a task to others; where none does, the
-- device that failed leaves it to another one of this node.
local siblings
local function may_leave(owner, lane, id)
  if owner:sub(1, 1) == "@" then return false end
  if others_serve(owner, lane, node) then return true end
  if read_fields(key("task", id), "avoid_device")[1] ~= device then return false end
  siblings = siblings or read_fields(key("node", node), "serves", "by_device")
  return sibling_serves(siblings, device, owner, lane)
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

local reads = {}
local function reads_of(owner)
  if not reads[owner] then
    reads[owner] = {}
    for _, lane in ipairs(lanes_of(owner)) do reads[owner][lane] = true end
  end
  return reads[owner]
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

-- Whether a user has as much running as it may.
local running, may_keep = {}, KEPT_BACK
local function is_over(user)
  local most = limits and user and most_running(limits, user)
  if not most then return false end
  if not running[user] then running[user] = running_of(user) end
  return running[user] >= most
end

-- The order above is by service, and users who never came before begin at its virtual time: an endless stream of them
-- would keep it from moving. So one start of a queue in ELDERS_TURN is for the task that has waited longest there, once
-- that is longer by the clock than its band's span. Answers it, if this device may take it.
local function elder_of(owner)
  if number(redis.call("HGET", key("fair", owner), "turn")) < ELDERS_TURN then return nil end
  local reads = reads_of(owner)
  local oldest = redis.call("ZRANGE", key("waiting", owner), 0, ELDERS - 1, "WITHSCORES")
  for i = 1, #oldest, 2 do
    local t = read_fields(key("task", oldest[i]), "avoid", "priority", "vram", "pinned", "model", "lane", "user")
    local lane, band = t[6] or t[5], BANDS[t[2] or ""]  -- neither: it is damaged, and isolated where its turn comes
    local span = math.max(band or 0, ELDERS_WAIT) * 1000
    if band and lane and reads[lane] and t[4] == "" and NOW - tonumber(oldest[i + 1]) >= span
      and not (t[1] == node and may_leave(owner, lane, oldest[i])) and not is_over(t[7]) then
      local is_warm = warm[lane:match("^[^~?]+")] == true
      local need = left and (needs[lane] or number(t[3])) or 0
      return {
        id = oldest[i], band = band, user = t[7], warm = is_warm, score = -math.huge, is_elder = true,
        need = is_warm and math.floor(need * WARM_NEEDS) or need,
      }
    end
  end
end

-- A waiting task as something to choose, and its user; nil where this device may not take it. `lane`: nil where that has
-- still to be found out, and whether it waits at all: a third value says that it does not.
local ALL = {"avoid", "priority", "user", "vram", "queue", "score", "status", "model", "lane", "mp", "precision"}
local function look_at(owner, lane, id, score)
  local pinned = owner:sub(1, 1) == "@"
  local t
  if not lane then
    t = read_fields(key("task", id), unpack(ALL))
    if t[7] ~= STATE.QUEUED then return nil, nil, true end
    lane, score = t[9] or t[8], tonumber(t[6] or "")
    if not (reads_of(owner)[lane or ""] and score) then return nil end
  elseif patience[owner] then
    t = read_fields(key("task", id), unpack(ALL))
  elseif pinned or (left and not needs[lane]) then
    t = read_fields(key("task", id), "avoid", "priority", "user", "vram", "queue")
  else
    t = read_fields(key("task", id), "avoid", "priority", "user")  -- the fewer the better: this is read of every head
  end
  local user, queue = t[3], t[5]  -- none: it is damaged, and isolated where it is chosen
  if t[1] == node and may_leave(owner, lane, id) then return nil, user end
  if pinned and queue and (is_paused(queue) or not is_for_this_device(queue)) then return nil, user end
  local is_warm = warm[lane:match("^[^~?]+")] == true
  if patience[owner] and leaves_to_faster(owner, lane, t, is_warm) then return nil, user end
  local need = left and (needs[lane] or number(t[4])) or 0
  return {
    id = id, lane = lane, band = BANDS[t[2] or ""], priority = t[2], user = user, warm = is_warm, score = score,
    need = is_warm and math.floor(need * WARM_NEEDS) or need,
  }, user
end

local function is_before(a, b)
  if a.score ~= b.score then return a.score < b.score end
  return a.id < b.id
end

local function candidates_of(owner)
  local elder = owner:sub(1, 1) ~= "@" and elder_of(owner) or nil
  local found = {elder}
  for _, lane in ipairs(lanes_of(owner)) do
    local kept, good = 0, 0
    repeat
      local asked = math.min(want + SPARE, HEADS + want - kept)
      local heads = redis.call("ZRANGE", key("lane", owner, lane), kept, kept + asked - 1, "WITHSCORES")
      for i = 1, #heads, 2 do
        local id = heads[i]
        local one, user = look_at(owner, lane, id, tonumber(heads[i + 1]))
        if is_over(user) and may_keep > 0 then
          local t = load_listed(id)
          if t and t.status == STATE.QUEUED then
            keep_back(id, t)
            may_keep = may_keep - 1
          end
        else
          kept = kept + 1
          if one and not is_over(user) and not (elder and elder.id == id) then
            found[#found + 1] = one
            if not left or one.need <= left then good = good + 1 end
          end
        end
      end
    until good >= want + SPARE or kept >= HEADS + want or #heads < 2 * asked
  end
  table.sort(found, is_before)
  return found
end

-- The best of the list: its head, unless a warm one of the same band is nearly as old: older by no more than what it
-- takes to load the model of the head, where that is known.
local function pick(found)
  local best = found[1]
  if best.warm then return 1 end
  local curve = best.lane and curve_of(best.lane)
  local span = curve and curve[4] or WARM_SPAN
  for i = 2, #found do
    if found[i].score - best.score > span then break end
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

-- The task that gets the place of the chosen one: of the same user and band, and of the job whose turn it is. A warm
-- place is for a warm task, but where that of a cold one has been due for so long that warmth counts no more.
local function whose_turn(owner, chosen)
  if chosen.is_elder or not (chosen.band and chosen.user) then return chosen end
  local turn = key("turn", owner, chosen.priority, chosen.user)
  local jobs = redis.call("ZRANGE", turn, 0, JOBS - 1, "WITHSCORES")
  local first, latest
  for i = 1, #jobs, 2 do
    local tag = tonumber(jobs[i + 1])
    if first and tag > latest then break end
    local line, _ = key("line", owner, chosen.priority, chosen.user, jobs[i])
    for _, id in ipairs(redis.call("ZRANGE", line, 0, JOBS - 1)) do
      local one, is_stale = chosen, false
      if id ~= chosen.id then one, _, is_stale = look_at(owner, nil, id) end
      if is_stale then leave_line_of(turn, line, jobs[i], id) end  -- an earlier LCQ has taken it
      if one and one.user == chosen.user and one.priority == chosen.priority and (not left or one.need <= left) then
        if one.warm or not chosen.warm then return one end
        first, latest = first or one, latest or tag + WARM_SPAN
        break
      end
    end
  end
  return first or chosen
end

-- The chosen task gives its place to the one whose turn it is, and has that one's from now on.
local function change_places(chosen, its, one, t, found)
  for i, other in ipairs(found) do
    if other.id == one.id then
      table.remove(found, i)
      break
    end
  end
  its.tag, t.tag = t.tag, its.tag
  its.score, t.score = t.score, its.score
  redis.call("HSET", key("task", one.id), "tag", t.tag, "score", t.score)
  redis.call("HSET", key("task", chosen.id), "tag", its.tag, "score", its.score)
  redis.call("ZADD", lane_of(its), its.score, chosen.id)
  enter_orders(chosen.id, its)
  chosen.score = tonumber(its.score)
end

local function note_start(owner, is_elder)
  local book = key("fair", owner)
  if redis.call("EXISTS", book) == 0 then return end
  if is_elder then redis.call("HSET", book, "turn", 0) else redis.call("HINCRBY", book, "turn", 1) end
end

local owners = {"@" .. node}
for _, queue in ipairs(queues) do owners[#owners + 1] = queue end
local granted = 0
-- Grants from one owner's lanes. Answers whether a user has come to its limit meanwhile whose tasks may hide others.
local function grant_from(owner)
  local found, was_met = candidates_of(owner), false
  if left then found = fitting(found) end
  while granted < want and #found > 0 do
    local head = table.remove(found, pick(found))
    local is_allowed = not is_over(head.user)  -- it may have been granted its last just now
    was_met = was_met or not is_allowed
    local chosen = is_allowed and whose_turn(owner, head) or head
    local id = chosen.id
    local t = is_allowed and load_listed(id)
    local waits = t and t.status == STATE.QUEUED
    local is_paused_job = waits and is_of_paused_job(t)
    if chosen ~= head then
      local its = load_listed(head.id)
      if its and its.status == STATE.QUEUED then
        if waits and not is_paused_job then change_places(head, its, chosen, t, found) end
        found[#found + 1] = head
        table.sort(found, is_before)
      end
    end
    if is_paused_job then
      put_aside(id, t)
    elseif waits then
      local n = number(t.attempt) + 1
      local record = predicted(t, chosen.warm)
      record.number, record.node, record.device, record.started_ms = n, node, device, NOW
      record.outcome, record.eased = "running", steps_of(t)
      redis.call("RPUSH", key("attempts", id), cjson.encode(record))
      transition("claim_tasks", id, t, STATE.PROCESSING, {
        attempt = n, node = node, boot = boot, device = device, started_ms = NOW, lease_ms = lease_ms,
        deadline_ms = NOW + lease_ms, progress = "0", stage = "", why = "", avoid = false,
        ends_ms = math.floor(NOW + 1000 * (record.predicted_s or number(t.cost))),
      })
      advance_virtual_time(t)
      charge_job(t)
      if running[t.user] then running[t.user] = running[t.user] + 1 end
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
    elseif is_allowed and chosen.lane then
      redis.call("ZREM", key("lane", owner, chosen.lane), id)
    end
  end
  return was_met
end

for _, owner in ipairs(owners) do
  while granted < want and (owner:sub(1, 1) == "@" or not is_paused(owner)) do
    if not grant_from(owner) or may_keep == 0 then break end
  end
end
if granted > 0 then tally("claimed", granted) elseif may_keep == 0 then return {"more"} end
if is_held then answer[1] = "held" end
return answer
