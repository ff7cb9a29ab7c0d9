-- undo_task: PENDING, QUEUED, PROCESSING or CANCELLED -> PENDING, QUEUED, PROCESSING, COMPLETED, FAILED or CANCELLED.
-- What a command has done to a task is taken back, exactly, if nothing else has happened to the task since, but for what
-- has been taken back itself: of several acts the last comes first, and then the task is as the one before has left it.
-- KEYS  namespace
-- ARGV  id, why, the command that is taken back
-- RETURNS {"ok"} | {"missing"} | {"nothing"} (of that command, or too late) | {"moved_on", status, why}
--         | {"ended"} (a running attempt was: nothing can bring it back)
local id, why, command = unpack(ARGV)
local entry = decoded(redis.call("HGET", undo_key(command), id), nil)
if not entry then return {"nothing"} end
local t = load_task(id)
if not t then return {"missing"} end
local is_same = number(t.rev) == entry.rev or redis.call("GET", undone_key(id)) == t.rev .. ":" .. entry.rev
if not is_same then return {"moved_on", t.status, t.why or ""} end
if entry.status == STATE.PROCESSING and t.status ~= STATE.PROCESSING then return {"ended"} end
local changes = {why = why}
for field in pairs(t) do
  if is_taken_back(entry.move, field) then changes[field] = false end
end
for field, value in pairs(entry.before) do changes[field] = value end
redis.call("HDEL", undo_key(command), id)
if entry.move == "set_deadline" then
  amend("undo_task", id, t, changes, {"undone", entry.move, "done_by_ms", entry.before.done_by_ms or ""})
elseif entry.move == "set_privacy" and entry.before.queue == t.queue then
  amend("undo_task", id, t, changes, {"undone", entry.move})
else
  transition("undo_task", id, t, entry.status, changes, {"undone", entry.move})
end
redis.call("SET", undone_key(id), t.rev .. ":" .. entry.rev - 1, "PX", UNDO_MS)  -- as before the command
return {"ok"}
