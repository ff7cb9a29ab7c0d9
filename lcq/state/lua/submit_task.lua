-- submit_task: nothing -> QUEUED, or PENDING if it is due later. The same idempotency key finds the same task.
-- KEYS  namespace
-- ARGV  id, json, digest, idempotency_key, queue, pinned_node, model, priority, user, job, max_retries,
--       cost_s, due_ms (0: now), image, why, forced ("1": an operator chose the queue), lane (of its model and type),
--       vram_mib (what it is predicted to need on a GPU), weight (the user's), max_queued (of the queue; 0: no limit),
--       displace ("1": an urgent one may take the place of another), per_minute (the user's; 0: no limit), size ("WxH";
--       "": not known), megapixels that are worked on ("": not known), precision ("": the engine's choice),
--       interactive_ms (somebody waits for it: for so long slots are kept for such; 0: nobody does),
--       done_by_ms (when it is to be done; "": no matter when)
-- RETURNS {"ok", id, status, queue} | {"duplicate", id, status, queue} | {"conflict", id}
--         | {"full", how many wait} | {"too_soon", ms until the next one} | {"too_many_labelled"}
local id, json, digest, idem, queue, pinned, model, priority, user, job, max_retries, cost, due, image, why, forced,
  lane, vram, weight, max_queued, displace, per_minute, size, mp, precision, interactive_ms,
  done_by = unpack(ARGV)
local known = redis.call("GET", key("idem", idem))
if not known and redis.call("EXISTS", key("task", id)) == 1 then known = id end
if known then
  local earlier = load_task(known)
  if earlier then
    if earlier.digest ~= digest then return {"conflict", known} end
    return {"duplicate", known, earlier.status, earlier.queue}
  end
end

-- The youngest task of the lowest band that waits in the queue and is below urgent.
local function least_wanted()
  local bands = {}
  for band, span in pairs(BANDS) do
    if span > BANDS.urgent then bands[#bands + 1] = band end
  end
  table.sort(bands, function(a, b) return BANDS[a] > BANDS[b] end)
  for _, band in ipairs(bands) do
    while true do
      local victim = redis.call("ZREVRANGE", key("band", queue, band), 0, 0)[1]
      if not victim then break end
      local t = load_listed(victim)
      if t and t.status == STATE.QUEUED then return victim, t end
      redis.call("ZREM", key("band", queue, band), victim)
    end
  end
end

if too_many_labelled(owner_of({queue = queue, pinned = pinned}), lane) then return {"too_many_labelled"} end

-- Quotas. A refusal changes nothing; and what waits for its time counts as waiting, or the limit could be got around.
local victim, displaced
if number(max_queued) > 0 then
  local depth = redis.call("HMGET", key("counts"), queue .. "/" .. STATE.QUEUED, queue .. "/" .. STATE.PENDING)
  local waiting = number(depth[1]) + number(depth[2])
  if waiting >= number(max_queued) then
    if displace == "1" and priority == "urgent" then victim, displaced = least_wanted() end
    if not victim then return {"full", waiting} end
  end
end
if number(per_minute) > 0 then
  local book, a_minute = key("rate", user), 60000
  -- How long all that was submitted takes at the rate; a minute's worth may come at once.
  local spent = math.max(NOW, math.min(number(redis.call("GET", book)), NOW + a_minute)) + a_minute / number(per_minute)
  if spent - NOW > a_minute + 1 then return {"too_soon", math.ceil(spent - NOW - a_minute)} end
  redis.call("SET", book, string.format("%.3f", spent), "PX", a_minute + 1000)
end
if victim then
  tally("cancelled", 1)
  tally("displaced", 1)
  transition("cancel_task", victim, displaced, STATE.CANCELLED, ended({
    finished_ms = NOW, due_ms = false,
    why = "displaced by the urgent task " .. id .. ": " .. queue .. " is full (at most " .. max_queued .. " may wait)",
  }), {"from", "", "displaced_by", id})
end
local t = {
  json = json, digest = digest, idem = idem, queue = queue, pinned = pinned, model = model, priority = priority,
  user = user, job = job, max_retries = max_retries, cost = cost, image = image, why = why, forced = forced,
  status = (number(due) > NOW) and STATE.PENDING or STATE.QUEUED,
  rev = "1", attempt = "0", retries = "0", deaths = "0", node = "", device = "",
  submitted_ms = tostring(NOW), updated_ms = tostring(NOW), queued_ms = tostring(NOW),
}
if lane ~= model then t.lane = lane end
if number(vram) > 0 then t.vram = vram end
if number(weight) > 0 and number(weight) ~= 1 then t.weight = weight end
if size ~= "" then t.size = size end
if mp ~= "" then t.mp = mp end
if precision ~= "" then t.precision = precision end
if done_by ~= "" then t.done_by_ms = done_by end
if t.status == STATE.QUEUED then t.waits_ms = waits_ms(t) end
if t.status == STATE.QUEUED then rank(t) else t.due_ms = due end
local flat = {}
for field, value in pairs(t) do flat[#flat + 1] = field; flat[#flat + 1] = value end
redis.call("HSET", key("task", id), unpack(flat))
redis.call("SET", key("idem", idem), id)  -- lives as long as its task
redis.call("ZADD", key("ids"), 0, id)
if job ~= "" then
  redis.call("ZADD", key("ix", "job", job), 0, id)
  -- Only of a job that began with this do the sums (sum_up) have all tasks: an older version kept none.
  if redis.call("ZADD", key("jobs"), "NX", NOW, job) == 1 then redis.call("HSET", key("job", job), "summed", "1") end
end
enter_indexes(id, t)
if number(interactive_ms) > 0 then
  redis.call("HSET", key("interactive"), queue .. ":" .. lane, string.format("%.0f", NOW + interactive_ms))
  redis.call("PEXPIRE", key("interactive"), interactive_ms)
end
note_flow("came", queue)
tally("submitted", 1)
emit_task("submit_task", id, t, {"model", model, "user", user, "job", job, "image", image, "submitted_ms", t.submitted_ms,
  "size", size, "done_by_ms", done_by})
return {"ok", id, t.status, queue}
