-- retry_task: COMPLETED, FAILED or CANCELLED -> QUEUED, by an operator. Counts start anew, history stays.
-- KEYS  namespace
-- ARGV  id, why, revision the operator saw ("" for any), queue
-- RETURNS {"ok", revision} | {"missing"} | {"refused", status} | {"moved_on", status}
local id, why, seen, queue = unpack(ARGV)
local t = load_task(id)
if not t then return {"missing"} end
if seen ~= "" and seen ~= t.rev then return {"moved_on", t.status} end
if not TERMINAL[t.status] then return {"refused", t.status} end
keep_task_for_undo(id, t)
transition("retry_task", id, t, STATE.QUEUED, {
  queue = queue, fence = t.attempt, retries = 0, deaths = 0, queued_ms = NOW, why = why,
  node = "", device = "", progress = "0",
  class = false, code = false, message = false, result = false, committed = false, finished_ms = false,
  avoid = false, eased = false, score = false, tag = false, due_ms = false,
})
return {"ok", t.rev}
