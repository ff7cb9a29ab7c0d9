-- set_deadline: PENDING, QUEUED or PROCESSING -> the same, to be done by another moment, or no matter when.
-- KEYS  namespace
-- ARGV  id, why, revision that `json` was made of, json (the task as it asks for that), done_by_ms ("": no matter when),
--       digest of that json (what was submitted keeps its own: by that it is known when it is submitted again)
-- RETURNS {"ok", revision} | {"missing"} | {"refused", status} | {"moved_on", status}
local id, why, seen, json, done_by, json_digest = unpack(ARGV)
local t = load_task(id)
if not t then return {"missing"} end
if seen ~= t.rev then return {"moved_on", t.status} end
if TERMINAL[t.status] then return {"refused", t.status} end
-- The json too: what an older LCQ has submitted has its deadline there alone.
if t.json == json and (t.done_by_ms or "") == done_by then return {"ok", t.rev} end
keep_task_for_undo(id, t)
local changes = {json = json, json_digest = json_digest, done_by_ms = done_by ~= "" and done_by, why = why}
amend("set_deadline", id, t, changes, {"done_by_ms", done_by})
return {"ok", t.rev}
