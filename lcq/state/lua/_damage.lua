-- Records that are not what a move has written: found out, reported, and kept out of the work of all others.
-- Loaded behind the prelude. A task's hash is sound if its fields can be read and agree with the indexes that list it.

local KNOWN = {}
for _, status in pairs(STATE) do KNOWN[status] = true end

local TEXTS = {"json", "digest", "idem", "model", "user", "queue"}
local NUMBERS = {"rev", "attempt", "retries", "deaths", "max_retries", "submitted_ms", "updated_ms", "queued_ms"}
local MAY_BE = {"cost", "tag", "score", "fence", "lease_ms", "due_ms", "deadline_ms", "started_ms", "finished_ms", "vram", "weight", "place",
  "mp", "waits_ms", "ends_ms", "done_by_ms"}
local MOST_JOBS = 5000  -- that are asked whether a task is theirs, where its own record does not say
local MOST_LOST = 100  -- attempts whose records are made up to keep the count; more of them are no count at all

local function is_number(text)
  local value = tonumber(text or "")
  return value ~= nil and value == value and math.abs(value) < 2 ^ 53
end

local function is_in(name, id)
  local score = redis.pcall("ZSCORE", name, id)
  return type(score) == "string"
end

-- What is wrong with a task's hash; nil if nothing is.
local function damage_of(id, t, from)
  if next(t) == nil then return "is no hash" end
  for _, field in ipairs(TEXTS) do
    if (t[field] or "") == "" then return "has no " .. field end
  end
  for _, field in ipairs(NUMBERS) do
    if not is_number(t[field]) then return field .. " is no number" end
  end
  for _, field in ipairs(MAY_BE) do
    if t[field] and not is_number(t[field]) then return field .. " is no number" end
  end
  if not BANDS[t.priority or ""] then return "priority is none" end
  if not KNOWN[t.status or ""] then return "status is none" end
  if not is_in(key("ix", "status", t.status), id) then return "status is not the one it is listed under" end
  if not is_in(key("ix", "queue", t.queue), id) then return "queue is not the one it is listed under" end
  if (t.job or "") ~= "" and not is_in(key("ix", "job", t.job), id) then return "job is not the one it is listed under" end
  if redis.pcall("LLEN", key("attempts", id)) ~= tonumber(t.attempt) then return "attempt does not count its attempts" end
  if t.status == STATE.QUEUED then
    local waits_in = t.aside and key("aside", t.queue) or lane_of(t)
    if not t.score or not (waits_in == from or is_in(waits_in, id)) then return "waits in another lane" end
  elseif t.status == STATE.PENDING then
    if not t.due_ms then return "has no due_ms" end
  elseif t.status == STATE.PROCESSING then
    if (t.node or "") == "" or not is_in(key("held", t.node), id) then return "node does not hold it" end
    if not t.deadline_ms then return "has no deadline_ms" end
  elseif t.status == STATE.FAILED and ((t.code or "") == "" or (t.class or "") == "") then
    return "has no code"
  end
  return nil
end

-- What isolates a record; made where one is damaged, and not for every call of every move.
local function mending()
  local function queue_names(t)
    local names = {}
    for name in pairs(QUEUE_KINDS) do names[#names + 1] = name end
    if (t.queue or "") ~= "" and not QUEUE_KINDS[t.queue] then names[#names + 1] = t.queue end
    table.sort(names)
    return names
  end

  -- The job that lists a task; nil if none does.
  local function job_of(id, t)
    if is_in(key("ix", "job", t.job or ""), id) then return t.job end
    for _, job in ipairs(redis.call("ZREVRANGE", key("jobs"), 0, MOST_JOBS - 1)) do
      if is_in(key("ix", "job", job), id) then return job end
    end
    return nil
  end

  -- Takes an id off every index but its job's, whatever its hash says; counters follow the indexes. Answers the status,
  -- the queue and the job under which it was listed, nil where it was not.
  local function unlist(id, t)
    local statuses, was_in = {}, nil
    for _, status in pairs(STATE) do
      if redis.call("ZREM", key("ix", "status", status), id) == 1 then statuses[#statuses + 1] = status end
    end
    table.sort(statuses)
    local job = job_of(id, t)
    for _, queue in ipairs(queue_names(t)) do
      local is_listed = redis.call("ZREM", key("ix", "queue", queue), id) == 1
      if is_listed then was_in = queue end
      for _, status in ipairs(is_listed and statuses or {}) do redis.call("HINCRBY", key("counts"), queue .. "/" .. status, -1) end
      local waited = redis.call("ZREM", key("waiting", queue), id) == 1
      if waited and is_number(t.waits_ms) then count_backlog(queue, t, -1) end
      redis.call("ZREM", key("aside", queue), id)
      for band in pairs(BANDS) do redis.call("ZREM", key("band", queue, band), id) end
      close_book(queue)
    end
    for _, status in ipairs(statuses) do
      redis.call("HINCRBY", key("counts"), status, -1)
      if job then redis.call("HINCRBY", key("job", job), status, -1) end
    end
    for _, name in ipairs({"delayed", "leases", "expiry"}) do redis.call("ZREM", key(name), id) end
    local asked = decoded(t.json, {})
    local users, jobs, owners = {}, {[""] = true}, {}
    for _, user in ipairs({t.user or "", asked.user_id or ""}) do users[tostring(user)] = true end
    -- Whose it is nobody knows where its own record does not say it: then it may be anybody's who has tasks there.
    local function leave_all_orders(lane)
      local owner, was_in = lane:match("^([^:]*):"), false
      for band in pairs(BANDS) do was_in = redis.call("ZREM", key("rank", lane, band), id) == 1 or was_in end
      local function leave_those_of(user)
        for band in pairs(BANDS) do
          if redis.call("ZREM", key("mine", lane, band, user), id) == 1 then
            count_user(owner, user, -1)
            users[user], was_in = true, false
          end
        end
      end
      local asked_of = {}
      for user in pairs(users) do asked_of[#asked_of + 1] = user end
      for _, user in ipairs(asked_of) do leave_those_of(user) end
      for _, user in ipairs(was_in and redis.call("HKEYS", key("users", owner)) or {}) do
        if was_in then leave_those_of(user) end
      end
    end
    for _, lane in ipairs(redis.call("SMEMBERS", key("lanes"))) do
      redis.call("ZREM", key("lane", lane), id)
      leave_all_orders(lane)
      if redis.call("EXISTS", key("lane", lane)) == 0 then redis.call("SREM", key("lanes"), lane) end
    end
    for _, lane in ipairs(redis.call("SMEMBERS", key("labelled"))) do
      redis.call("ZREM", key("lane", lane), id)
      leave_all_orders(lane)
      if redis.call("EXISTS", key("lane", lane)) == 0 then redis.call("SREM", key("labelled"), lane) end
    end
    if (t.pinned or "") ~= "" and t.model then
      redis.call("ZREM", key("lane", "@" .. t.pinned, lane_name(t)), id)
      leave_all_orders("@" .. t.pinned .. ":" .. lane_name(t))
    end
    for _, node in ipairs(redis.call("ZRANGE", key("nodes"), 0, -1)) do redis.call("ZREM", key("held", node), id) end
    if (t.node or "") ~= "" then redis.call("ZREM", key("held", t.node), id) end
    for _, member in ipairs(redis.call("ZRANGE", key("ends"), 0, -1)) do
      if member:sub(-#id - 1) == "|" .. id then redis.call("ZREM", key("ends"), member) end
    end
    for _, cause in ipairs(redis.call("SMEMBERS", key("causes"))) do
      redis.call("ZREM", key("ix", "cause", cause), id)
      if redis.call("EXISTS", key("ix", "cause", cause)) == 0 then redis.call("SREM", key("causes"), cause) end
    end
    for _, name in ipairs({t.job or "", asked.job or "", job or ""}) do jobs[tostring(name)] = true end
    for _, queue in ipairs(queue_names(t)) do owners[queue] = true end
    if (t.pinned or "") ~= "" then owners["@" .. t.pinned] = true end
    unlist_order(id, users, jobs, owners)
    t.back = nil
    return statuses[1], was_in, job
  end

  -- Makes the list of attempts one that can be counted, and the count that of the list.
  local function recount_attempts(id, t)
    local name = key("attempts", id)
    local length = redis.pcall("LLEN", name)
    if type(length) ~= "number" then
      redis.call("DEL", name)
      for _, node in ipairs(redis.call("ZRANGE", key("nodes"), 0, -1)) do redis.call("ZREM", key("ix", "node", node), id) end
      length = 0
    end
    local told = math.floor(number(t.attempt))
    while length < told and told - length <= MOST_LOST do
      length = length + 1
      redis.call("RPUSH", name, cjson.encode({number = length, node = "", started_ms = 0, ended_ms = 0, outcome = "damaged"}))
    end
    return length
  end

  -- Fails a task because of its record, and keeps it: with what is left of it, and what its own JSON tells again. What
  -- had come to its end stays as it was.
  local function isolate(id, t, found)
    local status, queue, job = unlist(id, t)
    local asked = decoded(t.json, {})
    local config = type(asked.config) == "table" and asked.config or {}
    local function text(field, otherwise)
      if (t[field] or "") ~= "" then return t[field] end
      return type(otherwise) == "string" and otherwise ~= "" and otherwise or "?"
    end
    local rev = is_number(t.rev) and number(t.rev) or NOW  -- later than any that was seen
    local was_over = status and TERMINAL[status]
    local node = t.node or ""
    t.json, t.digest, t.idem = text("json", "{}"), text("digest"), text("idem", id)
    t.model, t.user = text("model", config.model), text("user", asked.user_id)
    t.queue = queue or text("queue", queue_names(t)[1])
    t.job = job or (type(asked.job) == "string" and asked.job) or ""
    if not BANDS[t.priority or ""] then t.priority = BANDS[asked.priority or ""] and asked.priority or "normal" end
    if not is_number(t.max_retries) then t.max_retries = tostring(math.floor(number(tostring(asked.max_retries)))) end
    for _, field in ipairs(NUMBERS) do
      if not is_number(t[field]) then t[field] = (field:sub(-3) == "_ms") and tostring(NOW) or "0" end
    end
    for _, field in ipairs(MAY_BE) do
      if t[field] and not is_number(t[field]) then t[field] = nil end
    end
    t.cost = t.cost or "1"
    t.attempt = tostring(recount_attempts(id, t))
    t.rev, t.updated_ms, t.aside = tostring(rev + 1), tostring(NOW), nil
    t.status = was_over and status or STATE.FAILED
    t.why = "its record was damaged: " .. found
    if not was_over then
      local failure = {error_class = "bad_input", code = "record_damaged", message = t.why}
      for n = 1, number(t.attempt) do
        if attempt_record(id, n).outcome == "running" then close_attempt(id, n, "failed", failure) end
      end
      t.finished_ms, t.due_ms, t.deadline_ms, t.ends_ms, t.stage, t.avoid = tostring(NOW), nil, nil, nil, "", nil
      t.class, t.code, t.message = failure.error_class, failure.code, failure.message
      tally("failed", 1)
      note_flow("left", t.queue)
    elseif t.status == STATE.FAILED then
      t.class, t.code = text("class", "bad_input"), text("code", "record_damaged")
      t.message = t.message or t.why
    end
    local flat = {}
    for field, value in pairs(t) do flat[#flat + 1] = field; flat[#flat + 1] = value end
    redis.call("DEL", key("task", id))  -- it may be of another type
    redis.call("HSET", key("task", id), unpack(flat))
    redis.call("ZADD", key("ids"), 0, id)
    if t.job ~= "" then
      redis.call("ZADD", key("ix", "job", t.job), 0, id)
      redis.call("ZADD", key("jobs"), "NX", NOW, t.job)
    end
    enter_indexes(id, t)
    if t.job ~= "" and t.status == STATE.COMPLETED then
      local sums = {}
      sum_up(sums, t, -1)  -- it was in the sums already
      write_sums(sums)
    elseif t.job ~= "" and not was_over then
      redis.call("HINCRBY", key("job", t.job), "left_ms", -math.floor(number(t.cost) * 1000 + 0.5))
    end
    tally("isolated", 1)
    emit_task("isolate_task", id, t, {"class", t.class or "", "code", t.code or "", "message", t.why, "from", node})
  end

  return {unlist = unlist, isolate = isolate}
end

-- Whether the task had to be isolated.
isolate_damaged_task = function(id, t, from)
  local found = damage_of(id, t, from)
  if found then mending().isolate(id, t, found) end
  return found ~= nil
end

-- The task of an id that an index lists; an id whose record is gone is taken off all of them.
load_listed = function(id, from)
  local t, was_damaged = load_task(id, from)
  if not t then
    local _, _, job = mending().unlist(id, {})
    if job then redis.call("ZREM", key("ix", "job", job), id) end
    redis.call("DEL", key("attempts", id))
    redis.call("ZREM", key("ids"), id)
    tally("isolated", 1)
    emit("forget_tasks", {"id", id})
  end
  return t, was_damaged
end

---------------------------------------------------------------- nodes

local NODE_TABLES = {"capability", "serves", "lanes"}

local function damage_of_node(r)
  if next(r) == nil then return "is no hash" end
  if not r.boot then return "has no boot" end
  if (r.status or "") == "" then return "has no status" end
  for _, field in ipairs(NODE_TABLES) do
    if not decoded(r[field], nil) then return field .. " cannot be read" end
  end
  for device, can in pairs(decoded(r.by_device or "{}", {""})) do
    if type(can) ~= "table" or type(can.queues) ~= "table" or type(can.lanes) ~= "table" then
      return "by_device cannot be read"
    end
  end
  if not is_number(r.seen_ms) then return "seen_ms is no number" end
  return nil
end

-- Takes a node for one that has to say hello again. Its leases stay: with its next hello it holds what it held.
local function isolate_damaged_node(node, r, found)
  unsubscribe(node, r)
  local name = key("node", node)
  local fresh = {
    boot = "", status = "offline", capability = "{}", serves = "{}", lanes = "[]", telemetry = "{}", readings = "{}",
    retired = decoded(r.retired, nil) and r.retired or "[]", seen_ms = tostring(NOW), registered_ms = tostring(NOW),
    why = "its record was damaged: " .. found,
  }
  -- An operator's word outlives this too.
  if r.wish == "draining" then fresh.wish = r.wish end
  for _, field in ipairs({"set", "relabelled"}) do
    if decoded(r[field], nil) then fresh[field] = r[field] end
  end
  for field, value in pairs(r) do
    if field:sub(1, 4) == "out@" then fresh[field] = value end
  end
  for _, field in ipairs({"completed", "failed"}) do
    if is_number(r[field]) then fresh[field] = r[field] end
  end
  local flat = {}
  for field, value in pairs(fresh) do flat[#flat + 1] = field; flat[#flat + 1] = value end
  redis.call("DEL", name)
  redis.call("HSET", name, unpack(flat))
  redis.call("ZADD", key("nodes"), NOW, node)
  tally("isolated", 1)
  emit("isolate_node", {"node", node, "status", "offline", "why", fresh.why})
end

local function load_node(node)
  local r = load_hash(key("node", node))
  local found = r and damage_of_node(r)
  if not found then return r end
  isolate_damaged_node(node, r, found)
  return load_hash(key("node", node))
end
