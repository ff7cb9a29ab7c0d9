-- reroute_task: PENDING, QUEUED, PROCESSING, FAILED or CANCELLED -> QUEUED elsewhere; what runs is cancelled first.
-- KEYS  namespace
-- ARGV  id, why, revision the operator saw ("" for any), queue, pinned node ("" for any node of the queue),
--       forced ("1": an operator chose the queue), requires (JSON of the labels that it requires from now on; "": as
--       before), lane (of its model, its type and these), cost_s ("": as before)
-- RETURNS {"ok", node, attempt, revision} (node: where its runner must be ended, or "") | {"missing"} | {"refused", status}
--         | {"moved_on", status} | {"too_many_labelled"}
local id, why, seen, queue, pinned, forced, requires, lane, cost = unpack(ARGV)
local t = load_task(id)
if not t then return {"missing"} end
if seen ~= "" and seen ~= t.rev then return {"moved_on", t.status} end
if t.status == STATE.COMPLETED then return {"refused", t.status} end
if requires == "" then lane = lane_name(t) end
if too_many_labelled(owner_of({queue = queue, pinned = pinned}), lane) then return {"too_many_labelled"} end
keep_task_for_undo(id, t)
local node, n = "", number(t.attempt)
local changes = ended({
  queued_ms = NOW, why = why, score = false, tag = false, due_ms = false, avoid = false, finished_ms = false,
})
if cost ~= "" then changes.cost = cost end
if t.status == STATE.PROCESSING then
  node = t.node
  changes.fence = n
  close_attempt(id, n, "rerouted")
elseif TERMINAL[t.status] then
  changes.fence, changes.retries, changes.deaths, changes.class, changes.code, changes.message = n, 0, 0, false, false, false
  changes.eased = false
end
-- The old lane is left by the old queue and pin, so these change inside the transition.
changes.queue, changes.pinned, changes.forced = queue, pinned, forced
if requires ~= "" then
  changes.requires = requires
  changes.lane = lane ~= t.model and lane
end
transition("reroute_task", id, t, STATE.QUEUED, changes, {"from", node})
return {"ok", node, n, t.rev}
