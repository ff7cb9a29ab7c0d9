-- note_act: an operator's act goes to the audit stream, and its answer is kept for a copy that comes later. Of a
-- refusal only the answer is kept.
-- KEYS  namespace
-- ARGV  command_id, answer, keep_ms, how many acts are kept, then the act's fields and values
-- RETURNS {"ok"} | {"again"}
local command_id, answer, keep_ms, kept = unpack(ARGV)
if redis.call("EXISTS", key("answer", command_id)) == 1 then return {"again"} end  -- two schedulers were told
if #ARGV > 4 then redis.call("XADD", key("acts"), "MAXLEN", "~", kept, "*", unpack(ARGV, 5)) end
redis.call("SET", key("answer", command_id), answer, "PX", keep_ms)
return {"ok"}
