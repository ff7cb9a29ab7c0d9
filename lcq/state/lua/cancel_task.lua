-- cancel_task: PENDING, QUEUED or PROCESSING -> CANCELLED, by an operator.
-- KEYS  namespace
-- ARGV  id, why, revision the operator saw ("" for any)
-- RETURNS {"ok", node, attempt, revision} (node: where its runner must be ended, or "") | {"missing"} | {"refused", status}
local id, why, seen = unpack(ARGV)
local t = load_task(id)
if not t then return {"missing"} end
if seen ~= "" and seen ~= t.rev then return {"moved_on", t.status} end
if TERMINAL[t.status] then return {"refused", t.status} end
keep_task_for_undo(id, t)
local node, n = "", number(t.attempt)
if t.status == STATE.PROCESSING then
  node = t.node
  close_attempt(id, n, "cancelled")
end
tally("cancelled", 1)
transition("cancel_task", id, t, STATE.CANCELLED, ended({finished_ms = NOW, why = why, due_ms = false}), {"from", node})
return {"ok", node, n, t.rev}
