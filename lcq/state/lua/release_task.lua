-- release_task: PROCESSING -> QUEUED, in its old place: the node gives back what it did not finish.
-- KEYS  namespace
-- ARGV  id, attempt, node, what was paid for it in millionths ("": nobody knows)
-- RETURNS {"ok", status} | {"again"} | {"missing"} | {"fenced", status}
local id, n, node = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local t = load_task(id)
if not t then return {"missing"} end
if t.status ~= STATE.PROCESSING or n ~= number(t.attempt) or t.node ~= node then
  local record = attempt_record(id, n)
  if record and record.node == node and record.outcome == "handed_back" then return {"again"} end
  tally("fenced", 1)
  return {"fenced", t.status}
end
close_attempt(id, n, "handed_back", nil, {paid = tonumber(ARGV[4])})
transition("release_task", id, t, STATE.QUEUED, ended({queued_ms = NOW, why = "handed back by " .. node}))
return {"ok", t.status}
