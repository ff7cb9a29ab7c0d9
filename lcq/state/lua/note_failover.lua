-- note_failover: another server has taken over, and may lack the last writes. Told once, whoever notices it first.
-- KEYS  namespace
-- ARGV  run_id of the new server, lost_ms, lost_bytes, message
-- RETURNS {"ok"} | {"known"}
local run_id, lost_ms, lost_bytes, message = unpack(ARGV)
if redis.call("HGET", key("failover"), "run_id") == run_id then return {"known"} end
redis.call("HSET", key("failover"), "run_id", run_id, "at_ms", NOW, "lost_ms", lost_ms, "lost_bytes", lost_bytes)
emit("note_failover", {"lost_ms", lost_ms, "lost_bytes", lost_bytes, "why", message})
return {"ok"}
