-- set_privacy: PENDING, QUEUED or PROCESSING -> the same: its pictures may leave the house from now on, or may not. What
-- waits for a function and may not waits in the house at once; what a function works on goes on, and comes back after it.
-- KEYS  namespace
-- ARGV  id, why, revision that `json` was made of, json (the task as it asks for that), digest of that json (what was
--       submitted keeps its own: by that it is known when it is submitted again), privacy, queue (of the house, for what
--       waits for a function; "": it stays where it is), cost_s (there)
-- RETURNS {"ok", revision} | {"missing"} | {"refused", status} | {"moved_on", status}
local id, why, seen, json, json_digest, privacy, queue, cost = unpack(ARGV)
local t = load_task(id)
if not t then return {"missing"} end
if seen ~= t.rev then return {"moved_on", t.status} end
if TERMINAL[t.status] then return {"refused", t.status} end
local goes_home = queue ~= "" and queue ~= t.queue and t.status ~= STATE.PROCESSING
  and not too_many_labelled(queue, lane_name(t))
if not goes_home and (decoded(t.json, {}).privacy or "private") == privacy then return {"ok", t.rev} end
keep_task_for_undo(id, t)
local changes = {json = json, json_digest = json_digest, why = why}
if goes_home then
  changes.queue, changes.pinned, changes.forced, changes.cost = queue, "", "", cost
  changes.queued_ms, changes.score, changes.tag = NOW, false, false
  transition("set_privacy", id, t, t.status, changes, {"privacy", privacy})
else
  amend("set_privacy", id, t, changes, {"privacy", privacy})
end
return {"ok", t.rev}
