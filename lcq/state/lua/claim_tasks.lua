-- claim_tasks: QUEUED -> PROCESSING. Leases up to `want` tasks to one device of a node.
-- KEYS  namespace
-- ARGV  node, boot, device, want, lease_ms, lanes (JSON list), warm models (JSON list), queues (JSON list, own class
--       first), kind of device, fits_mib ("": no limit), needs_mib (JSON: told, lane -> MiB, where the node itself
--       knows; learned, lane -> MiB, the least that any task of it needs),
--       via (the scheduler), how many attempts a user may have running (JSON {default, users}; "": as many as it likes),
--       costs (JSON, see below; "": none), patience (JSON, see below; "": none),
--       most_others (how many of a lower band than high the device may have, for its other slots are kept for people who
--       wait; "": no limit), bill (JSON, of a device that is paid for: worst, what a call costs at most, and the limits
--       hour, day, month, job, user_day, all in millionths; "": it costs nothing)
-- RETURNS {"ok" or "held", id, attempt, eased, digest, json, queue, ms that it was queued, …} | {"stale"} | {"refused", node status}; "held": some were
--         left for faster devices
--         | {"more"}: nothing yet, but not all was looked at; ask again
-- Looks at the heads of the node's lanes; within a band a warm model goes first for WARM_SPAN virtual seconds. What
-- needs more memory than is left keeps its place, and others may pass. Which of the user's tasks gets the place that has
-- come up its jobs decide (_order.lua). Who has as much running as it may is passed over, see there too.
local node, boot, device, want, lease_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local lanes, warm_list, queues = cjson.decode(ARGV[6]), cjson.decode(ARGV[7]), cjson.decode(ARGV[8])
local kind, left = ARGV[9], tonumber(ARGV[10])
local needs = left and cjson.decode(ARGV[11])

-- What a task needs of the device's memory: `own` was predicted for it when it was submitted. What was learned is of
-- attempts that were not made smaller: it does not keep one that was (`eased`) from being tried.
local function need_of(lane, own, eased)
  if not left then return 0 end
  local is_smaller = eased and (eased:find("smaller_tile", 1, true) or eased:find("lower_precision", 1, true))
  return needs.told[lane] or math.max(not is_smaller and needs.learned[lane] or 0, number(own))
end
local record = read_fields(key("node", node), "boot", "status", "at", "probation", "set", of("out", device),
  of("probation", device), of("slow", device))
if record[1] ~= boot or is_elsewhere(record[3], ARGV[12]) then return {"stale"} end  -- nobody would get the grants
if record[2] ~= "online" and record[2] ~= "suspect" then return {"refused", record[2]} end
if record[6] then return {"refused", "quarantined"} end  -- this device of it
if record[4] then want = math.min(want, 1 - redis.call("ZCARD", key("held", node))) end  -- on probation: one at a time
if record[7] or record[8] then  -- the device is on probation, or is given less for being slow
  local room = record[7] and 1 or number(decoded(record[8], {}).most or 1)
  for _, id in ipairs(redis.call("ZRANGE", key("held", node), 0, -1)) do
    if redis.call("HGET", key("task", id), "device") == device then room = room - 1 end
  end
  want = math.min(want, room)
end
if record[5] then queues = (decoded(record[5], {})[device] or {}).queues or queues end  -- an operator's word
local warm, mine = {}, {}
for _, model in ipairs(warm_list) do warm[model] = true end
for _, queue in ipairs(queues) do mine[queue] = true end

local HEADS = 16  -- how deep a lane is looked into for a task this node may take
local ELDERS = 64  -- how many of those that have waited longest are looked at
local SPARE = 3  -- tasks beyond those wanted that are read of each lane, where the first ones are such as can be taken
local JOBS = 8  -- of a user, and tasks of each, that are looked at for the one whose turn it is
local SHARED_USERS = 16  -- of a queue, that are asked for the one whose turn it is over several queues
local SHARED_LOOKS = 4  -- of them, and tasks of each lane of theirs, that are looked at for one which this device may take
local KEPT_BACK = 256  -- tasks of users that are at their limit, in one go
local answer = {"ok"}
local RAISED = {"urgent", "high"}  -- the bands that kept slots are for
local limits = ARGV[13] ~= "" and cjson.decode(ARGV[13]) or nil

-- What work takes on this device, by lane and precision (lcq/costs.py has the rule): {class of the device, lanes: {engine,
-- curves: precision -> {fixed_s, s_per_megapixel, spread, load_s, fixed_mib, mib_per_megapixel, mib_from, guessed}}}.
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
    predicted_mib = math.ceil(curve[5] + curve[6] * math.max(0, mp - curve[7])), guessed = curve[8] or nil,
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

local book, news = {}, {}  -- of what this device's queues share, as it is and what has changed; see below
local paused = {}
local function is_paused(queue)
  if paused[queue] == nil then paused[queue] = redis.call("HGET", key("queue", queue), "paused") == "1" end
  return paused[queue]
end

-- Only where another node serves this lane may the one that failed leave a task to others; where none does, the
-- device that failed leaves it to another one of this node.
local elsewhere = {}
local function may_leave(owner, lane, id)
  if owner:sub(1, 1) == "@" then return false end
  local name = owner .. ":" .. lane
  if elsewhere[name] == nil then elsewhere[name] = others_serve(owner, lane, node) end
  if elsewhere[name] then return true end
  return read_fields(key("task", id), "avoid_device")[1] == device and sibling_serves(node, device, owner, lane)
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

-- Of a device that is paid for: whether the budget allows one more task of that user and job, which must be one that may
-- leave the house.
local bill = decoded(ARGV[17] or "", nil)
local windows = bill and spend_windows()
local taken = {}
local function taken_of(span, name, field)
  local known = span .. "/" .. name .. "/" .. (field or "")
  if not taken[known] then
    local read = redis.call("HMGET", key("spend", span, name), field or "spent", field and "-" or "reserved")
    taken[known] = number(read[1]) + number(read[2])
  end
  return taken[known], known
end

local function limits_of(user, job)
  local found = {}
  for _, span in ipairs({"hour", "day", "month"}) do
    if bill[span] then found[#found + 1] = {bill[span], span, windows[span]} end
  end
  if bill.user_day then found[#found + 1] = {bill.user_day, "day", windows.day, "u/" .. (user or "")} end
  if bill.job and (job or "") ~= "" then found[#found + 1] = {bill.job, "job", job} end
  return found
end

local function may_pay(id)
  if not bill then return true end
  local t = read_fields(key("task", id), "user", "job", "json")
  if decoded(t[3] or "", {}).privacy ~= "exportable" then return false end
  for _, limit in ipairs(limits_of(t[1], t[2])) do
    if taken_of(limit[2], limit[3], limit[4]) + bill.worst > limit[1] then
      if limit[2] == "job" then  -- so that its tasks are routed elsewhere
        redis.call("SADD", key("spent_out"), limit[3])
        redis.call("EXPIRE", key("spent_out"), SPEND_OUT_S)
      end
      return false
    end
  end
  return true
end

local function reserve_spend(t, record)
  if not bill then return end
  for _, limit in ipairs(limits_of(t.user, t.job)) do
    local _, name = taken_of(limit[2], limit[3], limit[4])
    taken[name] = taken[name] + bill.worst
  end
  local job = (t.job or "") ~= "" and t.job or nil
  record.spend = {
    worst = bill.worst, hour = windows.hour, day = windows.day, month = windows.month, on_day = windows.on_day, job = job,
    user = t.user, model = t.model, at = node .. "/" .. device,
  }
  write_spend(record.spend, bill.worst, 0, 0, bill.worst)
end

-- The order above is by service, and users who never came before begin at its virtual time: an endless stream of them
-- would keep it from moving. So one start of a queue in ELDERS_TURN is for the task that has waited longest there, once
-- that is longer by the clock than its band's span. Answers it, if this device may take it.
local function elder_of(owner)
  if number(redis.call("HGET", key("fair", owner), "turn")) < ELDERS_TURN and number(book.turn) < ELDERS_TURN then return nil end
  local reads = reads_of(owner)
  local latest = string.format("%.0f", NOW - ELDERS_WAIT * 1000)
  local oldest = redis.call("ZRANGEBYSCORE", key("waiting", owner), "-inf", latest, "WITHSCORES", "LIMIT", 0, ELDERS)
  for i = 1, #oldest, 2 do
    local t = read_fields(key("task", oldest[i]), "avoid", "priority", "vram", "pinned", "model", "lane", "user", "eased")
    local lane, band = t[6] or t[5], BANDS[t[2] or ""]  -- neither: it is damaged, and isolated where its turn comes
    local span = math.max(band or 0, ELDERS_WAIT) * 1000
    if band and lane and reads[lane] and t[4] == "" and NOW - tonumber(oldest[i + 1]) >= span
      and not (t[1] == node and may_leave(owner, lane, oldest[i])) and not is_over(t[7]) and may_pay(oldest[i]) then
      local is_warm = warm[lane:match("^[^~?]+")] == true
      local need = need_of(lane, t[3], t[8])
      return {
        id = oldest[i], band = band, priority = t[2], user = t[7], warm = is_warm, score = -math.huge, is_elder = true,
        need = is_warm and math.floor(need * WARM_NEEDS) or need,
      }
    end
  end
end

-- A waiting task as something to choose, and its user; nil where this device may not take it. `lane`: nil where that has
-- still to be found out, and whether it waits at all: a third value says that it does not.
local ALL = {"avoid", "priority", "user", "vram", "queue", "score", "status", "model", "lane", "mp", "precision", "eased"}
local EASED = #ALL
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
  elseif pinned or (left and not needs.told[lane]) then
    t = read_fields(key("task", id), "avoid", "priority", "user", "vram", "queue", "eased")
    t[EASED] = t[6]
  else
    t = read_fields(key("task", id), "avoid", "priority", "user")  -- the fewer the better: this is read of every head
  end
  local user, queue = t[3], t[5]  -- none: it is damaged, and isolated where it is chosen
  if not may_pay(id) then return nil, user end
  if t[1] == node and may_leave(owner, lane, id) then return nil, user end
  if pinned and queue and (is_paused(queue) or not is_for_this_device(queue)) then return nil, user end
  local is_warm = warm[lane:match("^[^~?]+")] == true
  if patience[owner] and leaves_to_faster(owner, lane, t, is_warm) then return nil, user end
  local need = need_of(lane, t[4], t[EASED])
  return {
    id = id, lane = lane, band = BANDS[t[2] or ""], priority = t[2], user = user, warm = is_warm, score = score,
    need = is_warm and math.floor(need * WARM_NEEDS) or need,
  }, user
end

local function is_before(a, b)
  if a.score ~= b.score then return a.score < b.score end
  return a.id < b.id
end

-- What a claim may take from the lanes of one owner. Of each lane it holds the first ones, in their order; they are
-- looked at one by one, and only as far as that is needed to tell which goes first: a task's record costs much where a
-- million wait. `read`: how many were read of the lane, `gone`: how many of those have left it since.
local known = {}  -- by id, the place in a lane of what was read of it

-- `raised`: only what is of the bands that kept slots are for.
local function open_lanes(owner, raised)
  local from = {owner = owner, elder = not raised and owner:sub(1, 1) ~= "@" and elder_of(owner) or nil, lanes = {}}
  for _, lane in ipairs(lanes_of(owner)) do
    for _, band in ipairs(raised and RAISED or {""}) do
      from.lanes[#from.lanes + 1] = {
        name = lane, items = {}, read = 0, gone = 0, warm = warm[lane:match("^[^~?]+")] == true,
        set = raised and key("rank", owner, lane, band) or key("lane", owner, lane),
      }
    end
  end
  if from.elder then known[from.elder.id] = true end
  return from
end

local function read_more(owner, lane)
  local asked = math.min(want + SPARE, HEADS + want - #lane.items)
  if lane.is_read or asked <= 0 then return false end
  local first = lane.read - lane.gone
  local heads = redis.call("ZRANGE", lane.set, first, first + asked - 1, "WITHSCORES")
  lane.read, lane.is_read = lane.read + #heads / 2, #heads < 2 * asked
  for i = 1, #heads, 2 do
    local id = heads[i]
    if not known[id] then
      known[id] = lane
      lane.items[#lane.items + 1] = {id = id, lane = lane.name, set = lane.set, score = tonumber(heads[i + 1]), is_new = true}
    end
  end
  return true
end

local function drop(lane, place)
  known[lane.items[place].id] = nil
  table.remove(lane.items, place)
  lane.gone = lane.gone + 1
end

-- A task has left its lane, or changed its place there.
local function forget_read(id)
  local lane = known[id]
  if type(lane) ~= "table" then return end
  for place, item in ipairs(lane.items) do
    if item.id == id then return drop(lane, place) end
  end
end

-- A task has got another place. Where what was read of its lane goes farther than that, it has to be put there; else it is
-- read again.
local function move_read(item, score)
  local lane = known[item.id]
  if not lane then return end
  forget_read(item.id)
  local last = lane.items[#lane.items]
  if not lane.is_read and not (last and is_before({id = item.id, score = score}, last)) then return end
  item.score = score
  local place = 1
  while lane.items[place] and is_before(lane.items[place], item) do place = place + 1 end
  table.insert(lane.items, place, item)
  known[item.id], lane.gone = lane, lane.gone - 1
end

-- Whether this device may take a task of a lane, which is looked at now if it was not yet. What is kept back because of
-- its user's limit leaves the lane.
local function may_take(owner, lane, place)
  local item = lane.items[place]
  if item.is_skipped then return false end
  if item.is_new then
    local one, user = look_at(owner, lane.name, item.id, item.score)
    item.is_new, item.user = false, user
    item.is_skipped = not one
    for field, value in pairs(one or {}) do item[field] = value end
  end
  if is_over(item.user) then
    if may_keep == 0 then return false end
    local t = load_listed(item.id)
    if t and t.status == STATE.QUEUED then
      keep_back(item.id, t)
      may_keep = may_keep - 1
    end
    drop(lane, place)
    return false
  end
  return not item.is_skipped and (not left or item.need <= left)
end

-- The first of a lane that may be taken: of that band, where one is given, and not behind the score `latest`.
local function first_of(owner, lane, latest, band)
  local place = 1
  while true do
    local item = lane.items[place]
    if not item then
      if not read_more(owner, lane) then return nil end
      item = lane.items[place]
    end
    if item then
      if item.score > latest then return nil end
      if may_take(owner, lane, place) and (not band or item.band == band) then return item end
      if lane.items[place] == item then place = place + 1 end
    end
  end
end

-- The best of one owner's lanes: their head, unless a warm one of the same band is nearly as old: older by no more than
-- what it takes to load the model of the head, where that is known.
local function pick(from)
  if from.elder then return from.elder end
  local best
  for _, lane in ipairs(from.lanes) do
    local one = first_of(from.owner, lane, best and best.score or math.huge)
    if one and (not best or is_before(one, best)) then best = one end
  end
  if not best or best.warm then return best end
  local curve = curve_of(best.lane)
  local latest, warmest = best.score + (curve and curve[4] or WARM_SPAN), nil
  for _, lane in ipairs(from.lanes) do
    local one = lane.warm and first_of(from.owner, lane, warmest and warmest.score or latest, best.band)
    if one and (not warmest or is_before(one, warmest)) then warmest = one end
  end
  return warmest or best
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
local function change_places(chosen, its, one, t)
  its.tag, t.tag = t.tag, its.tag
  its.score, t.score = t.score, its.score
  redis.call("HSET", key("task", one.id), "tag", t.tag, "score", t.score)
  redis.call("HSET", key("task", chosen.id), "tag", its.tag, "score", its.score)
  redis.call("ZADD", lane_of(its), its.score, chosen.id)
  enter_orders(chosen.id, its)
  move_read(chosen, tonumber(its.score))
end

---------------------------------------------------------------- fair over the queues of a device

-- A device that serves several queues shares itself between the users of all of them as each queue does between its own:
-- by start-time fair queueing, in a book for all devices with the same queues. `v` is its virtual time, "<band>:<user>"
-- where a user's last start ends, `turn` how many starts ago it was an elder's, `passed/<queue>` how many predicted
-- seconds of higher bands the head of a queue has let pass. Of one user's, and of those that are even, the device's own
-- class goes first.
local shared = #queues > 1 and key("shared", table.concat(queues, "+")) or nil
local function read_book(...)
  local fields = {}
  for _, field in ipairs({...}) do
    if book[field] == nil then fields[#fields + 1] = field end
  end
  if #fields == 0 then return end
  local values = redis.call("HMGET", shared, unpack(fields))
  for i, field in ipairs(fields) do book[field] = number(values[i]) end
end

local function write_book(field, value)
  if book[field] == value then return end
  book[field], news[field] = value, tostring(value)
end

local function share_field(one)
  return one.priority .. ":" .. one.user
end

-- When it would be this task's user's turn, by the book.
local function its_start(one)
  return math.max(book.v, book[share_field(one)])
end

local function close_shared()
  local flat = {}
  for field, value in pairs(news) do
    flat[#flat + 1] = field
    flat[#flat + 1] = value
  end
  if #flat == 0 then return end
  if NOW - book.ms > SHARED_KEPT_MS / 60 then
    flat[#flat + 1] = "ms"
    flat[#flat + 1] = string.format("%.0f", NOW)
  end
  local is_new = redis.call("HSET", shared, unpack(flat)) > 0
  if flat[#flat - 1] == "ms" then redis.call("PEXPIRE", shared, SHARED_KEPT_MS) end
  if is_new then forget_shares(shared, book.v) end
end

-- The first place of a user in the lanes of a queue, of that band, that this device may take.
local function first_place(from, user, band, priority)
  local best
  for _, lane in ipairs(from.lanes) do
    local mine = redis.call("ZRANGE", key("mine", from.owner, lane.name, priority, user), 0, SHARED_LOOKS - 1, "WITHSCORES")
    for i = 1, #mine, 2 do
      local one = {id = mine[i], lane = lane.name, score = tonumber(mine[i + 1])}
      if best and is_before(best, one) then break end
      one = look_at(from.owner, lane.name, one.id, one.score)
      if one and one.band == band and one.user == user and (not left or one.need <= left) then
        best = one
        break
      end
    end
  end
  return best
end

-- Of those who wait in a queue, what the user has first whose turn is soonest over all queues; and when that is. The
-- places of one who floods several queues, and is served in another, pile up at the head: so it is not enough to look
-- there. Of very many users some are asked, others the next time.
local function soonest_of(from, head)
  local start = its_start(head)
  if start <= book.v or redis.call("HLEN", key("users", from.owner)) < 2 then return head, start end
  local others, fields = {}, {}
  for _, user in ipairs(redis.call("HRANDFIELD", key("users", from.owner), SHARED_USERS)) do
    if user ~= head.user and not is_over(user) then
      others[#others + 1] = {user = user, priority = head.priority}
      fields[#fields + 1] = share_field(others[#others])
    end
  end
  if #fields > 0 then read_book(unpack(fields)) end
  for _, one in ipairs(others) do one.start = its_start(one) end
  table.sort(others, function(a, b)
    if a.start ~= b.start then return a.start < b.start end
    return a.user < b.user
  end)
  for i = 1, math.min(#others, SHARED_LOOKS) do
    if others[i].start >= start then break end
    local one = first_place(from, others[i].user, head.band, head.priority)
    if one then return one, others[i].start end
  end
  return head, start
end

-- Which of the heads of several queues starts, and what that is for the book.
local function choose(sources)
  local heads, elder = {}, nil
  for _, from in ipairs(sources) do
    local head = pick(from)
    if head then
      if head.is_elder then elder = elder or head end
      heads[#heads + 1] = {from = from, head = head}
    end
  end
  if not shared or #heads == 0 or heads[1].from.owner:sub(1, 1) == "@" then return heads[1] end
  local fields, highest = {"v", "ms", "turn"}, math.huge
  for _, one in ipairs(heads) do
    local is_sound = one.head.band and one.head.user
    if is_sound then fields[#fields + 1] = share_field(one.head) end
    fields[#fields + 1] = "passed/" .. one.from.owner
    highest = math.min(highest, one.head.band or 0)
  end
  read_book(unpack(fields))
  local best, soonest
  for _, one in ipairs(heads) do
    local is_due = #heads == 1 or one.head == elder or not (one.head.band and one.head.user)
    if is_due then return one end  -- where its record is damaged, it is isolated as it is granted
    if not elder and one.head.band - book["passed/" .. one.from.owner] <= highest then
      local head, start = soonest_of(one.from, one.head)
      if not best or start < soonest then
        best, soonest = {from = one.from, head = head, others = heads}, start
      end
    end
  end
  return best
end

-- What has started is put down in the book of what is shared.
local function note_shared(one, t)
  if not shared then return end
  local cost, field = share_of(t), share_field(t)
  read_book("v", "ms", "turn", field, "passed/" .. t.queue)
  local start = math.max(book.v, book[field])
  write_book("v", start)
  write_book(field, start + cost)
  write_book("turn", one.head.is_elder and 0 or book.turn + 1)
  write_book("passed/" .. t.queue, math.max(0, book["passed/" .. t.queue] - cost))
  for _, other in ipairs(one.others or {}) do
    local name = "passed/" .. other.from.owner
    if other.from ~= one.from and other.head.band > BANDS[t.priority] then write_book(name, book[name] + cost) end
  end
end

---------------------------------------------------------------- granting

local function note_start(owner, t, is_elder)
  if redis.call("EXISTS", key("fair", t.queue)) == 0 then return end
  local of_queue = owner:sub(1, 1) ~= "@"
  local read = redis.call("HMGET", key("fair", t.queue), "v", "turn")
  local changes = {}
  if number(t.tag) > number(read[1]) then changes = {"v", t.tag} end
  if of_queue then
    changes[#changes + 1] = "turn"
    changes[#changes + 1] = is_elder and 0 or number(read[2]) + 1
  end
  if #changes > 0 then redis.call("HSET", key("fair", t.queue), unpack(changes)) end
end

local granted = 0
-- How many more of a lower band than high this device may have.
local others = tonumber(ARGV[16] or "") or math.huge
local function is_other(band)
  return (BANDS[band or ""] or math.huge) > BANDS.high
end
if others < math.huge then
  for _, id in ipairs(redis.call("ZRANGE", key("held", node), 0, -1)) do
    local its = read_fields(key("task", id), "device", "priority")
    if its[1] == device and is_other(its[2]) then others = others - 1 end
  end
end

-- Grants the place of `one.head` to the task whose turn it is.
local function grant(one)
  local owner, head = one.from.owner, one.head
  local chosen = whose_turn(owner, head)
  local id = chosen.id
  if not may_pay(id) then
    if chosen ~= head then  -- what its user has first is not for this device: no more of it now
      want = granted
    elseif head.is_elder then
      one.from.elder = nil
    else  -- it was looked at before others of this claim took what was left of the money
      head.is_skipped = true
    end
    return
  end
  local t = load_listed(id, chosen == head and chosen.lane and key("lane", owner, chosen.lane))
  local waits = t and t.status == STATE.QUEUED
  local is_paused_job = waits and is_of_paused_job(t)
  if chosen ~= head then
    forget_read(id)
    local its = load_listed(head.id)
    if not (its and its.status == STATE.QUEUED) then
      forget_read(head.id)
    elseif waits and not is_paused_job then
      change_places(head, its, chosen, t)
    end
  elseif head.is_elder then
    one.from.elder = nil
  else
    forget_read(id)
  end
  if is_paused_job then return put_aside(id, t) end
  if not waits then
    if chosen.lane then redis.call("ZREM", key("lane", owner, chosen.lane), id) end
    if chosen.set then redis.call("ZREM", chosen.set, id) end
    return
  end
  local n = number(t.attempt) + 1
  local record = predicted(t, chosen.warm)
  record.number, record.node, record.device, record.started_ms = n, node, device, NOW
  record.outcome, record.eased = "running", steps_of(t)
  reserve_spend(t, record)
  redis.call("RPUSH", key("attempts", id), cjson.encode(record))
  transition("claim_tasks", id, t, STATE.PROCESSING, {
    attempt = n, node = node, boot = boot, device = device, started_ms = NOW, lease_ms = lease_ms,
    deadline_ms = NOW + lease_ms, progress = "0", stage = "", why = "", avoid = false,
    ends_ms = math.floor(NOW + 1000 * (record.predicted_s or number(t.cost))),
  })
  charge_job(t)
  if running[t.user] then running[t.user] = running[t.user] + 1 end
  note_start(owner, t, chosen.is_elder)
  if owner:sub(1, 1) ~= "@" then note_shared(one, t) end
  answer[#answer + 1] = id
  answer[#answer + 1] = n
  answer[#answer + 1] = t.eased or ""
  answer[#answer + 1] = t.json_digest or t.digest
  answer[#answer + 1] = t.json
  answer[#answer + 1] = t.queue
  answer[#answer + 1] = NOW - number(t.queued_ms)
  granted = granted + 1
  if is_other(t.priority) then others = others - 1 end
  if left and chosen.need > 0 then left = left - chosen.need end
end

local function grant_from(owners)
  local function open(raised)
    local sources = {}
    known = {}
    for _, owner in ipairs(owners) do sources[#sources + 1] = open_lanes(owner, raised) end
    return sources
  end
  local raised = others <= 0
  local sources = open(raised)
  while granted < want do
    if others <= 0 and not raised then
      raised = true
      sources = open(raised)
    end
    local one = choose(sources)
    if not one then return end
    grant(one)
  end
end

-- First what is kept for this node, then its queues.
if want > 0 then
  grant_from({"@" .. node})
  if granted < want and shared then read_book("v", "ms", "turn") end
  local waiting = {}
  for _, queue in ipairs(queues) do
    if granted < want and redis.call("EXISTS", key("waiting", queue)) == 1 and not is_paused(queue) then
      waiting[#waiting + 1] = queue
    end
  end
  grant_from(waiting)
  if shared then close_shared() end
end
if granted > 0 then tally("claimed", granted) elseif may_keep == 0 then return {"more"} end
if is_held then answer[1] = "held" end
return answer
