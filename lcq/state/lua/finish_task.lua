-- finish_task: PROCESSING, QUEUED or PENDING -> COMPLETED. From other than PROCESSING, or with another attempt
-- running, it is the late result of an older attempt, and counts if no operator has asked for a new run since.
-- KEYS  namespace
-- ARGV  id, attempt, node, result (JSON), peak_mib, device_peak_mib (of the host's, of a GPU's memory; 0: not known)
-- RETURNS {"ok", status, device, cost, megapixels, seconds, queue, ms of the attempt, ms since its submit} | {"again"} | {"missing"} | {"fenced", status}
--         The megapixels are "" where it took no ordinary course with its model loaded, or nothing was predicted; and
--         where only some nodes may run it: such tasks may all be of a kind that takes longer.
local id, n, node, result = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local t = load_task(id)
if not t then return {"missing"} end
local record = attempt_record(id, n)
if record and record.outcome ~= "damaged" and record.node ~= node then record = nil end
if record and record.outcome == "completed" then return {"again"} end  -- also where a retry has begun since
local told = decoded(result, {})
local took, paid = number(tostring(told.seconds or 0)), math.max(0, math.ceil(number(tostring(told.cost or 0)) * 1000000 - 0.001))
if TERMINAL[t.status] or not record or n <= number(t.fence) then
  correct_bill(id, n, node, nil, paid)
  tally("fenced", 1)
  return {"fenced", t.status}
end
local live = t.status == STATE.PROCESSING and n == number(t.attempt)
local more = {"late", live and "0" or "1"}
if not live then
  tally("late", 1)
  if t.status == STATE.PROCESSING then
    close_attempt(id, number(t.attempt), "superseded")
    -- Told at once: until it is, the node may put a result of its own into the place of this one.
    for _, word in ipairs({"from", t.node, "superseded", t.attempt}) do more[#more + 1] = word end
  end
end
local late_one = live and record.result_of or not live and n  -- whose result this is, where that was taken back once
if record.result_of then correct_bill(id, record.result_of, node, nil, paid) end
close_attempt(id, n, "completed", nil, {
  paid = paid,
  peak_mib = peak(ARGV[5]), device_peak_mib = peak(ARGV[6]), seconds = took > 0 and took or nil,
}, record)

-- What it took is learned, for what comes next (lcq/costs.py): the last COSTS_KEPT of a cost key. Where attempts end
-- faster than these can say anything new, some are passed over.
local function learn(cost)
  local name, last = key("cost", cost), redis.call("ZSCORE", key("costs"), cost)
  if last and NOW - tonumber(last) < COST_PAUSE_MS and redis.call("LLEN", name) >= COSTS_KEPT then return end
  redis.call("RPUSH", name, table.concat({
    record.megapixels or 0, took, peak(ARGV[5]) or 0, record.warm and 1 or 0, record.predicted_s or 0,
    record.predicted_p90_s or 0,
  }, " "))
  redis.call("LTRIM", name, -COSTS_KEPT, -1)
  learn_memory(record, ARGV[5], ARGV[6], false)
  note_cost(cost)
end
if record.cost and not record.eased and took > 0 then learn(record.cost) end  -- made easier, it says nothing of others
credit(node, "completed")
praise(node, record.device or "")
tally("completed", 1)
redis.call("HINCRBY", key("minute", math.floor(NOW / 60000)), "completed/" .. t.queue, 1)  -- see budget_wait
transition("finish_task", id, t, STATE.COMPLETED, ended({
  committed = n, result = result, finished_ms = NOW, node = node, device = record.device or "", progress = "1",
  class = false, code = false, message = false, due_ms = false, why = late_one and "late result of attempt " .. late_one or "",
}), more)
local is_for_all = (t.pinned or "") == "" and not (t.lane or ""):find("?", 1, true)
local is_ordinary = live and is_for_all and record.cost and record.warm and not record.eased and took > 0
local megapixels = is_ordinary and record.megapixels and tostring(record.megapixels) or ""
return {
  "ok", t.status, record.device or "", record.cost or "", megapixels, tostring(took), t.queue,
  tostring(NOW - number(tostring(record.started_ms or NOW))), tostring(NOW - number(t.submitted_ms)),
}
