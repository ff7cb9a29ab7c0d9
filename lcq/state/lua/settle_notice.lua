-- settle_notice: what is to be told to a receiver is about to be tried, or was told, or is given up.
-- KEYS  namespace
-- ARGV  id, its record as it was read, its record as it is now ("": it is done with)
-- RETURNS {"ok"} | {"moved_on"} (another scheduler tries it, or has told it)
local id, before, after = unpack(ARGV)
if redis.call("HGET", key("notices"), id) ~= before then return {"moved_on"} end
if after == "" then redis.call("HDEL", key("notices"), id) else redis.call("HSET", key("notices"), id, after) end
return {"ok"}
