-- The ground every move stands on: keys, clock, indexes, events. Loaded in front of each script, behind a
-- header that Python generates (MOVE, STATE, TERMINAL, BANDS, RETENTION_MS, EVENTS_KEPT, MINUTES_KEPT_S, …).
-- KEYS[1] is the namespace, a hash tag: every key a script touches begins with it, so all of them live in one
-- slot of a Redis Cluster although only this one is declared. Each move stands in a function that is given to once().

local ROOT = KEYS[1]

-- Written out, for every script asks for dozens of names: a table for each would be most of what a move costs.
local function key(a, b, c, d, e, f)
  if not b then return ROOT .. ":" .. a end
  if not c then return ROOT .. ":" .. a .. ":" .. b end
  if not d then return ROOT .. ":" .. a .. ":" .. b .. ":" .. c end
  if not e then return ROOT .. ":" .. a .. ":" .. b .. ":" .. c .. ":" .. d end
  if not f then return ROOT .. ":" .. a .. ":" .. b .. ":" .. c .. ":" .. d .. ":" .. e end
  return ROOT .. ":" .. a .. ":" .. b .. ":" .. c .. ":" .. d .. ":" .. e .. ":" .. f
end

-- What a newer LCQ has written is not touched: who finds it stops.
local HAD_FORMAT = redis.call("GET", key("format"))
if HAD_FORMAT and not ((tonumber(HAD_FORMAT) or FORMAT + 1) <= FORMAT) and MOVE ~= "adopt_state"
  and MOVE:sub(1, 8) ~= "restore_" then
  return {"other_format", HAD_FORMAT}
end

-- Before anything is written that an LCQ of format 2 would take for damage: from now on such a one stops.
local function needs_format_3()
  if (tonumber(HAD_FORMAT or "") or 0) < 3 then redis.call("SET", key("format"), 3) end
end

-- A full Redis refuses a script whose first write may take memory; once one write has passed, the rest does too.
-- So only new tasks are refused: what has been accepted still runs, ends and is forgotten.
if MOVE ~= "submit_task" then redis.call("DEL", key("full")) end  -- no such key ever is

local function read_clock()
  local t = redis.call("TIME")
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
local NOW = read_clock()  -- Redis's clock: machines drift, leases must not

local function number(text)
  return tonumber(text or "0") or 0
end

-- Nil where there is none. A key of another type is a hash in which nothing can be read.
local function load_hash(name)
  local flat = redis.pcall("HGETALL", name)
  if flat.err then return {} end
  if #flat == 0 then return nil end
  local hash = {}
  for i = 1, #flat, 2 do hash[flat[i]] = flat[i + 1] end
  return hash
end

local function read_fields(name, ...)
  local fields = redis.pcall("HMGET", name, ...)
  return fields.err and {} or fields
end

local function decoded(text, otherwise)
  local is_json, value = pcall(cjson.decode, text)
  return is_json and type(value) == "table" and value or otherwise
end

-- Records are believed only where they are sound (_damage.lua). A damaged one is isolated as soon as a move meets it:
-- what is answered then is the record of a failed task, with true as a second value. `from`: the lane of which the id was
-- read just now.
local isolate_damaged_task, load_listed

local function load_task(id, from)
  local t = load_hash(key("task", id))
  if not t then return nil, false end
  return t, isolate_damaged_task(id, t, from)
end

local function tally(field, by)
  local minute = key("minute", math.floor(NOW / 60000))
  if redis.call("HINCRBY", minute, field, by) == by then redis.call("EXPIRE", minute, MINUTES_KEPT_S) end
  redis.call("HINCRBY", key("totals"), field, by)
end

-- A queue's minute: what has come into it, and what has left it otherwise than completed, which finish_task counts. A
-- queue holds what is pending, queued or processing in it.
local function note_flow(way, queue)
  local minute = key("minute", math.floor(NOW / 60000))
  if redis.call("HINCRBY", minute, way .. "/" .. queue, 1) == 1 then redis.call("EXPIRE", minute, MINUTES_KEPT_S) end
end

-- One event for one thing that happened; `more` is a flat list of further fields.
local function emit(move, more)
  redis.call("XADD", key("events"), "MAXLEN", "~", EVENTS_KEPT, "*", "move", move, unpack(more))
end

local function emit_task(move, id, t, more)
  local fields = {"id", id, "status", t.status, "rev", t.rev, "queue", t.queue, "node", t.node or "",
    "attempt", t.attempt, "priority", t.priority, "why", t.why or ""}
  for _, value in ipairs(more or {}) do fields[#fields + 1] = value end
  emit(move, fields)
end

---------------------------------------------------------------- order in a queue

-- The lane a task waits in: its node's own if it is pinned to one, else its queue's; for its model, and its type
-- where that is not to inpaint (then the task has a field `lane`).
local function lane_name(t)
  return t.lane or t.model
end

local function owner_of(t)
  return (t.pinned or "") ~= "" and ("@" .. t.pinned) or t.queue
end

-- Where it waits: in its lane, or kept back beside it while its user has as much running as it may (_order.lua).
local function lane_of(t)
  if t.back then return key("back", owner_of(t), lane_name(t), t.user) end
  return key("lane", owner_of(t), lane_name(t))
end

-- Start-time fair queueing. A user's next task is tagged with the later of the queue's virtual time and the
-- user's last finish; the finish moves on by the task's cost in predicted seconds, divided by the user's weight.
-- Each band has books of its own, so that an urgent task does not stand behind the same user's normal ones.
-- Which of a user's tasks gets a place that is the user's turn is for _order.lua to say.
local join_line, leave_line, begin_running, end_running, forget_shares

local function share_of(t)
  return number(t.cost) / (t.weight and number(t.weight) or 1)
end

local function rank(t)
  local book = key("fair", t.queue)
  local field = t.priority .. ":" .. t.user
  local known = redis.call("HMGET", book, "v", field)
  local tag = math.max(number(known[1]), number(known[2]))
  if redis.call("HSET", book, field, tostring(tag + share_of(t))) == 1 then forget_shares(book, number(known[1])) end
  t.tag = tostring(tag)
  t.score = tostring(tag + BANDS[t.priority])
  t.place = tostring(redis.call("HINCRBY", key("totals"), "ranked", 1))
end

-- A task that had its place before keeps it: it is never behind the queue's virtual time, also where an empty
-- queue has begun a new book since. One that waited, and is taken back to where it did, may be: but in the same book it
-- was never behind its user's last finish, and so it is not in a new one.
local function rank_again(t, move)
  local known = redis.call("HMGET", key("fair", t.queue), "v", t.priority .. ":" .. t.user)
  local latest = number(known[1])
  if move == "undo_task" then latest = math.max(latest, number(known[2])) end
  t.tag = tostring(math.min(number(t.tag), latest))
  t.score = tostring(number(t.tag) + BANDS[t.priority])
end

-- Tasks that require labels wait in lanes of their own, "<lane>?<name>=<value>&…" (lcq/labels.py). `labelled` has those
-- that hold tasks, as "<queue or @node>:<lane>": a claim looks through them all, so they may not be too many.
local function is_labelled(lane)
  return lane:find("?", 1, true) ~= nil
end

local function too_many_labelled(owner, lane)
  return is_labelled(lane) and redis.call("SISMEMBER", key("labelled"), owner .. ":" .. lane) == 0
    and redis.call("SCARD", key("labelled")) >= MOST_LABELLED_LANES
end

-- The labels that count of a node: those it told, with what an operator has set or taken away.
local function labels_of(told, relabelled)
  local labels = decoded(told or "", {})
  for name, value in pairs(decoded(relabelled or "", {})) do
    if value == cjson.null then labels[name] = nil else labels[name] = value end
  end
  return labels
end

local function has_labels_for(labels, lane)
  for pair in (lane:match("%?(.*)$") or ""):gmatch("[^&]+") do
    local name, value = pair:match("^([^=]+)=(.*)$")
    if not name or labels[name] ~= value then return false end
  end
  return true
end

-- Whether a device, as its node's last beat told it, takes work: it is not out of order, and does not rest.
local function is_at_work(readings, device)
  local reading = readings[device]
  return not (type(reading) == "table" and (reading.fault or "") ~= "")
end

-- Whether a node has a device at work that serves this lane of the queue. `record`: its serves, by_device, readings.
-- Which of its devices has which lanes an older agent does not tell: there any that serves the queue is one.
local function has_device_for(record, queue, lane, but)
  local serves, by_device, readings = decoded(record[1], {}), decoded(record[2], {}), decoded(record[3], {})
  for device, names in pairs(serves) do
    local has_queue, can = false, by_device[device]
    local has_lane = not (type(can) == "table" and can.lanes)
    for _, name in ipairs(names) do has_queue = has_queue or name == queue end
    for _, name in ipairs(can and can.lanes or {}) do has_lane = has_lane or name == lane:match("^[^?]+") end
    if has_queue and has_lane and device ~= but and is_at_work(readings, device) then return true end
  end
  return false
end

-- Whether another node than `node` serves this lane of the queue, with a device that takes work. Of very many some are
-- looked at: where none of those does, nobody is waited for.
local function others_serve(queue, lane, node)
  for _, other in ipairs(redis.call("SRANDMEMBER", key("subs", queue, lane:match("^[^?]+")), OTHERS_LOOKED_AT)) do
    if other ~= node then
      local told = read_fields(key("node", other), "serves", "by_device", "readings", "labels", "relabelled")
      if has_device_for(told, queue, lane) and (not is_labelled(lane) or has_labels_for(labels_of(told[4], told[5]), lane)) then
        return true
      end
    end
  end
  return false
end

local function forget_labelled(owner, lane)
  if is_labelled(lane) and redis.call("EXISTS", key("lane", owner, lane)) == 0 then
    redis.call("SREM", key("labelled"), owner .. ":" .. lane)
  end
end

-- How much a waiting task adds to its queue's backlog, in predicted ms of work. It is kept with the task: exactly that
-- is taken off again.
local function waits_ms(t)
  return tostring(math.floor(number(t.cost) * 1000))
end

local function count_backlog(queue, t, by)
  local field = (t.priority or "") .. "/" .. (t.lane or t.model or ""):match("^[^?]*")
  redis.call("HINCRBY", key("backlog", queue), field, by * math.floor(number(t.waits_ms)))
end

-- The tasks of a paused job wait aside: out of every lane, where claims and elders do not meet them, with their places.
-- What they would cost is taken off their user's book meanwhile, so that nothing else of that user stands behind them.
local function is_of_paused_job(t)
  return (t.job or "") ~= "" and redis.call("HEXISTS", key("paused"), t.job) == 1
end

local function charge(t, cost)
  local book, field = key("fair", t.queue), t.priority .. ":" .. t.user
  local known = redis.call("HGET", book, field)
  if known then redis.call("HSET", book, field, tostring(number(known) + cost)) end
end

local function enter_aside(id, t)
  redis.call("ZADD", key("aside", t.queue), t.queued_ms, id)
  redis.call("HSET", key("task", id), "aside", "1")
  t.aside = "1"
  charge(t, -share_of(t))
end

local function leave_aside(id, t)
  redis.call("ZREM", key("aside", t.queue), id)
  redis.call("HDEL", key("task", id), "aside")
  t.aside = nil
end

-- An empty queue owes nobody anything: its book is closed. What is aside keeps it open, for the sake of its places.
local function close_book(queue)
  if redis.call("EXISTS", key("waiting", queue)) == 1 then return end
  redis.call("DEL", key("backlog", queue))  -- no work waits in it, whatever was counted
  if redis.call("EXISTS", key("aside", queue)) == 0 then redis.call("DEL", key("fair", queue)) end
end

-- A lane's order once more, by band and by user, so that lcq/why.py can say behind whom a task waits without a look at
-- each.
local function enter_orders(id, t)
  local owner, lane = owner_of(t), lane_name(t)
  redis.call("ZADD", key("rank", owner, lane, t.priority), t.score, id)
  redis.call("ZADD", key("mine", owner, lane, t.priority, t.user), t.score, id)
end

local function leave_orders(id, t)
  local owner, lane = owner_of(t), lane_name(t)
  redis.call("ZREM", key("rank", owner, lane, t.priority), id)
  return redis.call("ZREM", key("mine", owner, lane, t.priority, t.user), id) == 1
end

-- Of whom there are tasks in the lanes of a queue or node, and how many.
local function count_user(owner, user, by)
  if redis.call("HINCRBY", key("users", owner), user, by) <= 0 then redis.call("HDEL", key("users", owner), user) end
end

local function put_into_lane(id, t)
  redis.call("ZADD", lane_of(t), t.score, id)
  if t.back then return end
  enter_orders(id, t)
  count_user(owner_of(t), t.user, 1)
  if is_labelled(lane_name(t)) then redis.call("SADD", key("labelled"), owner_of(t) .. ":" .. lane_name(t)) end
  if (t.pinned or "") == "" then redis.call("SADD", key("lanes"), t.queue .. ":" .. lane_name(t)) end
end

local function take_from_lane(id, t)
  redis.call("ZREM", lane_of(t), id)
  if leave_orders(id, t) then count_user(owner_of(t), t.user, -1) end
  forget_labelled(owner_of(t), lane_name(t))
  if redis.call("EXISTS", key("lane", t.queue, lane_name(t))) == 0 then
    redis.call("SREM", key("lanes"), t.queue .. ":" .. lane_name(t))
  end
end

local function enter_open_lane(id, t)
  put_into_lane(id, t)
  redis.call("ZADD", key("waiting", t.queue), t.queued_ms, id)
  redis.call("ZADD", key("band", t.queue, t.priority), t.queued_ms, id)
  join_line(id, t)
  count_backlog(t.queue, t, 1)
end

local function enter_lane(id, t)
  if is_of_paused_job(t) then enter_aside(id, t) else enter_open_lane(id, t) end
end

local function leave_open_lane(id, t)
  take_from_lane(id, t)
  redis.call("ZREM", key("waiting", t.queue), id)
  redis.call("ZREM", key("band", t.queue, t.priority), id)
  leave_line(id, t)
  count_backlog(t.queue, t, -1)
end

local function leave_lane(id, t)
  if t.aside then leave_aside(id, t) else leave_open_lane(id, t) end
  close_book(t.queue)
end

-- From a lane aside and back, in the same place. In this order the queue is never empty between.
local function put_aside(id, t)
  enter_aside(id, t)
  leave_open_lane(id, t)
end

local function bring_back(id, t)
  charge(t, share_of(t))
  enter_open_lane(id, t)
  leave_aside(id, t)
end

---------------------------------------------------------------- indexes, one place for all of them

-- Counters are added up first and written together: by key and field.
local function add_to(sums, name, field, by)
  local fields = sums[name] or {}
  sums[name] = fields
  fields[field] = (fields[field] or 0) + by
end

local function write_sums(sums)
  for name, fields in pairs(sums) do
    local changed = {}
    for field, by in pairs(fields) do
      if by ~= 0 then changed[#changed + 1] = field end
    end
    if #changed < 3 then
      for _, field in ipairs(changed) do redis.call("HINCRBY", name, field, fields[field]) end
    else
      local values, flat = redis.call("HMGET", name, unpack(changed)), {}
      for i, field in ipairs(changed) do
        flat[#flat + 1] = field
        flat[#flat + 1] = string.format("%.0f", number(values[i]) + fields[field])
      end
      redis.call("HSET", name, unpack(flat))
    end
  end
end

-- What a job's tasks are still predicted to take, and what those that are done have taken and were predicted to. Sums
-- in whole milliseconds and pixels: what is taken off again is then just what was added.
local function sum_up(sums, t, by)
  local name, cost = key("job", t.job), math.floor(number(t.cost) * 1000 + 0.5)
  if not TERMINAL[t.status] then
    add_to(sums, name, "left_ms", by * cost)
  elseif t.status == STATE.COMPLETED then
    local result = decoded(t.result, {})
    local spent = math.max(0, number(t.finished_ms) - number(t.started_ms))
    add_to(sums, name, "done_cost_ms", by * cost)
    add_to(sums, name, "spent_ms", by * spent)
    add_to(sums, name, "work_ms", by * math.floor(number(tostring(result.seconds)) * 1000 + 0.5))
    add_to(sums, name, "pixels", by * number(tostring(result.width)) * number(tostring(result.height)))
  end
end

local function count(sums, t, by)
  add_to(sums, key("counts"), t.status, by)
  add_to(sums, key("counts"), t.queue .. "/" .. t.status, by)
  if (t.job or "") ~= "" then
    add_to(sums, key("job", t.job), t.status, by)
    sum_up(sums, t, by)
  end
end

-- Which device is free again when: what runs, by where it does, scored by when it is predicted to end.
local function end_member(id, t)
  return (t.node or "") .. "|" .. (t.device or "") .. "|" .. id
end

-- Since when a node runs nothing: who stops machines stops the one that has been idle longest (lcq/autoscale.py).
local function note_idle(node)
  if redis.call("EXISTS", key("held", node)) == 0 and redis.call("EXISTS", key("node", node)) == 1 then
    redis.call("HSET", key("node", node), "idle_ms", NOW)
  end
end

local function leave_status(id, t)
  redis.call("ZREM", key("ix", "status", t.status), id)
  if t.status == STATE.PENDING then
    redis.call("ZREM", key("delayed"), id)
  elseif t.status == STATE.QUEUED then
    leave_lane(id, t)
  elseif t.status == STATE.PROCESSING then
    redis.call("ZREM", key("leases"), id)
    redis.call("ZREM", key("held", t.node), id)
    note_idle(t.node)
    end_running(id, t.user)
    redis.call("ZREM", key("ends"), end_member(id, t))
  else
    redis.call("ZREM", key("expiry"), id)
    if t.status == STATE.FAILED then
      redis.call("ZREM", key("ix", "cause", t.code), id)
      if redis.call("EXISTS", key("ix", "cause", t.code)) == 0 then redis.call("SREM", key("causes"), t.code) end
    end
  end
end

local function enter_status(id, t)
  redis.call("ZADD", key("ix", "status", t.status), 0, id)
  if t.status == STATE.PENDING then
    redis.call("ZADD", key("delayed"), t.due_ms, id)
  elseif t.status == STATE.QUEUED then
    enter_lane(id, t)
  elseif t.status == STATE.PROCESSING then
    redis.call("ZADD", key("leases"), t.deadline_ms, id)
    redis.call("ZADD", key("held", t.node), NOW, id)
    redis.call("ZADD", key("ends"), t.ends_ms or NOW, end_member(id, t))
    redis.call("ZADD", key("ix", "node", t.node), 0, id)
    begin_running(id, t)
  else
    redis.call("ZADD", key("expiry"), NOW + RETENTION_MS[t.status], id)
    redis.call("RPUSH", key("unbilled"), id)  -- see account_tasks
    if t.status == STATE.FAILED then
      redis.call("ZADD", key("ix", "cause", t.code), 0, id)
      redis.call("SADD", key("causes"), t.code)
    end
  end
end

local function leave_indexes(id, t)
  local sums = {}
  count(sums, t, -1)
  write_sums(sums)
  redis.call("ZREM", key("ix", "queue", t.queue), id)
  leave_status(id, t)
end

local function enter_indexes(id, t)
  local sums = {}
  count(sums, t, 1)
  write_sums(sums)
  redis.call("ZADD", key("ix", "queue", t.queue), 0, id)
  enter_status(id, t)
end

-- Takes a task to another status (or lets it enter the same one anew), with all that hangs on it.
-- `changes` is a table of fields; false removes one.
local function transition(move, id, t, to, changes, more)
  local sums, queue, was_there = {}, t.queue, not TERMINAL[t.status]
  count(sums, t, -1)
  leave_status(id, t)
  changes.status = to
  changes.rev = number(t.rev) + 1
  changes.updated_ms = NOW
  for field, value in pairs(changes) do
    if value == false then t[field] = nil else t[field] = tostring(value) end
  end
  if to == STATE.QUEUED then
    if t.score then rank_again(t, move) else rank(t) end
    changes.tag, changes.score, changes.place = t.tag, t.score, t.place
    t.waits_ms = waits_ms(t)
    changes.waits_ms = t.waits_ms
  end
  local set, gone = {}, {}
  for field, value in pairs(changes) do
    if value == false then
      gone[#gone + 1] = field
    else
      set[#set + 1] = field
      set[#set + 1] = t[field]
    end
  end
  redis.call("HSET", key("task", id), unpack(set))
  if #gone > 0 then redis.call("HDEL", key("task", id), unpack(gone)) end
  if t.queue ~= queue then
    redis.call("ZREM", key("ix", "queue", queue), id)
    redis.call("ZADD", key("ix", "queue", t.queue), 0, id)
  end
  count(sums, t, 1)
  write_sums(sums)
  local is_there, is_elsewhere = not TERMINAL[to], t.queue ~= queue
  if was_there and (is_elsewhere or not is_there) and move ~= "finish_task" then note_flow("left", queue) end
  if is_there and (is_elsewhere or not was_there) then note_flow("came", t.queue) end
  enter_status(id, t)
  emit_task(move, id, t, more)
end

-- Changes what a task asks for, and nothing that says where it is: it keeps its place, its lease and its indexes.
local function amend(move, id, t, changes, more)
  changes.rev, changes.updated_ms = number(t.rev) + 1, NOW
  local set, gone = {}, {}
  for field, value in pairs(changes) do
    t[field] = value and tostring(value) or nil
    if value then
      set[#set + 1] = field
      set[#set + 1] = t[field]
    else
      gone[#gone + 1] = field
    end
  end
  redis.call("HSET", key("task", id), unpack(set))
  if #gone > 0 then redis.call("HDEL", key("task", id), unpack(gone)) end
  emit_task(move, id, t, more)
end

---------------------------------------------------------------- attempts

local function attempt_record(id, n)
  if not (n >= 1 and n <= redis.call("LLEN", key("attempts", id))) then return nil end
  local record = decoded(redis.call("LINDEX", key("attempts", id), n - 1), nil)
  -- Nobody can tell any more whose it was; its token is still good.
  if not (record and record.number == n) then
    return {number = n, node = "", started_ms = NOW, outcome = "damaged"}
  end
  return record
end

-- The attempt whose finished result this one has only to put in its place (retake_task); nil where it does the work.
local function whose_result(id, n)
  local record = attempt_record(id, n)
  return record and tonumber(record.result_of)
end

-- The steps by which a task has been made easier, as a list; nil if there are none.
local function steps_of(t)
  if (t.eased or "") == "" then return nil end
  local steps = {}
  for step in t.eased:gmatch("[^,]+") do steps[#steps + 1] = step end
  return steps
end

local function peak(mib)
  return number(mib) > 0 and number(mib) or nil
end

-- Of what costs are known: so many, and of those that were learned from the longest ago none.
local function note_cost(cost)
  local is_new = redis.call("ZADD", key("costs"), NOW, cost) == 1
  if not is_new then return end
  for _, oldest in ipairs(redis.call("ZRANGE", key("costs"), 0, -MOST_COSTS - 1)) do
    redis.call("ZREM", key("costs"), oldest)
    redis.call("DEL", key("cost", oldest), key("memory", oldest))
  end
end

-- What an attempt held of its device's memory is kept for what comes next (lcq/memory_costs.py): on a processor that is
-- the host's. `is_short`: it ran out of it.
local function learn_memory(record, host_mib, device_mib, is_short)
  local on_host = tostring(record.cost):find("|cpu [^|]*$") ~= nil
  local held = peak(on_host and host_mib or device_mib) or 0
  if held == 0 and not is_short then return end
  local name = key("memory", record.cost)
  redis.call("RPUSH", name, table.concat({record.megapixels or 0, held, record.predicted_mib or 0, is_short and 1 or 0}, " "))
  redis.call("LTRIM", name, -COSTS_KEPT, -1)
end

---------------------------------------------------------------- what functions are paid

-- Money is in whole millionths of the currency. An hour, a day and a month (by UTC) each have a book, and so has a job:
-- `spent`, `reserved` for what runs, `calls`; a day also "u/<user>" and "f/<node>/<device>", both together, and of that
-- "ru/<user>" and "rf/<node>/<device>", what is reserved; an hour "f/<node>/<device>", spent. What has not run costs nothing;
-- of what ended otherwise without a bill, the worst is taken to be true.
local NOT_RUN = {
  endpoint_unreachable = true, endpoint_busy = true, endpoint_refused = true, call_too_large = true,
  storage_unreachable = true,
}

-- The calendar day (year, month, day) of a number of days since 1970.
local function day_of(days)
  local from_march = days + 719468  -- days since 1 March of the year 0: leap days are at the end of such years
  local era = math.floor(from_march / 146097)
  local of_era = from_march - era * 146097
  local year = math.floor(
    (of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)) / 365
  )
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * of_year + 2) / 153)
  local day = of_year - math.floor((153 * month + 2) / 5) + 1
  local shown = month < 10 and month + 3 or month - 9
  return year + era * 400 + (shown <= 2 and 1 or 0), shown, day
end

local function spend_windows()
  local year, month, day = day_of(math.floor(NOW / 86400000))
  local date = string.format("%04d-%02d-%02d", year, month, day)
  return {
    hour = date .. "T" .. string.format("%02d", math.floor(NOW / 3600000) % 24), day = date,
    month = string.format("%04d-%02d", year, month), on_day = math.floor(NOW / 86400000),
  }
end

-- What functions cost is in reports as it is in the books, on the same day and at once: late bills too, and what wakes
-- them, which is of nobody's task. Of bills of before (without a number of their day) lcq report learns as tasks end.
local MOST_NAMES = 50000  -- fields of a day; whoever is new then is one of "(others)"
local function report_spend(bill, cost)
  local name = key("usage", bill.on_day)
  local size = redis.call("HLEN", name)
  local function put(dimension, whose)
    if not whose then return end
    local field = dimension .. "/cost/" .. whose
    if size > MOST_NAMES and redis.call("HEXISTS", name, field) == 0 then field = dimension .. "/cost/(others)" end
    redis.call("HINCRBY", name, field, string.format("%.0f", cost))
  end
  put("all", "")
  put("user", bill.user or "(warm-ups)")
  put("job", bill.job)
  put("model", bill.model)
  put("node", bill.at:match("^([^/]*)"))
  redis.call("EXPIRE", name, math.max(1, math.floor((bill.on_day + 1) * 86400 + USAGE_KEPT_S - NOW / 1000)))
end

-- Writes into all books of a bill; `both`: what a user's own sum grows by, and a device's. Where `is_end`, a book that has
-- been forgotten since stays so: what was reserved in it is gone with it.
local function write_spend(bill, reserved, spent, calls, both, is_end)
  for _, span in ipairs({"hour", "day", "month", "job"}) do
    local name = bill[span] and key("spend", span, bill[span])
    if name and not (is_end and redis.call("EXISTS", name) == 0) then
      if reserved ~= 0 or not is_end then redis.call("HINCRBY", name, "reserved", string.format("%.0f", reserved)) end
      if spent ~= 0 then redis.call("HINCRBY", name, "spent", string.format("%.0f", spent)) end
      if calls ~= 0 then redis.call("HINCRBY", name, "calls", calls) end
      if span == "hour" and bill.at and spent ~= 0 then  -- what each function has cost of it
        redis.call("HINCRBY", name, "f/" .. bill.at, string.format("%.0f", spent))
      end
      if span == "day" then
        local function grow(mark, whose)
          local own = whose and mark .. whose
          if own and both ~= 0 then redis.call("HINCRBY", name, own, string.format("%.0f", both)) end
          if own and reserved ~= 0 and redis.call("HINCRBY", name, "r" .. own, string.format("%.0f", reserved)) == 0 then
            redis.call("HDEL", name, "r" .. own)
          end
        end
        grow("u/", bill.user)
        grow("f/", bill.at)
      end
      if span == "day" and spent ~= 0 and bill.on_day then report_spend(bill, spent) end
      redis.call("EXPIRE", name, SPEND_KEPT_S[span])
    end
  end
end

-- An attempt that was paid for has ended: what was reserved for it makes way for what it cost, in the books that it was
-- reserved in. A second end of the same attempt corrects the first.
local function settle_spend(record, outcome, failure)
  local bill = record.spend
  if type(bill) ~= "table" then return end
  local cost = math.min(bill.worst, bill.came or bill.worst)  -- `came`: by a bill that came while it ran
  if record.paid and (outcome == "completed" or outcome == "handed_back" or failure) then
    cost = math.min(bill.worst, record.paid)
  elseif failure and NOT_RUN[failure.code] then
    cost = 0
  end
  if bill.settled then
    write_spend(bill, 0, cost - bill.settled, 0, cost - bill.settled, true)
  else
    write_spend(bill, -bill.worst, cost, 1, cost - bill.worst, true)
  end
  bill.settled = cost
  bill.told = outcome == "completed" or (failure ~= nil and failure.error_class ~= "crash") or nil
  record.spent = cost  -- what lcq report goes by
end

-- A node's word about an attempt that was taken from it: its outcome stays, and its bill is corrected, once. `paid`: what
-- it says that it cost, if it knows.
local function correct_bill(id, n, node, failure, paid)
  local record = attempt_record(id, n)
  local bill = record and record.node == node and record.spend
  if type(bill) ~= "table" or not bill.settled or bill.told then return end
  record.paid = paid
  settle_spend(record, failure and "failed" or "completed", failure)
  redis.call("LSET", key("attempts", id), n - 1, cjson.encode(record))
end

-- `more`: further fields of the record; `read`: the record, where it was read already.
local function close_attempt(id, n, outcome, failure, more, read)
  local record = read or attempt_record(id, n)
  if not record then return end
  record.outcome = outcome
  record.ended_ms = NOW
  record.failure = failure
  for field, value in pairs(more or {}) do record[field] = value end
  if type(record.spend) ~= "table" then record.paid = nil end  -- it was not at a function
  settle_spend(record, outcome, failure)
  redis.call("LSET", key("attempts", id), n - 1, cjson.encode(record))
end

-- What a runner said last is kept with the last two attempts only: a task may have a hundred of them.
local function forget_old_log(id, n)
  local record = attempt_record(id, n - 2)
  if record and record.log then
    record.log = nil
    redis.call("LSET", key("attempts", id), n - 3, cjson.encode(record))
  end
end

-- What a node has done is told by its record; a node that was forgotten meanwhile gets no new one for it.
local function credit(node, field)
  if redis.call("EXISTS", key("node", node)) == 1 then redis.call("HINCRBY", key("node", node), field, 1) end
end

---------------------------------------------------------------- who is to blame

-- A field of a node's record that is about one of its devices; about the node as a whole where none is named.
local function of(field, device)
  return (device or "") == "" and field or (field .. "@" .. device)
end

-- How much a device of a node is to blame, as a number that fades: a task that failed there adds one, a completed one
-- takes a part away. lcq/health.py judges by it.
local function read_blame(node, device)
  local known = redis.call("HMGET", key("node", node), of("blame", device), of("blame_ms", device))
  return number(known[1]) * 0.5 ^ (math.max(0, NOW - number(known[2])) / BLAME_HALF_LIFE_MS)
end

local function write_blame(node, device, blame)
  redis.call("HSET", key("node", node), of("blame", device), string.format("%.4f", blame), of("blame_ms", device), NOW)
end

-- Which device has failed which task, as `blame:<node>` has it. Without a device: an older scheduler wrote it.
local function blamed_for(id, device)
  return id .. "@" .. device
end

local function read_mark(mark)
  local id, device = mark:match("^([^@]+)@(.*)$")
  return id or mark, device or ""
end

local function is_set_aside(node, device)
  local known = redis.call("HMGET", key("node", node), "status", of("out", device))
  return known[1] == "quarantined" or (known[2] or false) ~= false
end

-- Whether another device of the same node serves this lane of the queue.
local function sibling_serves(node, device, queue, lane)
  return has_device_for(read_fields(key("node", node), "serves", "by_device", "readings"), queue, lane, device)
end

-- A task has failed in a way that may be the device's fault. It is the task's own where another device that is not in
-- quarantine has failed it too: then that one is cleared of it. And nobody can tell where no other serves the lane.
-- Answers how much the device is to blame with this; 0 where this is not counted.
local function find_blame(id, t, node)
  local device = t.device or ""
  if (t.pinned or "") ~= "" or redis.call("EXISTS", key("node", node)) == 0 then return 0 end
  if not others_serve(t.queue, lane_name(t), node) and not sibling_serves(node, device, t.queue, lane_name(t)) then
    return 0
  end
  local failed_elsewhere = false
  for _, text in ipairs(redis.call("LRANGE", key("attempts", id), number(t.fence), -1)) do
    local record = cjson.decode(text)
    local on = record.device or ""
    if record.blamed and (record.node ~= node or on ~= device) and not is_set_aside(record.node, on) then
      failed_elsewhere = true
      if redis.call("ZREM", key("blame", record.node), blamed_for(id, on)) == 1 then
        write_blame(record.node, on, math.max(0, read_blame(record.node, on) - 1))
      end
    end
  end
  if failed_elsewhere then return 0 end
  local marks = key("blame", node)
  redis.call("ZREMRANGEBYSCORE", marks, "-inf", NOW - 8 * BLAME_HALF_LIFE_MS)
  if redis.call("ZADD", marks, NOW, blamed_for(id, device)) == 1 then
    write_blame(node, device, read_blame(node, device) + 1)
  end
  redis.call("PEXPIRE", marks, 8 * BLAME_HALF_LIFE_MS)
  return read_blame(node, device)
end

-- A device has completed a task. On probation, that brings it, or its node, nearer to its end.
local function praise(node, device)
  local name = key("node", node)
  local known = redis.call("HMGET", name, of("blame", device), "probation", of("probation", device))
  if known[1] and number(known[1]) > 0 then
    local blame = read_blame(node, device) * BLAME_AFTER_SUCCESS
    write_blame(node, device, blame < 0.05 and 0 or blame)
  end
  if known[2] and redis.call("HINCRBY", name, "probation", -1) <= 0 then
    redis.call("HDEL", name, "probation", "quarantines", "why")
  end
  if device ~= "" and known[3] and redis.call("HINCRBY", name, of("probation", device), -1) <= 0 then
    redis.call("HDEL", name, of("probation", device), of("quarantines", device), of("why", device))
  end
end

-- What a node's record holds against it, and against its devices.
local HELD_AGAINST = {blame = true, blame_ms = true, probe_ms = true, probing = true, probation = true,
  quarantines = true, quarantined_for = true, out = true, why = true, slow = true, doubt = true}

-- Nothing is held against a device any more; where none is named, against none of the node's, nor against the node.
local function clear_name(node, device)
  for _, mark in ipairs(redis.call("ZRANGE", key("blame", node), 0, -1)) do
    local _, on = read_mark(mark)
    if device == "" or on == device then redis.call("ZREM", key("blame", node), mark) end
  end
  for _, field in ipairs(redis.call("HKEYS", key("node", node))) do
    local base, on = field:match("^([^@]+)@?(.*)$")
    if HELD_AGAINST[base] and field ~= "why" and (device == "" or on == device) then
      redis.call("HDEL", key("node", node), field)
    end
  end
end

---------------------------------------------------------------- the budget of retries

-- How long a retry has to wait so that all of them together stay within their budgets: the cluster's, and that of
-- their cause in their queue. A budget lets so many a minute through, and on top a share of what was completed in the
-- last minute; a minute's worth of them may come at once. Answers ms, and whose budget is spent.
local function budget_wait(queue, code, terms)
  local minute = math.floor(NOW / 60000)
  local fields = {"completed", "completed/" .. queue}
  local now = redis.call("HMGET", key("minute", minute), unpack(fields))
  local before = redis.call("HMGET", key("minute", minute - 1), unpack(fields))
  local rest = 1 - (NOW % 60000) / 60000
  local book, longest, spent = key("budget"), 0, ""
  local per_minute = {terms.per_minute, terms.per_cause_per_minute}
  for i, scope in ipairs({"all", queue .. "/" .. code}) do
    local rate = per_minute[i] + terms.share * (number(now[i]) + rest * number(before[i]))
    local full = math.max(NOW, number(redis.call("HGET", book, scope))) + 60000 / rate
    redis.call("HSET", book, scope, math.floor(math.min(full, NOW + 60000 + terms.longest_ms)))
    local wait = full - NOW - 60000
    if wait > longest then
      longest = wait
      spent = (scope == "all" and "all retries" or "retries of " .. scope) .. ", " .. math.floor(rate) .. " a minute"
    end
  end
  redis.call("PEXPIRE", book, terms.longest_ms + 120000)
  if longest > terms.longest_ms then longest = terms.longest_ms * (0.5 + 0.5 * terms.random) end
  return math.floor(longest), spent
end

---------------------------------------------------------------- how attempts end

-- What every end of an attempt takes off the task.
local NO_ATTEMPT = {node = "", device = "", deadline_ms = false, ends_ms = false, progress = "0", stage = ""}

local function ended(changes)
  for field, value in pairs(NO_ATTEMPT) do
    if changes[field] == nil then changes[field] = value end
  end
  return changes
end

-- The running attempt ended without a result. `rule` says what its class does: retry (bool), death (bool),
-- avoid (bool), base_ms, cap_ms, random in 0..1; blame (bool: it may be the node's fault), away (bool: it says nothing of
-- the node), free (bool: its retry costs
-- nothing), budget (see budget_wait); and, where its next attempt is made easier, ease (the step) and queue (where that
-- waits): then it costs no retry either; home (the queue of the house in which it is retried, for a function
-- has failed it) and home_cost (what it takes there, in s); paid (what a function has cost all the same); peak_mib, if known. `log`: what the runner said last. Answers how much the node
-- is to blame.
local function fail_attempt(move, id, t, failure, rule, log)
  local n, node = number(t.attempt), t.node
  local blame = rule.blame and find_blame(id, t, node) or 0
  local suspected = blame >= SUSPECTED  -- not the first here, of late: its word alone is not to cost the task anything
  local record = {blamed = rule.blame or nil, away = rule.away or nil, paid = rule.paid, log = log ~= "" and log or nil, peak_mib = peak(rule.peak_mib),
    device_peak_mib = peak(rule.device_peak_mib)}
  -- Also where another node makes it good; not where only what the work needs beside the node was away.
  if failure.error_class ~= "bad_input" and not rule.away then credit(node, "failed") end
  local is_death = rule.death and not suspected
  local deaths = number(t.deaths) + (is_death and 1 or 0)
  local retries, most = number(t.retries), number(t.max_retries)
  local is_free = rule.free or (suspected and most > 0)
  local changes = ended({deaths = deaths, class = failure.error_class, code = failure.code, message = failure.message})
  local more = {"class", failure.error_class, "code", failure.code, "message", failure.message, "from", node}
  local function close()
    close_attempt(id, n, "failed", failure, record)
    if log then forget_old_log(id, n) end
  end
  if rule.ease then
    close()
    changes.eased = ((t.eased or "") == "") and rule.ease or (t.eased .. "," .. rule.ease)
    changes.why = failure.code .. " on " .. node .. ": goes on with " .. rule.ease
    changes.queue, changes.queued_ms, changes.avoid = rule.queue, NOW, rule.avoid and node or false
    changes.avoid_device = rule.avoid and t.device or false
    more[#more + 1] = "ease"
    more[#more + 1] = rule.ease
    tally("eased", 1)
    transition(move, id, t, STATE.QUEUED, changes, more)
    return blame
  end
  if is_death and deaths >= POISON_DEATHS then
    changes.code = "poison"
    changes.message = "brought down " .. deaths .. " runners, last: " .. failure.message
    more[4], more[6] = changes.code, changes.message
  elseif rule.retry and (retries < most or is_free) then
    local wait, spent = 0, ""
    if rule.budget then wait, spent = budget_wait(t.queue, failure.code, rule.budget) end
    local costs = not is_free and wait <= 0
    record.counted = costs or nil
    record.death = is_death or nil
    changes.retries = retries + (costs and 1 or 0)
    changes.avoid = rule.avoid and node or false  -- also: only another node can tell whose fault it is
    changes.avoid_device = rule.avoid and t.device or false
    if rule.home then
      changes.queue, changes.cost = rule.home, rule.home_cost
      changes.why = failure.code .. " at a function: the house does it"
    end
    local again = is_free and n - 1 or retries  -- where retries cost nothing they do not grow, but the pause must
    local delay = math.floor(rule.random * math.min(rule.cap_ms, rule.base_ms * 2 ^ math.min(again, 30)))
    if wait > delay then
      delay = wait
      changes.why = "over the retry budget (" .. spent .. "): waits " .. math.ceil(wait / 1000) .. " s, at no cost"
    end
    tally("retried", 1)
    close()
    if delay > 0 then
      changes.due_ms = NOW + delay
      transition(move, id, t, STATE.PENDING, changes, more)
    else
      changes.queued_ms = NOW
      transition(move, id, t, STATE.QUEUED, changes, more)
    end
    return blame
  end
  close()
  changes.finished_ms, changes.node, changes.device = NOW, node, t.device
  tally("failed", 1)
  transition(move, id, t, STATE.FAILED, changes, more)
  return blame
end

-- The node of a running attempt is gone: at once back into its place in the queue.
local NODE_GONE = {retry = true, death = false, avoid = true, base_ms = 0, cap_ms = 0, random = 0}

local function lapse(move, id, t, code, message)
  local n = number(t.attempt)
  if whose_result(id, n) then  -- there was no work to lose: the node may come back with the same result
    close_attempt(id, n, "handed_back")
    transition(move, id, t, STATE.QUEUED, ended({queued_ms = NOW, why = message}))
    return 0
  end
  return fail_attempt(move, id, t, {error_class = "crash", code = code, message = message}, NODE_GONE)
end

---------------------------------------------------------------- nodes

-- Which (queue, model) a node serves is kept as sets a lane, so that "who else could?" is one question.
local function subscribe(node, record)
  for _, lane in ipairs(decoded(record.lanes, {})) do redis.call("SADD", key("subs", lane), node) end
end

local function unsubscribe(node, record)
  for _, lane in ipairs(decoded(record.lanes, {})) do redis.call("SREM", key("subs", lane), node) end
end

local function list(values)
  return #values > 0 and cjson.encode(values) or "[]"
end

-- What the node as a whole is taken for: in quarantine also where all of its devices are.
local function shown_status(record)
  if record.status ~= "online" and record.status ~= "suspect" then return record.status end
  local any = false
  for device in pairs(decoded(record.by_device, {})) do
    if not record[of("out", device)] then return record.status end
    any = true
  end
  return any and "quarantined" or record.status
end

-- Those of some queues that there still are; nil where there is none of them.
local function still_known(queues)
  local known = {}
  for _, queue in ipairs(queues or {}) do
    if QUEUE_KINDS[queue] then known[#known + 1] = queue end
  end
  return known[1] and known or nil
end

-- Writes down what a node's devices serve: what its hello told, with what an operator has set, and without those that
-- are in quarantine; and what its agent is to be told of that with each beat. Answers the record as it is then.
local function settle_node(node)
  local name = key("node", node)
  local record = load_hash(name)
  local set, orders = decoded(record.set, {}), {slots = {}, out = {}, probed = {}}
  local told = decoded(record.by_device, nil)
  if told then  -- else an older scheduler took its hello: the next one tells
    unsubscribe(node, record)
    local serves, lanes, known = {}, {}, {}
    for device, can in pairs(told) do
      local queues = still_known((set[device] or {}).queues) or can.queues
      if record[of("out", device)] then queues = {} end
      serves[#serves + 1] = cjson.encode(device) .. ": " .. list(queues)
      for _, queue in ipairs(queues) do
        for _, lane in ipairs(can.lanes) do
          if not known[queue .. ":" .. lane] then lanes[#lanes + 1] = queue .. ":" .. lane end
          known[queue .. ":" .. lane] = true
        end
      end
    end
    table.sort(serves)
    table.sort(lanes)
    record.serves, record.lanes = "{" .. table.concat(serves, ", ") .. "}", list(lanes)
    redis.call("HSET", name, "serves", record.serves, "lanes", record.lanes)
    if record.status == "online" or record.status == "suspect" then subscribe(node, record) end
  end
  local found = false
  for device, wish in pairs(set) do
    orders.slots[device] = wish.slots
    found = found or wish.slots ~= nil
  end
  for field, why in pairs(record) do
    local device = field:match("^out@(.*)$")
    if device then
      orders.out[device] = why
      if record[of("probe_ms", device)] then orders.probed[#orders.probed + 1] = device end
      found = true
    end
  end
  orders.hand_back_ms = tonumber(record.hand_back_ms)
  if record.stopping and record.stopping == record.boot then orders.stop = true end
  if #orders.probed == 0 then orders.probed = nil end
  if found or orders.hand_back_ms or orders.stop then
    redis.call("HSET", name, "orders", cjson.encode(orders))
  else
    redis.call("HDEL", name, "orders")
  end
  return record
end

-- Everything the node holds runs elsewhere. Answers how many attempts that were.
local function lapse_all(move, node, code, message)
  local held = redis.call("ZRANGE", key("held", node), 0, -1)
  for _, id in ipairs(held) do
    local t = load_listed(id)
    if t and t.status == STATE.PROCESSING and t.node == node then
      tally("expired", 1)
      lapse(move, id, t, code, message)
    else
      redis.call("ZREM", key("held", node), id)
    end
  end
  return #held
end

-- Whether a node has said hello to another scheduler since it spoke through `via`.
local function is_elsewhere(at, via)
  return (at or "") ~= "" and (via or "") ~= "" and at ~= via
end

---------------------------------------------------------------- taking back

-- What an operator's command has done can be taken back for a while, exactly, as long as nothing else has happened to
-- its subject. `undo:<command>` has for each task the revision that the command made and what its hash said before.
local STAYS = {json = true, json_digest = true, digest = true, idem = true, model = true, user = true, job = true, rev = true,
  updated_ms = true, back = true, notes = true, aside = true, waits_ms = true, why = true,
  billed = true}
-- A task may be running by a lease of its own while only its place in the order is changed.
local OF_ORDER = {priority = true, score = true, tag = true, place = true}

local OF_DEADLINE = {json = true, json_digest = true, done_by_ms = true}
-- What waited for a function may have come home with it.
local OF_PRIVACY = {json = true, json_digest = true, queue = true, pinned = true, forced = true, cost = true,
  queued_ms = true, score = true, tag = true, place = true}

local function is_taken_back(move, field)
  if move == "prioritise_task" then return OF_ORDER[field] or false end
  if move == "set_deadline" then return OF_DEADLINE[field] or false end
  if move == "set_privacy" then return OF_PRIVACY[field] or false end
  return not STAYS[field]
end

local function undo_key(command)
  return key("undo", command)
end

-- "<revision>:<an earlier one>": at that revision the task is as it was at the earlier one, an act having been taken back.
local function undone_key(id)
  return key("undone", id)
end

local function keep_for_undo(subject, entry)
  local command = KEYS[2] and KEYS[2]:match("([^:]+)$")
  if not command then return end  -- no operator's command
  entry.at_ms, entry.move = NOW, MOVE
  redis.call("HSET", undo_key(command), subject, cjson.encode(entry))
  redis.call("PEXPIRE", undo_key(command), UNDO_MS)
end

-- Before the transition that the command asks for.
local function keep_task_for_undo(id, t)
  local before = {}
  for field, value in pairs(t) do
    if is_taken_back(MOVE, field) then before[field] = value end
  end
  keep_for_undo(id, {rev = number(t.rev) + 1, status = t.status, before = before})
end

---------------------------------------------------------------- keys that may connect

local function is_live_key(record)
  local until_ms = number(tostring(record.until_ms or 0))
  return number(tostring(record.revoked_ms or 0)) == 0 and (until_ms == 0 or until_ms > NOW)
end

-- Who has the name of `record` already, or speaks for its node: its record as JSON. A name is one key's at a time.
local function holder_of(book, id, record)
  if record.role == "invited" then return nil end
  for other, text in pairs(load_hash(book) or {}) do
    local told = decoded(text, {})
    if other ~= id and told.role ~= "invited" and is_live_key(told)
      and (told.name == record.name or ((record.node or "") ~= "" and told.node == record.node)) then
      return text
    end
  end
  return nil
end

-- Invitations are told for a day after their end, keys that were revoked or replaced for a month; but of those that
-- schedulers enrol at their start by themselves, that they were revoked is never forgotten.
local function forget_keys(book)
  for id, text in pairs(load_hash(book) or {}) do
    local told = decoded(text, {})
    local kept_ms = told.role == "invited" and 86400000 or 30 * 86400000
    local ended = math.max(number(tostring(told.until_ms or 0)), number(tostring(told.revoked_ms or 0)))
    if ended > 0 and ended + kept_ms < NOW and told.by ~= "lcq keys init" then redis.call("HDEL", book, id) end
  end
end

---------------------------------------------------------------- commands

-- An operator's command may be told twice, also to two schedulers: what it has done once it does not do again, and
-- the answer is the same. KEYS[2], where there is one, keeps that, by move and subject.
local function once(move)
  local done = KEYS[2]
  if not done then return move() end
  local field = MOVE .. " " .. ARGV[1]
  local before = redis.call("HGET", done, field)
  if before then return cjson.decode(before) end
  local answer = move()
  if answer[1] == "ok" then
    redis.call("HSET", done, field, cjson.encode(answer))
    redis.call("PEXPIRE", done, ANSWERS_KEPT_MS)
  end
  return answer
end
