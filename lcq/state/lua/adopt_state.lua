-- adopt_state: marks the state as one of a format that this LCQ knows. What an earlier LCQ has written is brought to it.
-- KEYS  namespace
-- ARGV  (none)
-- RETURNS {"ok", the format it had: "" where there was no mark, the format it has} | {"other_format", format}
local found = redis.call("GET", key("format"))
if found and not (tonumber(found) and tonumber(found) <= FORMAT) then return {"other_format", found} end
-- From the first format, which had no mark, nothing has to be rewritten: what came since is read as absent.
local now = math.max(tonumber(found or "") or 0, BASE_FORMAT)
-- What had no mark of its own for a while: tasks that wait aside, or are kept back.
if redis.call("EXISTS", key("paused"), key("overs")) > 0 then now = FORMAT end
if found ~= tostring(now) then redis.call("SET", key("format"), now) end
return {"ok", found or "", tostring(now)}
