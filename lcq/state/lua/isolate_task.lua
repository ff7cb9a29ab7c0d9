-- isolate_task: PENDING, QUEUED, PROCESSING, COMPLETED, FAILED or CANCELLED -> FAILED, or COMPLETED or CANCELLED where
-- it is that already. Its record cannot be what was written: it is kept out of all further work.
-- KEYS  namespace
-- ARGV  id, what was found
-- RETURNS {"ok", status} | {"missing"}
local id, found = unpack(ARGV)
local t, was_damaged = load_task(id)
if not t then return {"missing"} end
if not was_damaged and t.why ~= "its record was damaged: " .. found then mending().isolate(id, t, found) end
return {"ok", t.status}
