-- prioritise_task: PENDING, QUEUED or PROCESSING -> the same, in another band; a running one keeps it for a retry.
-- KEYS  namespace
-- ARGV  id, why, revision the operator saw ("" for any), priority
-- RETURNS {"ok", revision} | {"missing"} | {"refused", status} | {"moved_on", status}
local id, why, seen, priority = unpack(ARGV)
local t = load_task(id)
if not t then return {"missing"} end
if seen ~= "" and seen ~= t.rev then return {"moved_on", t.status} end
if TERMINAL[t.status] then return {"refused", t.status} end
if t.priority == priority then return {"ok", t.rev} end  -- and it keeps its place
keep_task_for_undo(id, t)
transition("prioritise_task", id, t, t.status, {priority = priority, why = why, score = false, tag = false})
return {"ok", t.rev}
