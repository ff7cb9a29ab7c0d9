-- adopt_state: marks the state as one of this format. What an earlier LCQ has written is brought to it.
-- KEYS  namespace
-- ARGV  (none)
-- RETURNS {"ok", the format it had: "" where there was no mark} | {"other_format", format}
local found = redis.call("GET", key("format"))
if found and not (tonumber(found) and tonumber(found) <= FORMAT) then return {"other_format", found} end
-- From the first format, which had no mark, nothing has to be rewritten: what came since is read as absent.
if found ~= tostring(FORMAT) then redis.call("SET", key("format"), FORMAT) end
return {"ok", found or ""}
